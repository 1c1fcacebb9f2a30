"""What is live is withheld unless it is known to be public; what a secret looks like, by name and by form."""

from __future__ import annotations

import base64
import hashlib
import json as stdlib_json
import string
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.plan import Desired, Plan, diff
from reconciler.report import json, markdown, text
from reconciler.resources import (
    Account,
    Domain,
    Group,
    Live,
    MailingList,
    Observation,
    Record,
    Resource,
    SecretRef,
    Setting,
    Variable,
)
from reconciler.secrecy import Public, Withheld, disclosed, is_secret_form, is_secret_name, looks_secret
from reconciler.target import Action, Change, Reason

REF = SecretRef("env", "X")
NAMES = st.text(string.ascii_letters + string.digits + "_.-", min_size=1, max_size=20)
VALUES = st.text(min_size=6, max_size=40).filter(lambda text: text.strip() == text and not text.isspace())


def sides(name: str, value: str) -> list[tuple[Resource, Resource | None]]:
    """Pair what is live with what may be desired of it, for every kind that holds a text."""
    plain = ["", "587", "true", "a-b.example", "https://example.com"]
    variables = [(Variable("app", name, value, value), Variable("app", name, item, item)) for item in plain]
    words = [f"settings/{name}", f"objects/Http/{name}", f"objects/MtaRoute/relay/{name}"]
    keys = [(Setting(word, value), Setting(word, item)) for word in words for item in (*plain, None, 5)]
    nested = [(Setting(words[1], {name: value, "a": (value, value)}), Setting(words[1], {name: "x", "a": ("b",)}))]
    described = [
        Account("a@mana.how", description=value),
        Group("g@mana.how", value),
        Domain("mana.how", description=value),
    ]
    described += [MailingList("l@mana.how", value)]
    record = Record("mana.how", "A", "www", "192.0.2.1", comment=value)
    return [
        *variables,
        *keys,
        *nested,
        *((item, type(item)(item.name, description="other")) for item in described),
        (record, Record("mana.how", "A", "www", "192.0.2.2", comment="other")),
        (described[0], None),
        (record, None),
    ]


MADE = Change("dns/mana.how/A/www", (Action.CREATE,), Reason.MISSING, None, Record("mana.how", "A", "www", "192.0.2.1"))
KEYS = [*json.plan(Plan("mana")), *json.change(MADE)]  # what every plan says in JSON


def leaks(value: str, output: str) -> bool:
    forms = {value, quote(value, safe=""), stdlib_json.dumps(value)[1:-1], repr(value)[1:-1]}
    forms |= {base64.b64encode(value.encode(errors="replace")).decode().rstrip("=")}
    return any(form in output for form in forms)


@pytest.mark.parametrize(
    "name",
    [
        *("LDAP_BINDPW", "TS_AUTHKEY", "PASS_PHRASE", "CONNECTION_STRING", "RECOVERY_CODE", "MAIL_KENNWORT", "PEPPER"),
        *("SMTP_PWD", "MAIL_AUTH", "APP_LICENSE", "SMTP_PASS", "SENTRY_DSN", "smtppass", "SMTP_USERPASS", "PGPASS"),
        *("MAIL_PW", "spring.mail.password", "mail__options__auth__pass", "SMTP_PASS_B64", "LICENSE_CODE", "PASSCODE"),
    ],
)
def test_t15_a_secret_is_known_by_its_name(name: str) -> None:
    assert looks_secret(name, "hunter2")


@pytest.mark.parametrize(
    "name",
    ["BYPASS", "SMTP_AUTH_METHOD", "SMTP_PASSWORD_FILE", "MAIL_FROM", "COUNTRY_CODE", "STATUS_CODE", "SEED_HOST"],
)
def test_what_only_sounds_like_a_secret_is_none(name: str) -> None:
    assert not looks_secret(name, "hunter2")


@pytest.mark.parametrize("text", ["me:hunter2@mail.example:25", "mail.example?user=me&pass=hunter2"])
def test_t15_a_secret_is_known_by_its_form(text: str) -> None:
    assert is_secret_form(text)


@settings(deadline=None)
@given(NAMES, VALUES)
def test_t2_no_live_text_of_any_kind_is_in_any_form_of_a_plan(name: str, value: str) -> None:
    said = "another value, true, 587, a-b.example https://example.com stalwart objects settings smtp app mana.how other"
    said += " ".join(KEYS)
    if value in said or value.lower() in name.lower() or value in f"{name} relay MtaRoute Http":
        return
    for live, desired in sides(name, value):
        removed = frozenset({live.address}) if desired is None else frozenset()
        wanted = Desired([desired] if desired else [], removed=removed)
        observed = {live.target: Observation(live.target, [Live(live, owner="mana")])}
        plan = diff(wanted, observed, stack="mana")
        assert plan.changes or plan.problems or plan.unmanaged, (live, desired)
        outputs = [text.plan(plan), markdown.plan(plan), json.dumps(json.plan(plan)), repr(plan.changes)]
        outputs += [str([dict(change.fields) for change in plan.changes])]
        for output in outputs:
            plain = output.replace(value, "") if value in str(desired) else output
            assert not leaks(value, plain), (live, desired, output)


def test_t2_the_fingerprint_does_not_depend_on_a_live_value_that_is_not_shown() -> None:
    def fingerprint(value: str) -> str:
        observed = {"compose": Observation("compose", [Live(Variable("app", "KEY", value, value))])}
        return diff(Desired([Variable("app", "KEY", "new", "new")]), observed, stack="mana").fingerprint

    assert fingerprint("hunter2") == fingerprint("swordfish")


def test_t2_what_is_known_to_be_public_is_shown() -> None:
    for live, want in (("true", "false"), (Public("stalwart"), "smtp-relay.brevo.com"), ("", "x"), ("same", "same")):
        assert disclosed(live, want) == live
        assert not isinstance(disclosed(live, want), Withheld)
    setting = Setting("hostname", "mail.old.how").disclosed(Setting("hostname", "mail.mana.how"))
    assert setting.value == "mail.old.how"
    assert not isinstance(setting.value, Withheld)
    for word, value in (
        ("settings/session.data.limits.size", "1048576"),
        ("settings/queue.retry", "30m"),
        ("auto_ban/scan", "30/1d"),
        ("settings/server.proxy.trusted.0", "172.18.0.0/16"),
    ):
        assert not isinstance(Setting(word, value).disclosed(Setting(word, None)).value, Withheld)
    assert isinstance(
        Setting("settings/some.pin", "493817").disclosed(Setting("settings/some.pin", "1")).value, Withheld
    )
    assert isinstance(Setting("hostname", "hunter2").disclosed(Setting("hostname", "mail.mana.how")).value, Withheld)


def test_a_withheld_value_differs_as_the_value_itself() -> None:
    live, wanted = (Account("a@mana.how", description=text) for text in "xy")
    change = Change(live.address, (), Reason.DIFFERS, Live(live), wanted)
    assert change.fields == {"description": ("x", "y")}
    assert str(change.fields["description"][0]) == repr(Withheld("x")) == "another value"
    assert change.before is not None
    assert change.before.resource == change.live


# ------------------------------------------------------------------------------------------------------------- looks
@pytest.mark.parametrize(
    "name",
    [
        *(
            "SMTP_PWD",
            "SMTP_PSW",
            "MAIL_PASSWORT",
            "X_AUTH",
            "APP_LICENSE",
            "API_TOKEN",
            "MAIL_PASS",
            "dbPassword",
            "apiKey",
            "signature-key",
        ),
        *("webhook.notify.headers.0", "LICENSE_KEY", "JWT_SECRET", "SMTP_PASSWORD_2", "X-Auth", "SECRETKEY", "COOKIE"),
    ],
)
def test_t15_a_name_tells_of_a_secret(name: str) -> None:
    assert is_secret_name(name)
    assert looks_secret(name, "abc")


@pytest.mark.parametrize(
    "name",
    ["AUTHOR", "MONKEY", "SMTP_HOST", "PUBLIC_KEY", "DB_PASSWORD_FILE", "session.auth.mechanisms", "authUsername"],
)
def test_t15_a_name_tells_of_none(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "value",
    [
        *("https://hooks.example/x?apikey=abc", "https://user:word@h.example/", "https://token@h.example/x"),
        *("Authorization: Basic YWJj", "Bearer abc", "-----BEGIN PRIVATE KEY-----", "$6$salt$hash", "{SSHA}abc"),
        *("$argon2id$v=19$m=1", "xkeysib-0123456789abcdef", "ghp_0123456789abcdefghij", "X-Api-Key: abc"),
        *("6a1f3e9c-6d0b-4f5e-9f63-0c2e7b1d8a44", "https://hooks.slack.com/services/T0A1B2C3D/B9Z8Y7/a1B2c3D4e5F6g7H8"),
        *("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.x", "AKIA1B2C3D4E5F6G7H8I", "password=abc"),
    ],
)
def test_t15_a_form_tells_of_a_secret(value: str) -> None:
    assert is_secret_form(value)


@pytest.mark.parametrize(
    "value",
    [
        *("smtp-relay.brevo.com", "http://mana-notify:3013", "noreply@mana.how", "Mana <noreply@mana.how>", "587"),
        *("/opt/stalwart/etc/config.toml", "Benachrichtigungen", "2001:db8::1", "v=spf1 mx -all", "Europe/Berlin"),
        *("ThisIsACamelCaseName", "is_local_domain('', rcpt_domain)", "%{file:/run/secret}%", "0 0 3 * *"),
    ],
)
def test_t15_a_form_tells_of_none(value: str) -> None:
    assert not is_secret_form(value)


def test_t15_most_tokens_at_random_are_known_by_their_form() -> None:
    found = [is_secret_form(hashlib.sha256(bytes([number])).hexdigest()[:20]) for number in range(200)]
    assert sum(found) >= 190


def test_judging_a_form_takes_no_time_that_grows_faster_than_the_text() -> None:
    hostile = ["a://" * 20000, "a." * 50000, "eyJ-" * 30000, "token" + " " * 10**5, "sk-" * 30000]
    assert [is_secret_form(value) for value in hostile] == [False] * len(hostile)
