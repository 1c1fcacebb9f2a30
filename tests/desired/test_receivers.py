"""Who gets secrets of a directory stands at the head of each plan, in every form."""

from __future__ import annotations

import hashlib
import json as builtin_json
from json import dumps
from pathlib import Path

import pytest

from reconciler.desired.load import load
from reconciler.desired.receivers import receivers
from reconciler.plan import Plan
from reconciler.report import json, markdown, text
from reconciler.settings import Settings
from reconciler.stack import Choice, Stack

DIRECTORY = """\
version: 1
stack: mana
targets:
  stalwart: {url: "https://Mail.mana.how:8443/x", username: admin, password: {env: ADMIN}}
  cloudflare:
    - {token: {env: ONE}, zones: [mana.how], base_url: "https://evil.example"}
    - {token: {env: TWO}, zones: [other.how]}
  compose: {file: compose.yml}
accounts: {noreply@mana.how: {password: {file: ../secrets/noreply}}}
smtp:
  provider: postmark
  providers:
    postmark: {preset: postmark, username: {env: POSTMARK}, password: {env: POSTMARK}}
  consumers: {app: {env: {SMTP_HOST: "{host}", SMTP_USER: "{username}"}}}
"""
NONE: dict[str, str | None] = {}


def of(folder: Path, *targets: str, **overrides: str | None) -> dict[str, list[str]]:
    (folder / "reconciler.yaml").write_text(DIRECTORY)
    found = receivers(load(folder).spec, targets, overrides, {})
    return {item.host: list(map(str, item.secrets)) for item in found}


def test_t5_every_host_that_gets_a_secret_is_named_with_the_references(tmp_path: Path) -> None:
    assert of(tmp_path, "stalwart", "cloudflare", "compose") == {
        "https://mail.mana.how:8443": ["{env: ADMIN}", "{file: ../secrets/noreply}"],
        "https://evil.example": ["{env: ONE}"],
        "https://api.cloudflare.com": ["{env: TWO}"],
        "smtp.postmarkapp.com:587": ["{env: POSTMARK}"],
    }
    assert of(tmp_path, "cloudflare", cloudflare="http://127.0.0.1:9") == {
        "http://127.0.0.1:9": ["{env: ONE}", "{env: TWO}"]
    }
    assert "ssh://server" in of(tmp_path, "compose", docker="ssh://me@server")


PASSED_ON = """\
stalwart:
  settings:
    queue.route.out.address: relay.example
    queue.route.out.auth.secret: {env: RELAY}
    queue.route.plain.address: plain.example
    directory.people.url: "ldaps://bind:clear@ldap.example:636/x"
    directory.people.bind.auth.secret: {env: LDAP}
    webhook.told.url: https://hook.example/p
    webhook.told.headers: [{env: HOOK}]
    store.cache.urls: ["redis://one.example:6379", "redis://two.example"]
    store.cache.password: "%{env:OWN}%"
    acme.ca.directory: https://acme.example/dir
    acme.ca.eab.hmac-key: {env: EAB}
  objects:
    WebHook:
      "https://newer.example/x": {httpAuth: {"@type": Bearer, bearerToken: {"@type": Value, secret: {env: TOKEN}}}}
    MtaRoute:
      relay: {"@type": Relay, address: smtp.example, authSecret: {"@type": EnvironmentVariable, variableName: V}}
    MtaMilter: {milter.example: {port: 9}}
"""


def test_t5_hosts_that_the_mail_server_uses_secrets_with_are_named_too(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text(PASSED_ON)
    found = of(tmp_path, "stalwart")
    assert len(found.pop("https://mail.mana.how:8443")) == 7
    assert {host.removesuffix(", by way of Stalwart"): refs for host, refs in found.items()} == {
        "relay.example": ["{env: RELAY}"],
        "ldaps://ldap.example:636": ["{env: LDAP}"],
        "https://hook.example": ["{env: HOOK}"],
        "redis://one.example:6379": ["{env of Stalwart: OWN}"],
        "redis://two.example": ["{env of Stalwart: OWN}"],
        "https://acme.example": ["{env: EAB}"],
        "https://newer.example": ["{env: TOKEN}"],
        "smtp.example": ["{env of Stalwart: V}"],
    }


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example\\@good.example/x",
        " https://evil.example/x",
        "https:/evil.example/x",
        "ht\ttps://evil.example",
    ],
)
def test_t5_what_the_mail_server_may_read_as_another_host_is_shown_whole(tmp_path: Path, url: str) -> None:
    """Its URLs are those of WHATWG, where a backslash ends a host and tabs are left out."""
    settings = {"webhook.x.url": url, "webhook.x.auth.secret": {"env": "HOOK"}}
    (tmp_path / "more.yaml").write_text(f"stalwart: {{settings: {dumps(settings)}}}\n")
    assert of(tmp_path, "stalwart")[f"{url!r}, by way of Stalwart"] == ["{env: HOOK}"]


def test_t5_the_head_names_them_in_text_json_and_markdown(tmp_path: Path) -> None:
    (tmp_path / "reconciler.yaml").write_text(DIRECTORY)
    head = tuple(f"line {number}" for number in range(30))
    plan = Plan("mana", head=head, receivers=receivers(load(tmp_path).spec, ("cloudflare",), NONE, {}))
    assert "secrets go to https://evil.example: {env: ONE}" in text.plan(plan)
    assert "- Secrets go to `https://evil.example`: `{env: ONE}`" in markdown.plan(plan)
    assert {"host": "https://evil.example", "secrets": ["{env: ONE}"]} in json.plan(plan)["receivers"]


def test_t5_a_key_service_that_a_sops_file_names_is_a_receiver(tmp_path: Path) -> None:
    (tmp_path / "vault.yaml").write_text(
        "A: ENC[AES256_GCM,data:x]\nvault_address: ENC[AES256_GCM,data:y]\nsops:\n  mac: ENC[AES256_GCM,data:x]\n"
        '  hc_vault: [{"vault\\u005faddress": "https://Evil.example:8200", enc: x}]\n'
        "  key_groups: [{azure_kv: [{vault_url: 'https://other.vault.azure.net'}]}]\n"
        "  kms: [{arn: 'arn:aws:kms:eu-central-1:1:key/2'}]\n"
    )
    (tmp_path / "of.env").write_text(
        "B=ENC[x]\nsops_mac=ENC[x]\nsops_hc_vault__list_0__map_vault_address=http://lines\n"
    )
    (tmp_path / "google.json").write_text('{"sops": {"gcp_kms": [{"resource_id": "projects/p/x"}], "mac": "ENC[x]"}}')
    (tmp_path / "reconciler.yaml").write_text(
        "version: 1\nstack: mana\ntargets: {cloudflare: {token: {sops: 'vault.yaml#A'}}}\n"
        "dns: {mana.how: []}\naccounts:\n  a@mana.how: {password: {sops: 'of.env#B'}}\n"
        "  b@mana.how: {password: {sops: 'google.json#C'}}\n"
    )
    made = Stack(load(tmp_path), Settings.read({}, tmp_path))
    found = {item.host: list(map(str, item.secrets)) for item in made.receivers}
    assert found.pop("https://api.cloudflare.com") == ["{sops: vault.yaml#A}"]
    services = ("https://evil.example:8200", "https://other.vault.azure.net", "https://kms.eu-central-1.amazonaws.com")
    assert found == {
        **{key: ["{sops: vault.yaml#A}"] for key in services},
        "http://lines": ["{sops: of.env#B}"],
        "https://cloudkms.googleapis.com": ["{sops: google.json#C}"],
    }
    made = Stack(load(tmp_path), Settings.read({"RECONCILER_SECRETS": "sops:of.env"}, tmp_path))
    assert {item.host for item in made.receivers} == {"https://api.cloudflare.com", "http://lines"}


def test_t5_an_engine_of_docker_s_context_is_a_receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meta = tmp_path / "docker/contexts/meta" / hashlib.sha256(b"away").hexdigest()
    meta.mkdir(parents=True)
    end = {"Host": "ssh://me@far.example", "SkipTLSVerify": False}
    (meta / "meta.json").write_text(builtin_json.dumps({"Name": "away", "Metadata": {}, "Endpoints": {"docker": end}}))
    (tmp_path / "docker/config.json").write_text('{"currentContext": "away"}')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    (tmp_path / "state").mkdir()
    (tmp_path / "state/reconciler.yaml").write_text(DIRECTORY)
    made = Stack(load(tmp_path / "state"), Settings.read({}, tmp_path / "state"), Choice(("compose",)))
    assert [item.host for item in made.receivers] == ["smtp.postmarkapp.com:587", "ssh://far.example"]
    monkeypatch.setenv("DOCKER_CONTEXT", "nowhere")
    made = Stack(load(tmp_path / "state"), Settings.read({}, tmp_path / "state"), Choice(("compose",)))
    assert [item.host for item in made.receivers] == ["smtp.postmarkapp.com:587"]


def test_u2_a_user_name_that_is_a_token_is_secret_in_all_that_is_made_of_it(tmp_path: Path) -> None:
    from reconciler.desired.derivation import desire
    from reconciler.desired.presets import has_secret_username, public_values
    from reconciler.report import values
    from reconciler.resources import Variable

    (tmp_path / "reconciler.yaml").write_text(DIRECTORY)
    spec = load(tmp_path).spec
    [user] = [it for it in desire(spec).resources if isinstance(it, Variable) and it.name == "SMTP_USER"]
    assert str(user.running) == "{env: POSTMARK}"
    assert values.secret(user.running)
    assert has_secret_username("postmark", None)
    assert has_secret_username(None, "email-smtp.eu-central-1.amazonaws.com")
    assert not has_secret_username("brevo", None)
    (tmp_path / "reconciler.yaml").write_text(DIRECTORY.replace("username: {env: POSTMARK}", "username: a-token"))
    assert "a-token" not in public_values(load(tmp_path).spec.smtp, ())


def test_whom_the_daemon_tells_is_named_by_the_reference(tmp_path: Path) -> None:
    (tmp_path / "reconciler.yaml").write_text(DIRECTORY + "daemon: {notices: [{env: NTFY}, {sops: a.yaml#CHAT}]}\n")
    found = {item.host: list(map(str, item.secrets)) for item in receivers(load(tmp_path).spec, (), NONE, {})}
    assert found == {"whom the daemon tells of problems": ["{env: NTFY}", "{sops: a.yaml#CHAT}"]}
