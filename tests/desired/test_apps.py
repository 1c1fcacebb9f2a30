"""Each application is told what its documentation says, with a provider of each shape: here it is written out."""

from __future__ import annotations

from pathlib import Path

import pytest
from applications import PROVIDERS, ROWS, WORD, documented
from applications_page import PAGE, page

from reconciler.desired.apps import APPS, suggestion
from reconciler.desired.derivation import desire
from reconciler.desired.load import load
from reconciler.desired.template import escaped
from reconciler.problem import InvalidDirectory
from reconciler.resources import SecretRef, SecretText, Variable


def told(path: Path, consumer: str, provider: str) -> dict[str, str]:
    """What a consumer's container is given."""
    head = "version: 1\nstack: mana\ntargets: {compose: {file: compose.yml}}\n"
    (path / "a.yaml").write_text(
        f"{head}smtp:\n  provider: main\n  providers:\n    main: {provider}\n  consumers:\n    web: {consumer}\n"
    )
    found = [item for item in desire(load(path).spec).resources if isinstance(item, Variable)]
    assert all(item.running == item.configured for item in found)
    return {item.name: text(item.running) for item in found}


def text(value: object) -> str:
    if isinstance(value, SecretText):
        parts = [it if isinstance(it, str) else escaped(text(it.ref), it.escape) for it in value.parts]
        return "".join(parts)
    return WORD if isinstance(value, SecretRef) else str(value)


def test_every_application_has_a_row() -> None:
    assert set(ROWS) == {name for name, app in APPS.items() if not app.why_none}
    assert len(APPS) >= 24


@pytest.mark.parametrize("app", ROWS)
def test_what_the_documentation_says(tmp_path: Path, app: str) -> None:
    for shape, provider in PROVIDERS.items():
        assert told(tmp_path, f"{{app: {app}}}", provider) == documented(app, shape), shape


def test_without_a_sender_that_is_left_alone_and_env_has_the_last_word(tmp_path: Path) -> None:
    provider = "{host: mailpit, port: 1025, tls: none}"
    consumer = "{app: paperless-ngx, env: {PAPERLESS_EMAIL_USE_SSL: null, PAPERLESS_EMAIL_PORT: '{port}0', X: y}}"
    found = told(tmp_path, consumer, provider)
    assert "PAPERLESS_EMAIL_FROM" not in found
    assert "PAPERLESS_EMAIL_USE_SSL" not in found
    assert (found["PAPERLESS_EMAIL_PORT"], found["X"]) == ("10250", "y")


@pytest.mark.parametrize(
    ("consumer", "provider", "where", "words"),
    [
        ("{app: vaultwardn}", "starttls", "web.app", "did you mean vaultwarden?"),
        ("{app: Rocket Chat}", "starttls", "web.app", "did you mean rocket.chat?"),
        ("{app: zzz}", "starttls", "web.app", "known are appwrite, authelia"),
        ("{app: keycloak}", "starttls", "web.app", "each realm has its own"),
        ("{app: ghost, env: {NODE_ENV: null}}", "starttls", "env.NODE_ENV", "null takes out what `app` brings"),
        ("{env: {A: '{values.region}'}}", "starttls", "env.A", "write smtp.providers.main.values.region: VALUE"),
        ("{env: {A: {starttls: a, implicit: b}}}", "relay", "env.A", "add none: VALUE"),
        ("{env: {A: {starttls: a, verified: b}}}", "relay", "env.A", "mixes words of a choice by TLS mode"),
        ("{env: {A: 'smtp://{username}:{password}@{host}'}}", "relay", "env.A", "anonymous: TEXT WITHOUT"),
        ("{env: {A: '{password|md5}'}}", "starttls", "env.A", "known are {password|url}, {password|base64}"),
        ("{secrets: {A/B: '{password}'}}", "starttls", "secrets", "as it stands below `secrets:`"),
    ],
)
def test_mistakes_name_place_cause_and_remedy(
    tmp_path: Path, consumer: str, provider: str, where: str, words: str
) -> None:
    with pytest.raises(InvalidDirectory) as caught:
        told(tmp_path, consumer, PROVIDERS[provider])
    problems = "\n".join(map(str, caught.value.problems))
    assert where in problems
    assert words in problems


def test_a_word_that_only_the_standby_lacks_is_told_before_it_is_needed(tmp_path: Path) -> None:
    head = "version: 1\nstack: mana\ntargets: {compose: {file: compose.yml}}\n"
    (tmp_path / "a.yaml").write_text(
        f"""{head}smtp:
  provider: main
  providers:
    main: {PROVIDERS["starttls"]}
    spare: {{host: spare.example, port: 465, standby: true, username: me, password: {{env: WORD}}}}
  consumers:
    web: {{env: {{MODE: {{starttls: a, none: b}}}}}}
    vault: {{app: vaultwarden}}
"""
    )
    with pytest.raises(InvalidDirectory) as caught:
        load(tmp_path)
    problems = "\n".join(map(str, caught.value.problems))
    assert "has no value for the TLS mode implicit, which the provider spare has" in problems
    assert "vault would keep the one of main" in problems


def test_choices_inside_choices_and_every_escape(tmp_path: Path) -> None:
    inner = '{starttls: "smtp://{host}", implicit: "smtps://{username|url}:{password|url}@{host}:{port}", none: n}'
    env = f'{{D: {{login: {inner}, anonymous: a}}, J: \'{{{{"p":"{{password|json}}"}}}}\', B: "{{password|base64}}"}}'
    found = told(tmp_path, f"{{env: {env}}}", PROVIDERS["implicit"])
    assert found["D"] == "smtps://me:p%40ss%20wo%3Ard@mail.example.org:465"
    assert (found["J"], found["B"]) == ('{"p":"p@ss wo:rd"}', "cEBzcyB3bzpyZA==")


def test_names_with_dots_and_secrets_of_compose(tmp_path: Path) -> None:
    consumer = "{env: {spring.mail.host: '{host}'}, secrets: {smtp_password: '{password}'}}"
    found = told(tmp_path, consumer, PROVIDERS["starttls"])
    assert found == {"spring.mail.host": "mail.example.org", "secrets/smtp_password": WORD}


def test_a_suggestion_is_given_for_what_is_written_otherwise() -> None:
    assert suggestion("cal.com.") == "did you mean cal.com?"


def test_the_page_is_made_from_the_rows() -> None:
    assert PAGE.read_text() == page(), "PYTHONPATH=. python tests/applications_page.py"
