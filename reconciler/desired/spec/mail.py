"""``accounts``, ``groups``, ``lists``, ``domains`` and ``dkim``: all that the YAML says of a kind stands here."""

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema, field_validator

from reconciler import keys
from reconciler.desired.spec.scalars import (
    REQUIRED,
    AccountName,
    DomainName,
    Email,
    Flag,
    List,
    ListOrNull,
    Model,
    OpenMap,
    SecretIfAny,
    Text,
    matching,
    wrong,
)
from reconciler.desired.yaml import Finding, Path
from reconciler.names import mailbox
from reconciler.resources import SecretRef

_UNITS = {"": 1, "B": 1}
_UNITS |= {f"{prefix}B": 1000**power for power, prefix in enumerate(("k", "M", "G", "T"), 1)} | {"KB": 1000}
_UNITS |= {f"{prefix}iB": 1024**power for power, prefix in enumerate(("K", "M", "G", "T"), 1)}
_QUOTA = re.compile(r"([0-9]{1,18})(\.[0-9]{1,6})?\s*([A-Za-z]*)")


def size(value: Any) -> int | None:
    """Read a size such as ``1 GiB``, ``500 MB`` or a number of bytes; ``None`` is none."""
    if value is None:
        return None
    match = _QUOTA.fullmatch(value) if isinstance(value, str) else None
    units = {name.lower(): factor for name, factor in _UNITS.items()}
    if match is None or match[3].lower() not in units:
        hint = "write it like 1 GiB, or null for none"
        raise wrong("must be a size such as 1 GiB, 500 MB or a number of bytes", hint)
    unit, fraction = units[match[3].lower()], match[2] or ".0"
    scaled = int(match[1]) * unit * 10**6 + int(fraction[1:].ljust(6, "0")) * unit
    if scaled <= 0 or scaled % 10**6 or scaled // 10**6 >= 1 << 63:
        hint = "write null for none" if scaled == 0 else "write it in a smaller unit"
        raise wrong("must be a whole number of bytes, above 0 and below 8 EiB", hint)
    return scaled // 10**6


Size = Annotated[int | None, PlainValidator(size), WithJsonSchema({"type": ["string", "integer", "null"]})]


LIMITS = (
    "from 0.16 declare a role with them, `stalwart: {objects: {Role: {NAME: {disabledPermissions: [...]}}}}`, and "
    "name it in the account's `roles`; up to 0.15 make that role on the server"
)
"""How what an account may, or may not, is said: by name it differs between the generations."""
_FORWARD = (
    "its mail goes elsewhere by `lists: {ADDRESS: {members: [...]}}` in its place; a copy besides is a Sieve script"
)
_LOCKED = "write `locked: true`: nobody logs in as it, and its mail still arrives"
UNSAID = {
    ("accounts", word): hint
    for hint, words in {
        LIMITS: (
            "permissions",
            "enabledPermissions",
            "disabledPermissions",
            "enabled_permissions",
            "disabled_permissions",
        ),
        _FORWARD: ("forward", "forwards", "forward_to", "redirect"),
        _LOCKED: ("disabled", "enabled", "active", "suspended"),
        "write `locale: de_DE`": ("language", "lang"),
    }.items()
    for word in words
}
"""What people write where the format has another way, by the map and the key."""


_LOCALE = r"[a-z]{2,3}([_-][A-Za-z0-9]{2,8})*(@[a-z]+)?|POSIX"  # as 0.16.18 lists them, and BCP 47 as from 0.16.20


class _Addressee(Model):
    """What has an address: the key in the YAML, and ``aliases``."""

    def conflicts(self, owners: Mapping[str, Path]) -> Iterator[Finding]:  # noqa: ARG002 (most name no one else)
        """Yield what can't be, going by what stands where (by `mailbox`); the paths begin in the entry."""
        yield from ()


class AccountEntry(_Addressee):
    """A login with its mailbox. What has no default is unmanaged when absent.

    ``locked`` keeps everybody from logging in as it, while its mail still arrives.
    """

    description: Text | None = None
    roles: Annotated[tuple[Text, ...], List] = ("user",)
    password: SecretIfAny = None
    aliases: Annotated[tuple[Email, ...] | None, ListOrNull] = None
    quota: Size = None
    groups: Annotated[tuple[Text, ...] | None, ListOrNull] = None
    enforce_password: Flag = True
    login: Annotated[Text, matching(r"[^\s/]{1,255}", "is no login name", "no spaces, no /")] | None = None
    locked: Flag = False
    locale: Annotated[Text, matching(_LOCALE, "is no locale", "like de_DE")] | None = None

    def conflicts(self, owners: Mapping[str, Path]) -> Iterator[Finding]:
        """One belongs to groups, which are named by their keys."""
        for index, group in enumerate(self.groups or ()):
            other = owners.get(mailbox(group), ()) if "@" in group else ()
            if other and (other[0] != "groups" or len(other) > 2):  # noqa: PLR2004 (kind and key: not an alias)
                summary = f"{group} is no group but stands at {{other}}"
                yield Finding(("groups", index), summary, "write the key of one under groups", other)


class GroupEntry(_Addressee):
    """A shared mailbox; accounts say in ``groups`` that they belong to it. Both are unmanaged when absent."""

    description: Text | None = None
    aliases: Annotated[tuple[Email, ...] | None, ListOrNull] = None


class ListEntry(_Addressee):
    """An address whose mail goes to its ``members``: addresses here and elsewhere. All are unmanaged when absent."""

    description: Text | None = None
    aliases: Annotated[tuple[Email, ...] | None, ListOrNull] = None
    members: Annotated[tuple[Email, ...] | None, ListOrNull] = None

    def conflicts(self, owners: Mapping[str, Path]) -> Iterator[Finding]:
        """Neither server passes mail on from list to list (tried on 0.15.5 and 0.16.18)."""
        for index, member in enumerate(self.members or ()):
            other = owners.get(mailbox(member), ())
            if other[:1] == ("lists",):
                summary = f"{member} is the list at {{other}}: the server passes no mail on from a list to a list"
                yield Finding(("members", index), summary, "write that one's members here", other)


AddresseeEntry = AccountEntry | GroupEntry | ListEntry


class DomainEntry(Model):
    """What a mail domain is besides that it exists. All are unmanaged when absent.

    ``catch_all`` gets what no one else has; ``aliases`` are domains whose addresses mean the same;
    ``sub_addressing`` is whether ``name+anything`` reaches ``name``.
    """

    description: Text | None = None
    catch_all: Email | None = None
    aliases: Annotated[tuple[DomainName, ...] | None, ListOrNull] = None
    sub_addressing: Flag = True


def _day(value: Any) -> dt.date:
    try:
        if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
            return dt.date.fromisoformat(value)
    except ValueError:
        pass
    raise wrong("must be a day", "write it like 2026-11-01")


_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"  # names of DNS have no case


class Key(Model):
    """A DKIM key; ``public_key`` is as `reconciler.keys.public_key` gives it. No ``private_key``: the server's own."""

    selector: Annotated[
        Text,
        matching(rf"{_LABEL}(\.{_LABEL})*", "is no selector", "a-z, 0-9, - and _, in parts of 63 at most"),
        AfterValidator(lambda name: name.lower()),  # what pydantic can see the arguments of without parsing a text
    ]
    algorithm: Literal["ed25519", "rsa"]
    stage: Literal["pending", "active", "retiring", "retired"] = "active"
    public_key: Annotated[Text | None, Field(validate_default=True)] = None
    private_key: SecretIfAny = None
    since: Annotated[dt.date, PlainValidator(_day), WithJsonSchema({"type": "string", "format": "date"})] | None = None

    @field_validator("public_key")
    @classmethod
    def _public_key(cls, value: str | None, info: ValidationInfo) -> str | None:
        algorithm, stage = info.data.get("algorithm"), info.data.get("stage")
        if value is None:
            if stage in {"pending", "retiring"}:
                raise wrong(f"{REQUIRED}: a {stage} key is published, so its public half must be known", _GENERATE)
            return None
        if "PRIVATE" in value:
            raise wrong(
                "is a private key",
                "take it out of here, and make a new one: `reconciler dkim generate DOMAIN`",
            )
        if algorithm is None:
            return value
        try:
            public = keys.public_key(algorithm, value)
            bits = keys.rsa_bits(public) if algorithm == "rsa" else 0
        except (ValueError, IndexError) as error:
            raise wrong(f"is no {algorithm} key: {error}", _GENERATE) from None
        if algorithm == "rsa" and bits < 1024:  # noqa: PLR2004 - RFC 8301 section 3.2: verifiers must refuse it
            hint = "make one of 2048: `reconciler dkim generate DOMAIN --algorithm rsa`"
            raise wrong(f"has {bits} bits, which no one accepts", hint)
        return public


_GENERATE = (
    "copy what p= holds in DNS; or make a key: `reconciler dkim generate DOMAIN` writes both halves where they belong"
)


# ------------------------------------------------------------------------------------------------------------ the part
ADDRESSES = {
    "account": (r"account/.+", "account/NAME"),
    "group": (r"group/.+", "group/ADDRESS"),
    "list": (r"list/.+", "list/ADDRESS"),
    "domain": (r"domain/[^/]+", "domain/NAME"),
    "dkim": (r"dkim/[^/]+/[^/]+", "dkim/DOMAIN/SELECTOR"),
}
"""How things of a kind are named, as a pattern and as people write it."""


class Mail(Model):
    """What the mail server keeps besides its settings: a map for each kind."""

    accounts: Annotated[dict[AccountName, AccountEntry], OpenMap] = {}
    groups: Annotated[dict[Email, GroupEntry], OpenMap] = {}
    lists: Annotated[dict[Email, ListEntry], OpenMap] = {}
    domains: Annotated[dict[DomainName, DomainEntry], OpenMap] = {}
    dkim: Annotated[dict[DomainName, Annotated[tuple[Key, ...], List]], OpenMap] = {}

    @property
    def addressees(self) -> dict[str, Mapping[str, AddresseeEntry]]:
        """What mail is sent to, by the maps it stands in: an address has one of all of them."""
        return {"accounts": self.accounts, "groups": self.groups, "lists": self.lists}

    @property
    def secrets(self) -> Iterator[tuple[Path, SecretRef]]:
        """Every reference to a secret, with the path of where it stands."""
        for name, account in self.accounts.items():
            if account.password is not None:
                yield ("accounts", name, "password"), account.password
        for domain, domain_keys in self.dkim.items():
            for index, key in enumerate(domain_keys):
                if key.private_key is not None:
                    yield ("dkim", domain, index, "private_key"), key.private_key
