"""What the running containers say about the way of their mail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from reconciler.importing.directory import Noted
from reconciler.importing.smtp import smtp, submissions
from reconciler.resources import Account, SecretRef

from .conftest import told

if TYPE_CHECKING:
    from reconciler.targets.compose.snapshot import Service

    from .conftest import Parts

WORD = "p@ss:wo/rd-{1}"
LOGIN = {"SMTP_HOST": "smtp.example.org", "SMTP_PORT": "2525", "SMTP_USER": "me", "SMTP_PASSWORD": WORD}


def imported(parts: Parts, *services: Service) -> tuple[dict[str, Any], Any]:
    found, draft = parts.found(services=list(services)), parts.draft()
    return smtp(found, submissions(found, draft), draft), draft


def test_a_login_becomes_templates_and_a_provider(parts: Parts) -> None:
    plain = {"SMTP_FROM": "A {b} <a@b.example>", "SMTP_INSECURE_TLS": "true", "PATH": "/bin"}
    content, draft = imported(parts, parts.service("web", LOGIN | plain))
    ref = SecretRef("file", "../secrets/smtp.example")
    provider = content["providers"]["example"]
    assert isinstance(provider.pop("verify_tls"), Noted)
    assert provider == {"host": "smtp.example.org", "port": 2525, "username": "me", "password": ref}
    assert content["consumers"]["web"]["env"] == {
        "SMTP_HOST": "{host}",
        "SMTP_PORT": "{port}",
        "SMTP_USER": "{username}",
        "SMTP_PASSWORD": "{password}",
        "SMTP_FROM": "A {{b}} <a@b.example>",
        "SMTP_INSECURE_TLS": "{insecure_tls}",
    }
    assert draft.secrets == {"smtp.example": WORD}
    assert WORD not in repr(content) + repr(draft) + repr(submissions(parts.found(services=[]), draft))


@pytest.mark.parametrize("prefix", ["MAIL_", "EMAIL_", "MAILER_", "GF_SMTP_"])
@pytest.mark.parametrize("names", [("HOST", "USERNAME", "PASS"), ("SERVER", "LOGIN", "PASSWORD")])
def test_other_names_for_the_same(parts: Parts, prefix: str, names: tuple[str, str, str]) -> None:
    host, user, word = (f"{prefix}{name}" for name in names)
    content, _ = imported(parts, parts.service("web", {host: "h.example:465", user: "u", word: WORD}))
    assert content["consumers"]["web"]["env"] == {host: "{host}:{port}", user: "{username}", word: "{password}"}
    assert content["providers"]["h"]["port"] == 465


@pytest.mark.parametrize(
    ("url", "template"),
    [
        (f"smtp://me:{quote(WORD, safe='')}@h.example:587", "smtp://{username|url}:{password|url}@{host}:{port}"),
        ("smtps://me:word-one@h.example/?pool={1}", "smtps://{username|url}:{password|url}@{host}/?pool={{1}}"),
        ("smtp://me:a!b-word@h.example:25", "smtp://{username}:{password}@{host}:{port}"),
    ],
)
@pytest.mark.parametrize("name", ["SMTP_URL", "MAILER_DSN", "EMAIL_URL"])
def test_a_url(parts: Parts, name: str, url: str, template: str) -> None:
    content, _ = imported(parts, parts.service("web", {name: url}))
    assert content["consumers"]["web"]["env"] == {name: template}


def test_a_url_that_no_template_makes_is_a_secret_as_a_whole(parts: Parts) -> None:
    content, draft = imported(parts, parts.service("web", {"SMTP_URL": "smtp://me:a%2fword!@h.example"}))
    assert content["consumers"]["web"]["env"] == {"SMTP_URL": SecretRef("file", "../secrets/web.SMTP_URL")}
    assert "web.SMTP_URL" in draft.secrets


def test_what_begins_with_x_is_left_out_or_called_otherwise(parts: Parts) -> None:
    """In the directory such a name is free for anchors, and nobody would read what it says."""
    far = LOGIN | {"SMTP_HOST": "smtp.x-x-corp.example"}
    content, draft = imported(parts, parts.service("x-web", LOGIN), parts.service("web", far))
    assert list(content["consumers"]) == ["web"]
    assert (content["provider"], list(content["providers"])) == ("corp", ["corp"])
    assert "smtp/x-web: left out: its name begins with x-" in told(draft)
    assert list(draft.secrets.values()) == [WORD]


def test_services_with_providers_of_their_own(parts: Parts) -> None:
    brevo = LOGIN | {"SMTP_HOST": "smtp-relay.brevo.com", "SMTP_PORT": "587"}
    services = [parts.service(name, env) for name, env in (("a", LOGIN), ("b", brevo), ("c", LOGIN))]
    content, _ = imported(parts, *services)
    assert content["provider"] == "example"
    assert content["consumers"]["b"]["provider"] == "brevo"
    assert "provider" not in content["consumers"]["a"]
    assert content["providers"]["brevo"]["preset"] == "brevo"
    assert "host" not in content["providers"]["brevo"]


def test_what_runs_otherwise_than_it_is_configured_is_left_out(parts: Parts) -> None:
    content, draft = imported(parts, parts.service("web", LOGIN, SMTP_USER="somebody"))
    assert "SMTP_USER" not in content["consumers"]["web"]["env"]
    assert "docker compose up -d --no-deps web" in told(draft)
    assert "somebody" not in told(draft)


def test_who_sends_without_a_login_or_does_not_run_is_told_of(parts: Parts) -> None:
    content, draft = imported(
        parts, parts.service("open", {"SMTP_HOST": "h.example"}), parts.service("down", None, SMTP_HOST="h.example")
    )
    assert content == {}
    assert "smtp/open" in told(draft)
    assert "no container of it runs" in told(draft)


def test_a_key_that_services_share_becomes_a_link(parts: Parts) -> None:
    shared = "a-key-of-both"
    services = [
        parts.service("web", LOGIN | {"SERVICE_KEY": shared}),
        parts.service("auth", {"WEB_SERVICE_KEY": shared, "OTHER_SECRET": "not-the-same"}),
        parts.service("else", {"SERVICE_KEY": "another-value"}),
    ]
    content, draft = imported(parts, *services)
    assert content["links"].value == [["web.SERVICE_KEY", "auth.WEB_SERVICE_KEY"]]
    assert shared not in repr(content) + repr(draft.secrets)


def test_a_service_that_is_the_administrator_is_left_out_and_said(parts: Parts) -> None:
    admin = Account("admin", login="admin", roles=("admin",))
    login = {"SMTP_HOST": "stalwart", "SMTP_USER": "admin", "SMTP_PASSWORD": "the-admins-own-word"}
    services = [parts.service("stalwart", {}), parts.service("web", login)]
    draft = parts.draft()
    assert submissions(parts.found(server=parts.server(admin), services=services), draft) == []
    assert "left out: it logs in with the administrator admin" in told(draft)


def test_a_secret_that_everybody_knows_is_said(parts: Parts) -> None:
    content, draft = imported(parts, parts.service("web", LOGIN | {"SMTP_PASSWORD": "password"}))
    assert "smtp.example}: is imported, and is publicly known" in told(draft)
    assert content["providers"]["example"]["password"] == SecretRef("file", "../secrets/smtp.example")
