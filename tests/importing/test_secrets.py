"""What looks like a secret, by name or by form, becomes a reference into the store, in both generations."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.importing.mail import accounts
from reconciler.importing.smtp import smtp, submissions
from reconciler.importing.targets import stalwart
from reconciler.resources import Account, SecretRef
from reconciler.secrecy import Withheld

from .conftest import Parts, told

LOGIN = {"SMTP_HOST": "smtp.example.org", "SMTP_PORT": "587", "SMTP_USER": "u", "SMTP_PASSWORD": "canary-password"}


def test_t15_what_a_service_calls_a_secret_or_holds_as_one(parts: Parts) -> None:
    secret = {"SMTP_PWD": "canary-1", "SMTP_AUTH": "canary-2", "SMTP_LICENSE": "canary-3", "SMTP_TOKEN": "canary-4"}
    secret |= {"SMTP_HOOK": "https://h.example/x?apikey=canary5", "SMTP_X": "Bearer canary-6"}
    plain = {"SMTP_FROM": "Mana <noreply@mana.how>", "SMTP_SECURE": "true", "SMTP_AUTH_METHOD": "plain"}
    found, draft = parts.found(services=[parts.service("app", {**LOGIN, **secret, **plain})]), parts.draft()
    environment = smtp(found, submissions(found, draft), draft)["consumers"]["app"]["env"]
    assert {name: draft.secrets[f"app.{name}"] for name in secret} == secret
    assert all(isinstance(environment[name], SecretRef) for name in secret)
    assert {name: environment[name] for name in plain} == plain
    assert "canary" not in repr(environment)


@pytest.mark.parametrize(
    ("prefix", "user", "word"),
    [("APP_MAILER_", "LOGIN", "PWD"), ("smtp_", "user", "pass"), ("spring.mail.", "username", "password")],
)
def test_a_login_is_read_under_any_usual_names(parts: Parts, prefix: str, user: str, word: str) -> None:
    """And what holds the same secret under another name changes with it."""
    host = "HOST" if prefix.isupper() else "host"
    named = {f"{prefix}{host}": "smtp.example.org", f"{prefix}{user}": "u", f"{prefix}{word}": "canary"}
    found = parts.found(services=[parts.service("app", named | {f"{prefix}again_secret": "canary"})])
    draft = parts.draft()
    environment = smtp(found, submissions(found, draft), draft)["consumers"]["app"]["env"]
    assert environment[f"{prefix}{host}"] == "{host}"
    assert environment[f"{prefix}{user}"] == "{username}"
    assert environment[f"{prefix}{word}"] == environment[f"{prefix}again_secret"] == "{password}"


@pytest.mark.parametrize("name", ["MAILGUN_API", "POSTMARK_KEY", "SENDMAIL_ARGS", "smtpHost"])
def test_who_sends_mail_in_another_way_is_told_of(parts: Parts, name: str) -> None:
    found, draft = parts.found(services=[parts.service("app", {name: "canary"})]), parts.draft()
    assert submissions(found, draft) == []
    assert name in told(draft)
    assert "canary" not in told(draft)


def test_t15_a_postmark_token_is_none_to_be_read_as_a_user_name(parts: Parts) -> None:
    login = LOGIN | {"SMTP_HOST": "smtp.postmarkapp.com", "SMTP_USER": "canary-token"}
    found, draft = parts.found(services=[parts.service("app", login)]), parts.draft()
    [provider] = smtp(found, submissions(found, draft), draft)["providers"].values()
    assert isinstance(provider["username"], SecretRef)
    assert "canary-token" in draft.secrets.values()


def test_t15_secrets_in_the_servers_own_objects(parts: Parts) -> None:
    fields: dict[str, Any] = {"responseHeaders": {"X-Auth": Withheld("Bearer canary"), "X-Y": Withheld("z")}}
    server = parts.server(generation="jmap", objects={"Http": {"singleton": fields}})
    found, draft = parts.found(server=server), parts.draft()
    headers = stalwart(found, draft)["objects"].value["Http"]["singleton"]["responseHeaders"]
    assert all(isinstance(item, SecretRef) for item in headers.values())
    assert set(draft.secrets.values()) == {"Bearer canary", "z"}


def test_t15_a_description_that_looks_like_a_secret_is_left_out(parts: Parts) -> None:
    server = parts.server(
        Account("a@mana.how", description="password: canary", roles=("user",)),
        Account("b@mana.how", description="Sends mail", roles=("user",)),
    )
    found, draft = parts.found(server=server), parts.draft()
    entries = accounts(found, [], draft)
    assert "description" not in entries["a@mana.how"]
    assert entries["b@mana.how"]["description"] == "Sends mail"
    assert "looks like a secret" in told(draft)
    assert "canary" not in told(draft)
