"""A compose file of each application gives back its name, and what is left out is named."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from applications import BARE, NAMED, ROWS, WORD, documented

from reconciler.desired.apps import APPS
from reconciler.importing.smtp import smtp, submissions
from reconciler.resources import SecretRef

from .conftest import told

if TYPE_CHECKING:
    from reconciler.targets.compose.snapshot import Service

    from .conftest import Parts


def imported(parts: Parts, *services: Service) -> tuple[dict[str, Any], Any]:
    found, draft = parts.found(services=list(services)), parts.draft()
    return smtp(found, submissions(found, draft), draft), draft


def image(app: str) -> str:
    return f"registry.example:5000/{APPS[app].images[0]}:1.2@sha256:0"


@pytest.mark.parametrize("shape", ["starttls", "implicit", "relay", "unverified"])
@pytest.mark.parametrize("app", ROWS)
def test_each_gives_back_its_name(parts: Parts, app: str, shape: str) -> None:
    cannot = APPS[app].cannot.keys() | ({"none", "anonymous"} if app == "vaultwarden" else set())
    environment = documented(app, shape)
    service = parts.service("web", environment | {"PATH": "/bin"})
    content, draft = imported(parts, replace(service, image=image(app)))
    assert content["consumers"] == {"web": {"app": app}}
    assert not draft.notes
    (provider,) = content["providers"].values()
    host, port = ("mailpit", 1025) if shape == "relay" else ("mail.example.org", 465 if shape == "implicit" else 587)
    assert (provider["host"], provider["port"]) == (host, port)
    assert provider["from"] in (NAMED, BARE)
    assert ("password" in provider) == ("username" in provider) == (shape != "relay")
    alike = app in ("cal.com", "plausible", "vikunja")  # told the same with STARTTLS and without TLS
    assert provider.get("tls") == ("none" if shape == "relay" and not alike else None)
    assert ("verify_tls" in provider) == (shape == "unverified" and "unverified" not in cannot)
    if APPS[app].sign:
        assert imported(parts, service)[0]["consumers"] == {"web": {"app": app}}


@pytest.mark.parametrize("app", sorted(APPS.keys() - ROWS.keys()))
def test_one_that_takes_no_variables_is_told_so(parts: Parts, app: str) -> None:
    content, draft = imported(parts, replace(parts.service("web", {"PATH": "/bin"}), image=image(app)))
    assert content == {}
    assert APPS[app].why_none in told(draft)
    assert APPS[app].remedy in told(draft)


def test_spelled_otherwise_it_still_follows_the_mode(parts: Parts) -> None:
    environment = documented("paperless-ngx", "starttls") | {
        "PAPERLESS_EMAIL_USE_TLS": "True",
        "PAPERLESS_EMAIL_USE_SSL": "0",
    }
    content, _ = imported(parts, parts.service("web", environment))
    assert content["consumers"]["web"]["env"] == {
        "PAPERLESS_EMAIL_USE_TLS": {"starttls": "True", "implicit": "False", "none": "False"},
        "PAPERLESS_EMAIL_USE_SSL": {"starttls": "0", "implicit": "1", "none": "0"},
    }


def test_what_is_missing_and_what_is_more_is_named(parts: Parts) -> None:
    environment = documented("gitea", "implicit") | {"BACKUP_SMTP_HOST": "other.example"}
    del environment["GITEA__mailer__PROTOCOL"], environment["GITEA__mailer__FORCE_TRUST_SERVER_CERT"]
    content, draft = imported(parts, parts.service("web", environment))
    assert content["consumers"]["web"] == {"app": "gitea", "env": {"GITEA__mailer__PROTOCOL": None}}
    assert "smtp/web/GITEA__mailer__PROTOCOL: left out: the service has no entry for it" in told(draft)
    assert "left out: BACKUP_SMTP_HOST: no part of app: gitea" in told(draft)


def test_two_with_senders_of_their_own_keep_them(parts: Parts) -> None:
    one = documented("vaultwarden", "starttls")
    two = documented("paperless-ngx", "starttls") | {"PAPERLESS_EMAIL_FROM": "paper@mana.how"}
    content, _ = imported(parts, parts.service("vault", one), parts.service("paper", two))
    assert content["consumers"] == {
        "vault": {"app": "vaultwarden", "env": {"SMTP_FROM": BARE}},
        "paper": {"app": "paperless-ngx", "env": {"PAPERLESS_EMAIL_FROM": "paper@mana.how"}},
    }
    (provider,) = content["providers"].values()
    assert "from" not in provider


def test_a_password_in_a_compose_secret(parts: Parts) -> None:
    environment = documented("vaultwarden", "starttls") | {"SMTP_PASSWORD_FILE": "/run/secrets/word"}
    del environment["SMTP_PASSWORD"]
    content, draft = imported(parts, replace(parts.service("web", environment), secrets={"word": WORD}))
    assert content["consumers"]["web"] == {
        "app": "vaultwarden",
        "env": {"SMTP_PASSWORD": None},
        "secrets": {"word": "{password}"},
    }
    (provider,) = content["providers"].values()
    assert isinstance(provider["password"], SecretRef)
    assert list(draft.secrets.values()) == [WORD]
    assert WORD not in repr(content) + told(draft)


def test_a_shape_that_nobody_knows_is_named(parts: Parts) -> None:
    content, draft = imported(parts, parts.service("web", {"APP_SMTP_DSN": "x", "NOTIFY_MAIL_TRANSPORT": "y"}))
    assert content == {}
    assert "may send mail, by variables that are not known here: APP_SMTP_DSN, NOTIFY_MAIL_TRANSPORT" in told(draft)


def test_gitlab_that_is_told_in_ruby_is_named(parts: Parts) -> None:
    service = parts.service("git", {"GITLAB_OMNIBUS_CONFIG": "gitlab_rails['smtp_enable'] = true"})
    content, draft = imported(parts, replace(service, image="gitlab/gitlab-ce:17"))
    assert content == {}
    assert "left out: it is GitLab, and none of its variables names a mail server" in told(draft)
