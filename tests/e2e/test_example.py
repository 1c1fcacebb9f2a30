"""The example on the simulator, as its user would go about it, and every guard on the way."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from reconciler.daemon.page import render
from reconciler.simulator.stalwart.passwords import verify

NOTIFY = "mana-core-notify"


def pending(stack: Any) -> int:
    return int(stack.run("plan", "--detailed-exitcode").code)


def switch_to_brevo(stack: Any) -> None:
    stack.edit("smtp.yaml", "  provider: stalwart\n", "  provider: brevo\n")


def mend(stack: Any, problem: dict[str, Any]) -> None:
    """Put the text that a refusal printed where it says."""
    words = " ".join(problem[name] for name in ("where", "summary", "hint"))
    place, text = re.search(r"docker-compose\.macmini\.yml:(\d+)", words), re.search(r"`([^`]+)`", problem["hint"])
    assert place is not None, words
    assert text is not None, words
    path: Path = stack.example.compose_file
    lines = path.read_text().splitlines(keepends=True)
    line = lines[int(place[1]) - 1]
    lines[int(place[1]) - 1] = line[: len(line) - len(line.lstrip())] + text[1] + "\n"
    path.write_text("".join(lines))


def refused(stack: Any, *argv: str) -> list[dict[str, Any]]:
    """Call a command that must be refused, and see that nothing at all was written."""
    before = stack.everything()
    found = stack.expect(4, "apply", "--yes", "--output", "json", *argv).json["problems"]
    assert stack.everything() == before
    assert stack.writes() == []
    text = stack.expect(4, "plan", *argv).text
    reasons = [item for item in found if item["severity"] == "refused"]
    assert reasons
    assert all(item["where"] and item["summary"] and item["hint"] for item in reasons)
    assert all(item["summary"] in text for item in reasons)
    return reasons


# ------------------------------------------------------------------------------------------------ the main job
def test_the_example_is_valid_and_says_what_a_person_needs(stack: Any) -> None:
    assert "3 accounts, 2 DKIM keys" in stack.expect(0, "validate").out
    plan = stack.expect(2, "plan", "--detailed-exitcode").out
    assert "Plan: 13 to create, 3 to change, 0 to delete" in plan
    assert "1 GiB" in plan
    assert "mounted at /opt/stalwart-mail, where the image" in plan
    assert stack.writes() == []


def test_apply_brings_all_three_systems_to_the_desired_state(stack: Any) -> None:
    before = stack.ids()
    assert pending(stack) == 2
    stack.expect(0, "apply", "--yes")
    _accounts_are_right(stack)
    _keys_are_right(stack)
    _settings_are_right(stack)
    _records_are_right(stack)
    notify = stack.container(NOTIFY).environment
    assert notify["SMTP_PASSWORD"] == stack.secrets["NOREPLY_PASSWORD"]
    assert {name: notify[name] for name in ("SMTP_HOST", "SMTP_PORT", "SMTP_USER", "SMTP_INSECURE_TLS")} == {
        "SMTP_HOST": "stalwart",
        "SMTP_PORT": "587",
        "SMTP_USER": "noreply",
        "SMTP_INSECURE_TLS": "true",
    }
    changed = {name for name in before if stack.ids()[name] != before[name]}
    assert changed == {NOTIFY}
    assert set(stack.ids()) == set(before), "no container is left over"
    writes = stack.writes()
    assert pending(stack) == 0
    assert stack.expect(0, "apply", "--yes").code == 0
    assert stack.writes() == writes, "a second apply writes nothing"


def _accounts_are_right(stack: Any) -> None:
    admin, noreply, postmaster = (stack.principal(name) for name in ("admin", "noreply", "postmaster"))
    assert verify(admin.password, stack.secrets["STALWART_ADMIN_PASSWORD"])
    assert verify(noreply.password, stack.secrets["NOREPLY_PASSWORD"])
    assert verify(postmaster.password, stack.secrets["POSTMASTER_PASSWORD"])
    assert all(item.password.startswith("$") for item in (admin, noreply, postmaster)), "always sent as a hash"
    assert (admin.member_of, noreply.member_of, postmaster.member_of) == ([-2], [-1], [-1])
    assert noreply.emails == ["noreply@mana.how"]
    assert postmaster.emails == ["postmaster@mana.how", "abuse@mana.how", "dmarc@mana.how"]
    assert (noreply.quota, postmaster.quota) == (None, 1 << 30)
    assert postmaster.description == "DMARC reports and bounces"


def _keys_are_right(stack: Any) -> None:
    signing = stack.stage.stalwart.signing()
    ours = {("mana.how", "mana2026", "ed25519-sha256"), ("mana.how", "rsa2026", "rsa-sha256")}
    assert {item for item in signing if item[0] == "mana.how"} == ours
    stored = {value.strip() for key, value in stack.settings().items() if key.endswith(".private-key")}
    for name in ("mana2026", "rsa2026"):
        given = (stack.example.path / "secrets" / f"{name}.pem").read_text()
        key = load_pem_private_key(given.encode(), None)
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert any(_public(text) == public for text in stored), name


def _public(pem: str) -> bytes:
    key = load_pem_private_key(pem.encode(), None)
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _settings_are_right(stack: Any) -> None:
    settings, server = stack.settings(), stack.stage.stalwart
    assert settings["lookup.default.hostname"] == "mail.mana.how"
    assert settings["server.auto-ban.scan.rate"] in ("0", "false", "off", "never")
    assert "server.allowed-ip.172.18.0.0/16" in settings
    assert re.search(r"^server\.auto-ban\.scan\.rate = ", server.config_toml, re.MULTILINE)
    assert server.core.hostname == "mail.mana.how", "in force, not only stored"
    assert server.core.rates["server.auto-ban.scan.rate"] is None
    assert "172.18.0.0/16" in {str(network) for network in server.core.allowed}


def _records_are_right(stack: Any) -> None:
    ours = stack.ours()
    assert set(ours) == {
        ("A", "mail"),
        ("MX", "@"),
        ("TXT", "@"),
        ("TXT", "_dmarc"),
        ("TXT", "mana2026._domainkey"),
        ("TXT", "rsa2026._domainkey"),
    }
    assert all(record["comment"] == "reconciler:mana" and record["ttl"] == 1 for record in ours.values())
    pem = (stack.example.path / "secrets" / "mana2026.pem").read_text()
    public = base64.b64encode(load_pem_private_key(pem.encode(), None).public_key().public_bytes_raw()).decode()  # type: ignore[union-attr]
    assert f"v=DKIM1; k=ed25519; h=sha256; p={public}" in ours["TXT", "mana2026._domainkey"]["content"]
    second = base64.b64encode(_public((stack.example.path / "secrets" / "rsa2026.pem").read_text())).decode()
    assert second in ours["TXT", "rsa2026._domainkey"]["content"].replace('" "', "")
    assert (ours["MX", "@"]["content"], ours["MX", "@"]["priority"]) == ("mail.mana.how", 10)


def test_a_recreated_volume_is_restored_and_dns_stays_as_it_is(applied: Any) -> None:
    records, keys = applied.records(), _signing_keys(applied)
    applied.watch.server_lost = True
    applied.watch.touched.add("mana-mail")
    applied.stage.recreate_mail_server()
    plan = applied.expect(2, "plan", "--detailed-exitcode", "--output", "json").json
    lost = {item["address"] for item in plan["changes"] if item["reason"] == "lost"}
    assert {"domain/mana.how", "account/noreply@mana.how", "dkim/mana.how/mana2026"} <= lost
    assert not [item for item in plan["changes"] if "delete" in item["actions"]]
    text = applied.expect(0, "plan").out
    assert "(lost)" in text
    assert "Mailboxes are not back" in text
    assert "/opt/stalwart-mail" in text
    applied.expect(0, "apply", "--yes")
    _accounts_are_right(applied)
    _keys_are_right(applied)
    _settings_are_right(applied)
    assert _signing_keys(applied) == keys
    assert applied.records() == records, "byte for byte, modified_on too"
    assert pending(applied) == 0


def _signing_keys(stack: Any) -> set[bytes]:
    found = {
        value
        for key, value in stack.settings().items()
        if key.startswith("signature.") and key.endswith(".private-key")
    }
    return {_public(text) for text in found}


def test_while_the_server_is_lost_nothing_is_deleted_anywhere(applied: Any) -> None:
    applied.watch.server_lost = True
    applied.watch.touched.add("mana-mail")
    applied.edit("dns.yaml", "    - {type: A, name: mail, content: 194.191.241.139}\n", "")
    applied.edit("reconciler.yaml", "version: 1\n", "version: 1\nremoved: [account/postmaster@mana.how]\n")
    text = (applied.example.state / "accounts.yaml").read_text()
    (applied.example.state / "accounts.yaml").write_text(text[: text.index("  postmaster@")])
    applied.stage.recreate_mail_server()
    before = {item["id"] for item in applied.records()}
    assert not [item for item in applied.changes().values() if "delete" in item["actions"]]
    done = applied.expect(6, "apply", "--yes")
    assert before <= {item["id"] for item in applied.records()}
    assert "1 still to be made:\n  - dns/mana.how/A/mail" in done.out
    applied.expect(0, "apply", "--yes")
    assert ("A", "mail") not in applied.ours(), "it is deleted once the server is whole again"


def test_the_switch_to_brevo_is_refused_mended_done_and_undone(applied: Any) -> None:
    before, env_file = applied.ids(), applied.example.env_file.read_bytes()
    switch_to_brevo(applied)
    reasons = refused(applied)
    assert [item["where"] for item in reasons] == ["smtp/mana-notify/SMTP_INSECURE_TLS"]
    mend(applied, reasons[0])
    assert set(applied.changes()) == {
        f"smtp/mana-notify/SMTP_{name}" for name in ("HOST", "USER", "PASSWORD", "INSECURE_TLS")
    }
    applied.expect(0, "apply", "--yes")
    now = applied.container(NOTIFY).environment
    assert (now["SMTP_HOST"], now["SMTP_USER"]) == ("smtp-relay.brevo.com", "94cde5002@smtp-brevo.com")
    assert (now["SMTP_PASSWORD"], now["SMTP_INSECURE_TLS"]) == (applied.secrets["BREVO_SMTP_KEY"], "false")
    assert {name for name in before if applied.ids()[name] != before[name]} == {NOTIFY}
    assert pending(applied) == 0
    applied.edit("smtp.yaml", "  provider: brevo\n", "  provider: stalwart\n")
    applied.expect(0, "apply", "--yes")
    now = applied.container(NOTIFY).environment
    assert (now["SMTP_HOST"], now["SMTP_USER"], now["SMTP_INSECURE_TLS"]) == ("stalwart", "noreply", "true")
    assert now["SMTP_PASSWORD"] == applied.secrets["NOREPLY_PASSWORD"]
    assert applied.example.env_file.read_bytes().startswith(env_file[: env_file.index(b"# >>> reconciler")])
    assert pending(applied) == 0


def test_a_provider_that_refuses_the_login_stops_the_switch(applied: Any) -> None:
    switch_to_brevo(applied)
    mend(applied, refused(applied)[0])
    applied.env["BREVO_SMTP_KEY"] = "not-the-key"
    env_file, ids = applied.example.env_file.read_bytes(), applied.ids()
    done = applied.expect(1, "apply", "--yes")
    assert "smtp-relay.brevo.com:587" in done.text
    assert (applied.example.env_file.read_bytes(), applied.ids()) == (env_file, ids)
    del applied.env["BREVO_SMTP_KEY"]
    applied.expect(0, "apply", "--yes")


# ------------------------------------------------------------------------------------------------- one at a time
def test_only_does_one_thing_and_what_it_needs(stack: Any) -> None:
    stack.expect(0, "apply", "--yes", "--only", "account/noreply@mana.how")
    assert stack.principal("noreply") is not None
    assert stack.principal("mana.how") is not None, "the account needs its domain"
    assert stack.principal("postmaster") is None
    assert stack.ours() == {}
    stack.expect(0, "apply", "--yes", "--only", "dns/mana.how/A/mail")
    assert set(stack.ours()) == {("A", "mail")}
    stack.expect(0, "apply", "--yes")
    assert pending(stack) == 0


def test_what_differs_and_is_not_ours_is_taken_over_only_when_told(applied: Any) -> None:
    applied.edit("dns.yaml", "  mana.how:\n", "  mana.how:\n    - {type: A, name: www, content: 192.0.2.90}\n")
    reasons = refused(applied)
    assert "--adopt dns/mana.how/A/www" in reasons[0]["hint"]
    taken = next(item for item in applied.records() if item["name"] == "www.mana.how")
    applied.watch.adopted.add(taken["id"])
    applied.expect(0, "apply", "--yes", "--adopt", "dns/mana.how/A/www")
    assert applied.ours()["A", "www"]["content"] == "192.0.2.90"
    assert applied.ours()["A", "www"]["id"] == taken["id"]
    assert pending(applied) == 0


def test_an_equal_record_is_adopted_and_keeps_its_words(applied: Any) -> None:
    applied.edit(
        "dns.yaml",
        "  mana.how:\n",
        "  mana.how:\n    - {type: TXT, name: site, content: google-site-verification=abc}\n",
    )
    plan = applied.expect(0, "plan", "--detailed-exitcode", "--output", "json").json
    assert plan["changes"] == []
    assert len(plan["adopted"]) == 1
    taken = next(item for item in applied.records() if item["name"] == "site.mana.how")
    applied.watch.adopted.add(taken["id"])
    applied.expect(0, "apply", "--yes")
    assert applied.ours()["TXT", "site"]["comment"] == "do not touch reconciler:mana"
    writes = applied.writes()
    applied.expect(0, "apply", "--yes")
    assert applied.writes() == writes


def test_moved_renames_an_account_and_keeps_its_mailbox(applied: Any) -> None:
    before = applied.principal("noreply").id
    applied.edit("accounts.yaml", "  noreply@mana.how:\n", "  sender@mana.how:\n")
    applied.edit("smtp.yaml", "      account: noreply@mana.how", "      account: sender@mana.how")
    applied.edit(
        "reconciler.yaml",
        "version: 1\n",
        "version: 1\nmoved: [{from: account/noreply@mana.how, to: account/sender@mana.how}]\n",
    )
    applied.expect(0, "apply", "--yes")
    assert applied.principal("noreply") is None
    assert applied.principal("sender").id == before
    assert applied.principal("sender").emails == ["sender@mana.how"]
    assert applied.container(NOTIFY).environment["SMTP_USER"] == "sender"
    assert pending(applied) == 0


def test_removed_is_the_only_way_an_account_goes(applied: Any) -> None:
    path = applied.example.state / "accounts.yaml"
    text = path.read_text()
    path.write_text(text[: text.index("  postmaster@")])
    assert pending(applied) == 0, "absent is unmanaged"
    applied.edit("reconciler.yaml", "version: 1\n", "version: 1\nremoved: [account/postmaster@mana.how]\n")
    plan = applied.expect(2, "plan", "--detailed-exitcode").out
    assert "mailbox" in plan
    applied.expect(0, "apply", "--yes")
    assert applied.principal("postmaster") is None
    assert pending(applied) == 0


def test_a_record_that_is_no_longer_declared_goes(applied: Any) -> None:
    applied.edit(
        "dns.yaml",
        '    - {type: TXT, name: _dmarc, content: "v=DMARC1; p=quarantine; rua=mailto:postmaster@mana.how"}\n',
        "",
    )
    changes = applied.changes()
    assert [(name, item["actions"], item["reason"]) for name, item in changes.items()] == [
        ("dns/mana.how/TXT/_dmarc", ["delete"], "not_in_desired")
    ]
    applied.expect(0, "apply", "--yes")
    assert ("TXT", "_dmarc") not in applied.ours()
    assert len(applied.ours()) == 5


def test_a_saved_plan_is_applied_while_it_is_true(applied: Any, tmp_path: Path) -> None:
    applied.edit("dns.yaml", "194.191.241.139}", "194.191.241.140}")
    file = tmp_path / "plan.json"
    applied.expect(0, "plan", "--out", str(file))
    record = applied.ours()["A", "mail"]
    applied.stage.cloudflare.edit("mana.how", record["id"], ttl=300)
    before = applied.everything()
    done = applied.expect(4, "apply", str(file), "--yes")
    assert "stale" in done.err
    assert applied.everything() == before
    applied.expect(0, "plan", "--out", str(file))
    applied.expect(0, "apply", str(file), "--yes")
    assert (applied.ours()["A", "mail"]["content"], applied.ours()["A", "mail"]["ttl"]) == ("194.191.241.140", 1)
    assert applied.expect(4, "apply", str(file), "--yes").code == 4


@pytest.mark.parametrize("target", ["stalwart", "cloudflare", "compose"])
def test_a_target_alone_touches_only_its_system_and_secrets(stack: Any, target: str) -> None:
    needs = {
        "stalwart": ("STALWART_ADMIN_PASSWORD", "NOREPLY_PASSWORD", "POSTMASTER_PASSWORD"),
        "cloudflare": ("CLOUDFLARE_API_TOKEN",),
        "compose": ("NOREPLY_PASSWORD", "MANA_SERVICE_KEY"),
    }
    stack.edit("reconciler.yaml", "    username: admin\n", "    username: admin\n    generation: rest\n")
    if target == "cloudflare":
        private = "      private_key: {file: ../secrets/rsa2026.pem}\n"
        public = base64.b64encode(_public((stack.example.path / "secrets" / "rsa2026.pem").read_text())).decode()
        stack.edit("dkim.yaml", private, f"{private}      public_key: {public}\n")
    dropped = tuple(name for name in stack.secrets if name not in needs[target])
    if target == "compose":  # its proof needs the account there: the other targets first
        stack.expect(0, "apply", "--yes", "--target", "stalwart")
        stack.tape.forget()
    for server in stack.stage.servers:
        server.forget()
    stack.expect(0, "apply", "--yes", "--target", target, drop=dropped)
    assert {line.split()[0] for line in stack.writes()} == {"docker" if target == "compose" else target}
    asked = {
        name
        for name, server in zip(("stalwart", "cloudflare", "compose", "brevo"), stack.stage.servers, strict=True)
        if server.requests
    }
    assert asked <= {target, "compose"} if target == "stalwart" else asked == {target}
    assert stack.expect(0, "plan", "--detailed-exitcode", "--target", target, drop=dropped).code == 0


def test_a_changed_password_reaches_the_server_and_its_consumer(applied: Any) -> None:
    applied.env["NOREPLY_PASSWORD"] = "another-Pa$$ word'\"s"
    assert set(applied.changes()) == {"account/noreply@mana.how", "smtp/mana-notify/SMTP_PASSWORD"}
    applied.expect(0, "apply", "--yes")
    assert verify(applied.principal("noreply").password, applied.env["NOREPLY_PASSWORD"])
    assert applied.container(NOTIFY).environment["SMTP_PASSWORD"] == applied.env["NOREPLY_PASSWORD"]
    assert pending(applied) == 0


def test_our_own_password_is_rotated_with_new_then_old(applied: Any) -> None:
    old = applied.secrets["STALWART_ADMIN_PASSWORD"]
    applied.edit(
        "reconciler.yaml",
        "password: {env: STALWART_ADMIN_PASSWORD}",
        "password: [{env: STALWART_ADMIN_PASSWORD}, {env: OLD}]",
    )
    applied.env.update(STALWART_ADMIN_PASSWORD="the-next-one", OLD=old)
    done = applied.run("apply", "--yes")
    assert verify(applied.principal("admin").password, "the-next-one"), done.text
    assert done.code == 0
    assert pending(applied) == 0


def test_a_new_listener_restarts_the_container_once_and_answers(applied: Any) -> None:
    applied.watch.touched.add("mana-mail")
    applied.edit("stalwart.yaml", "  listeners:\n", '  listeners:\n    extra: {bind: "[::]:2525", protocol: smtp}\n')
    compose = applied.example.compose_file
    plan = applied.expect(2, "plan", "--detailed-exitcode").out
    assert "restart" in plan
    applied.expect(0, "apply", "--yes")
    assert 2525 in applied.stage.stalwart.ports
    assert sum(line.endswith("/restart") for line in applied.writes()) == 1
    assert compose.exists()
    assert pending(applied) == 0


def test_history_status_and_explain_know_what_happened(applied: Any) -> None:
    assert "16 done" in applied.expect(0, "history").out
    assert applied.expect(0, "status").code == 0
    assert "194.191.241.139" in applied.expect(0, "explain", "dns/mana.how/A/mail").out
    for command in (("history",), ("status",), ("explain", "account/noreply@mana.how")):
        assert json.loads(applied.expect(0, *command, "--output", "json").out)


def test_the_status_and_its_page_tell_of_every_resource(applied: Any) -> None:
    status = json.loads(applied.expect(0, "status", "--output", "json").out)
    assert {item["state"] for item in status["resources"]} == {"in_sync"}
    page = render(status, "")
    assert {item["kind"] for item in status["resources"]} >= {"account", "dkim", "dns", "smtp", "stalwart"}
    assert [item["address"] for item in status["resources"] if item["address"] not in page] == []
    assert all(item["place"] for item in status["resources"] if item["kind"] in ("account", "dkim", "smtp"))


# ------------------------------------------------------------------------------------------------------- guards
def _declare_nothing(stack: Any) -> None:
    for name in ("accounts", "dkim", "dns", "smtp", "stalwart"):
        (stack.example.state / f"{name}.yaml").unlink()
    stack.write("dns.yaml", "dns: {mana.how: []}\n")


def _more_deletes(stack: Any) -> None:
    for index in range(4):
        stack.stage.cloudflare.add(
            "mana.how", type="A", name=f"h{index}", content="192.0.2.1", comment="reconciler:mana"
        )


def _a_collapse(stack: Any) -> None:
    stack.edit("reconciler.yaml", "max_deletes: 3", "max_deletes: 100")
    stack.write("dns.yaml", "dns: {mana.how: [{type: A, name: mail, content: 194.191.241.139}]}\n")
    text = (stack.example.state / "dkim.yaml").read_text()
    (stack.example.state / "dkim.yaml").write_text(text[: text.index("    - selector: rsa2026")])
    stack.stage.stalwart.settings.clear("signature.rsa2026")
    for key in [key for key in stack.settings() if key.startswith("signature.") and "rsa" in key]:
        stack.stage.stalwart.settings.delete([key])


def _a_domain_in_use(stack: Any) -> None:
    (stack.example.state / "accounts.yaml").unlink()
    (stack.example.state / "dkim.yaml").unlink()
    (stack.example.state / "smtp.yaml").unlink()
    stack.edit("reconciler.yaml", "version: 1\n", "version: 1\nremoved: [domain/mana.how]\n")


def _the_administrator_goes(stack: Any) -> None:
    text = (stack.example.state / "accounts.yaml").read_text()
    start, end = text.index("  admin:"), text.index("  noreply@")
    (stack.example.state / "accounts.yaml").write_text(text[:start] + text[end:])
    stack.edit("reconciler.yaml", "version: 1\n", "version: 1\nremoved: [account/admin]\n")


def _two_spf(stack: Any) -> None:
    stack.stage.cloudflare.add("mana.how", type="TXT", name="@", content="v=spf1 include:old.example -all", comment="x")
    stack.edit("dns.yaml", "~all", "-all")


def _two_dmarc(stack: Any) -> None:
    stack.stage.cloudflare.add("mana.how", type="TXT", name="_dmarc", content="v=DMARC1; p=none", comment="x")
    stack.edit("dns.yaml", "p=quarantine", "p=reject")


def _a_proxied_exchange(stack: Any) -> None:
    stack.edit("dns.yaml", "content: 194.191.241.139}", "content: 194.191.241.139, proxied: true}")


def _an_exchange_that_is_an_alias(stack: Any) -> None:
    stack.edit("dns.yaml", "content: mail.mana.how, priority", "content: old.mana.how, priority")


def _a_selector_that_signs(stack: Any) -> None:
    text = (stack.example.state / "dkim.yaml").read_text()
    (stack.example.state / "dkim.yaml").write_text(text[: text.index("    - selector: rsa2026")])


def _an_unpublished_key(stack: Any) -> None:
    key = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (stack.example.path / "secrets" / "rsa2026.pem").write_bytes(key)


def _an_administrator_that_sends(stack: Any) -> None:
    stack.edit("smtp.yaml", "account: noreply@mana.how", "account: admin")


def _a_known_secret(stack: Any) -> None:
    stack.env["NOREPLY_PASSWORD"] = "changeme"


GUARDS = {
    "nothing desired": (_declare_nothing, "declares nothing"),
    "too many deletes": (_more_deletes, "deletes 4 resources"),
    "a collapse": (_a_collapse, "of our records in this zone"),
    "a domain in use": (_a_domain_in_use, "still have an address there"),
    "the administrator": (_the_administrator_goes, "reconciler itself logs in with it"),
    "two SPF": (_two_spf, "2 SPF records"),
    "two DMARC": (_two_dmarc, "2 DMARC records"),
    "a proxied exchange": (_a_proxied_exchange, "is proxied"),
    "an alias as exchange": (_an_exchange_that_is_an_alias, "is an alias"),
    "a selector that signs": (_a_selector_that_signs, "still signs"),
    "an unpublished key": (_an_unpublished_key, "would sign before"),
    "an administrator that sends": (_an_administrator_that_sends, "logs in with the administrator"),
    "a known secret": (_a_known_secret, "publicly known"),
}


@pytest.mark.parametrize("name", GUARDS)
def test_a_guard_refuses_and_nothing_is_written(applied: Any, name: str) -> None:
    cause, words = GUARDS[name]
    known = {item["id"] for item in applied.records()}
    cause(applied)
    applied.watch.adopted |= {item["id"] for item in applied.records()} - known
    applied.data.joinpath("journal.jsonl").unlink()
    reasons = refused(applied)
    assert any(words in item["summary"] for item in reasons), reasons
    assert not applied.data.joinpath("journal.jsonl").exists()


def test_more_deletes_are_done_when_they_are_allowed(applied: Any) -> None:
    _more_deletes(applied)
    hint = refused(applied)[0]["hint"]
    assert "--allow-deletes 4" in hint
    applied.expect(0, "apply", "--yes", "--allow-deletes", "4")
    assert len(applied.ours()) == 6
