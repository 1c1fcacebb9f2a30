"""Keys and accounts: what is written, what goes to the store, and what a restore could not bring back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from reconciler import keys as formats
from reconciler.importing import targets
from reconciler.importing.directory import Noted, document
from reconciler.importing.dns import keys
from reconciler.importing.mail import accounts, domains, groups, lists
from reconciler.importing.smtp import submissions
from reconciler.resources import UNMANAGED, Account, Domain, Group, Listener, MailingList, SecretRef, Setting, Signature
from reconciler.targets.stalwart.passwords import hashed

from .conftest import told

if TYPE_CHECKING:
    from reconciler.resources import Live

    from .conftest import Parts

KEY = ed25519.Ed25519PrivateKey.generate()
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
PUBLIC = formats.public_half("ed25519", PEM)
SIGNATURE = Signature("mana.how", "ed1", "ed25519", PUBLIC)
TXT = f"v=DKIM1; k=ed25519; p={PUBLIC}"


def imported(parts: Parts, zone: list[Live] | None, generation: str = "rest") -> tuple[Any, Any]:
    private = {SIGNATURE.address: PEM} if generation == "rest" else {}
    server = parts.server(Domain("mana.how"), SIGNATURE, generation=generation, private_keys=private)
    draft = parts.draft()
    return keys(parts.found(server=server, zone=zone), draft), draft


# ---------------------------------------------------------------------------------------------------------------- keys
@pytest.mark.parametrize("zone", [True, False])
def test_a_published_key_is_kept_with_both_halves(parts: Parts, zone: bool) -> None:
    made, draft = imported(parts, [parts.record("TXT", "ed1._domainkey", TXT)] if zone else None)
    ref = SecretRef("file", "../secrets/ed1.mana.how.pem")
    [entry] = made.content["mana.how"]
    assert entry == {"selector": "ed1", "algorithm": "ed25519", "public_key": PUBLIC, "private_key": ref}
    assert draft.secrets == {"ed1.mana.how.pem": PEM}
    assert len(made.derived) == zone
    assert draft.notes == []


@pytest.mark.parametrize(
    ("type_", "content", "more", "why"),
    [
        (None, "", {}, "is not published"),
        ("TXT", f"v=DKIM1; k=ed25519; p={PUBLIC[::-1]}", {}, "publishes another key"),
        ("TXT", TXT, {"ttl": 300}, "ttl 300"),
        ("TXT", TXT, {"owner": "other"}, "stack other"),
        ("CNAME", "elsewhere.example", {}, "is a CNAME"),
    ],
    ids=["missing", "another", "ttl", "owner", "alias"],
)
def test_a_key_that_a_plan_would_change_stays_as_a_comment(
    parts: Parts, type_: str | None, content: str, more: dict[str, Any], why: str
) -> None:
    zone = [parts.record(type_, "ed1._domainkey", content, **more)] if type_ else []
    made, draft = imported(parts, zone)
    text = document({"dkim": made.content})
    assert all(line.lstrip().startswith("#") for line in text.splitlines()[1:])
    assert why in text
    assert why in told(draft)
    assert "ed1.mana.how.pem" in text
    assert draft.secrets == {"ed1.mana.how.pem": PEM}, "what would be lost is at least at hand"
    assert made.derived == set()


def test_a_key_of_the_servers_own_says_what_a_loss_means(parts: Parts) -> None:
    made, draft = imported(parts, [parts.record("TXT", "ed1._domainkey", TXT)], "jmap")
    text = document({"dkim": made.content})
    assert "reconciler dkim rotate mana.how" in text
    assert "private_key" not in text
    assert "public_key" not in text, "after a loss the server makes another one"
    assert "with its volume it is lost" in told(draft)


def test_a_domain_that_nothing_else_brings_is_declared(parts: Parts) -> None:
    found = parts.found(server=parts.server(Domain("lone.example"), Domain("mana.how"), Account("a@mana.how")))
    assert domains(found, {}, parts.draft()) == {"lone.example": {}}
    assert domains(found, {"lone.example": []}, parts.draft()) == {}
    assert domains(found, {"lone.example": Noted([], out=True)}, parts.draft()) == {"lone.example": {}}


# ---------------------------------------------------------------------------------------------- groups, lists, domains
SHARED = (
    Domain("mana.how", description="Ours", catch_all="a@mana.how", aliases=("mana.net",), sub_addressing=False),
    Domain("mana.dev", description=None, catch_all=None, aliases=(), sub_addressing=True),
    Account("a@mana.how", email="a@mana.how", roles=("user",), groups=("staff@mana.how", "bare")),
    Group("staff@mana.how", "Staff", ("team@mana.dev",)),
    Group("bare", None, ()),
    MailingList("news@mana.how", None, (), ("a@mana.how", "b@elsewhere.example")),
    MailingList("empty@mana.how", "Nobody yet", (), ()),
)


def test_a_default_domain_with_nothing_in_it_is_declared_as_the_directory_asks(parts: Parts) -> None:
    """Up to 0.15 the first domain is the default one, also where all mail is in others."""
    found = parts.found(server=parts.server(Domain("mana.how"), Setting("default_domain", "mana.how")))
    assert domains(found, {"d1.mana.how": []}, parts.draft()) == {"mana.how": {}}


@pytest.mark.parametrize("generation", ["rest", "jmap"])
def test_groups_lists_and_domains_are_written_as_the_directory_has_them(parts: Parts, generation: str) -> None:
    found, draft = parts.found(server=parts.server(*SHARED, generation=generation)), parts.draft()
    assert groups(found, draft) == {"staff@mana.how": {"description": "Staff", "aliases": ["team@mana.dev"]}}
    assert "group/bare: left out: it has no address" in told(draft)
    assert lists(found, draft) == {
        "news@mana.how": {"members": ["a@mana.how", "b@elsewhere.example"]},
        "empty@mana.how": {"description": "Nobody yet"},
    }
    switch = {"sub_addressing": False} if generation == "jmap" else {}
    said = {"description": "Ours", "catch_all": "a@mana.how", "aliases": ["mana.net"], **switch}
    assert domains(found, {}, draft) == {"mana.how": said}
    assert len(draft.notes) == 1


def test_what_the_directory_can_not_say_of_them_is_told_and_costs_nothing_else(parts: Parts) -> None:
    live = (
        Domain("mana.how", description="Ours", aliases=("mana.dev", "bad..x")),
        Domain("mana.dev"),
        Domain("mana.net", catch_all="a b@mana.net", aliases=("bad..x",)),
        MailingList("all@mana.how", "All", (), ("news@mana.how", "a@mana.how")),
        MailingList("news@mana.how", members=("nomail",)),
        MailingList("no address", members=("a@mana.how",)),
    )
    found, draft = parts.found(server=parts.server(*live, generation="jmap")), parts.draft()
    assert lists(found, draft) == {"all@mana.how": {"description": "All"}, "news@mana.how": {}}
    assert domains(found, {}, draft) == {"mana.how": {"description": "Ours"}, "mana.dev": {}, "mana.net": {}}
    assert "news@mana.how is a list" in told(draft)
    assert "mana.dev is a domain of its own" in told(draft)
    assert told(draft).count("as the directory can't say it") == 4


# ------------------------------------------------------------------------------------------------------------ accounts
NOREPLY = Account("noreply@mana.how", login="noreply", email="noreply@mana.how", roles=("user",))
CONSUMER = {"SMTP_HOST": "stalwart", "SMTP_USER": "noreply", "SMTP_PASSWORD": "word-of-noreply"}


def people(parts: Parts, *resources: Account, services: list[Any] | None = None, **more: Any) -> tuple[Any, Any]:
    draft = parts.draft()
    found = parts.found(server=parts.server(*resources, **more), services=services)
    return accounts(found, submissions(found, draft), draft), draft


def test_a_hash_goes_to_the_store(parts: Parts) -> None:
    stored = hashed("somebodys-word")
    content, draft = people(parts, NOREPLY, hashes={NOREPLY.name: stored})
    assert content[NOREPLY.name]["password"] == SecretRef("file", "../secrets/noreply@mana.how")
    assert draft.secrets == {NOREPLY.name: stored}


@pytest.mark.parametrize(("word", "clear"), [("word-of-noreply", True), ("another", False)])
def test_a_consumer_gives_the_clear_password_where_it_is_that_accounts(
    parts: Parts,
    word: str,
    clear: bool,
) -> None:
    services = [parts.service("stalwart", {}), parts.service("notify", CONSUMER)]
    stored = hashed(word)
    _, draft = people(parts, NOREPLY, services=services, hashes={NOREPLY.name: stored})
    assert draft.secrets[NOREPLY.name] == ("word-of-noreply" if clear else stored)
    assert ("its password is not" in told(draft)) != clear


def test_the_administrator_keeps_what_the_import_logged_in_with(parts: Parts) -> None:
    admin = Account("admin", login="admin", roles=("admin",))
    content, draft = people(parts, admin, hashes={"admin": hashed("the-admins-own-word")})
    assert content["admin"]["password"] == SecretRef("env", "STALWART_ADMIN_PASSWORD")
    assert draft.secrets == {}


def test_from_016_only_known_passwords_are_referred_to(parts: Parts) -> None:
    names = ("admin@mana.how", "noreply@mana.how", "other@mana.how")
    services = [parts.service("stalwart", {}), parts.service("notify", CONSUMER | {"SMTP_USER": names[1]})]
    resources = [Account(name, email=name, roles=("user",)) for name in names]
    domain = Setting("default_domain", "mana.how")
    content, draft = people(parts, *resources, domain, services=services, generation="jmap")  # type: ignore[arg-type]
    assert content[names[0]]["password"] == SecretRef("env", "STALWART_ADMIN_PASSWORD")
    assert content[names[1]]["password"] == SecretRef("file", "../secrets/noreply@mana.how")
    assert isinstance(content[names[2]], Noted)
    assert "password: {env: OTHER_PASSWORD}" in document({"accounts": content})
    assert draft.secrets == {names[1]: "word-of-noreply"}
    [note] = draft.notes
    assert names[2] in note.summary
    assert not any(name in note.summary for name in names[:2])


def test_one_local_part_in_two_domains_of_016_makes_two_logins_and_two_variables(parts: Parts) -> None:
    names = ("a@mana.how", "a@second.example")
    resources = [Account(name, email=name, roles=("user",)) for name in names]
    content, _ = people(parts, *resources, generation="jmap")
    assert [content[name].value.get("login") for name in names] == [None, names[1]]
    text = document({"accounts": content})
    assert "{env: A_MANA_HOW_PASSWORD}" in text
    assert "{env: A_SECOND_EXAMPLE_PASSWORD}" in text


def test_what_is_there_is_written_and_the_rest_left_to_the_server(parts: Parts) -> None:
    account = Account(
        "a@b.example",
        login="somebody",
        email="a@b.example",
        roles=("admin",),
        aliases=("c@b.example",),
        groups=("crew",),
        quota=3 << 30,
    )
    content, _ = people(parts, account, hashes={account.name: hashed("x")})
    del content[account.name]["password"]
    assert content[account.name] == {
        "roles": ["admin"],
        "login": "somebody",
        "aliases": ["c@b.example"],
        "groups": ["crew"],
        "quota": "3 GiB",
    }


def test_l11_one_option_that_can_not_be_said_costs_no_other_and_no_listener(parts):
    usual = Listener("submission", ("[::]:587",), "smtp", open=UNMANAGED)
    odd = replace(usual, name="odd", tls_timeout=0.1, max_connections=2_000_000, backlog=512)
    rates = (Setting("auto_ban/scan", "off"), Setting("auto_ban/auth", "many"))
    draft = parts.draft()
    made = targets.stalwart(parts.found(server=parts.server(usual, odd, *rates)), draft)
    assert made["listeners"] == {
        "odd": {"bind": "[::]:587", "protocol": "smtp", "backlog": 512},
        "submission": {"bind": "[::]:587", "protocol": "smtp"},
    }
    assert made["auto_ban"] == {"scan": "off"}
    assert [word in told(draft) for word in ("odd: tls_timeout", "odd: max_connections", "auto_ban")] == [True] * 3


@pytest.mark.parametrize("generation", ["rest", "jmap"])
def test_l1_an_account_that_is_locked_is_imported(parts, generation):
    """It is there, and gets mail: without it a restore would have that bounce."""
    account = Account("till@mana.how", "till", "till@mana.how", roles=("user",), quota=5, locked=True, locale="de_DE")
    draft = parts.draft()
    made = accounts(parts.found(server=parts.server(account, generation=generation)), [], draft)["till@mana.how"]
    entry = made.value if isinstance(made, Noted) else made
    assert entry == {"roles": ["user"], "quota": "5", "locked": True, "locale": "de_DE"}
    assert "left out" not in told(draft)
