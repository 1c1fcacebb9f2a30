"""The kinds of things we keep, in the order they are applied; what is live; what a target has observed.

A resource normalises itself in its constructor, so that a desired and an observed one that mean the same are equal:
drift is ``!=``. A resource holds the *name* of a secret, never its value; what a target found out about a secret
field is a verdict (`Same`, `Different`, `Unreadable`).
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, ClassVar, Self

from reconciler.names import is_name, key_name
from reconciler.problem import Problem
from reconciler.secrecy import Withheld, disclosed, is_measure


class Special(enum.Enum):
    """Values that are not there."""

    UNMANAGED = "unmanaged"  # the directory says nothing: whatever is live is right
    UNKNOWN = "unknown"  # the server chooses it; known after a first pass

    def __repr__(self) -> str:
        """Render as a person reads it."""
        return "(known after apply)" if self is Special.UNKNOWN else "(unmanaged)"


UNMANAGED = Special.UNMANAGED
UNKNOWN = Special.UNKNOWN


# ---------------------------------------------------------------------------------------------- secrets are names
@dataclass(frozen=True, slots=True)
class SecretRef:
    """The name of a secret, as ``{env: NAME}`` or ``{sops: PATH#KEY}``; ``source`` is what stands first.

    ``held`` is whether it is not to be read: only a revision that is not merged has it at this place.
    """

    source: str
    name: str
    held: bool = False

    def __str__(self) -> str:
        """Render as it stands in the YAML."""
        return f"{{{self.source}: {self.name}}}"


@dataclass(frozen=True, slots=True)
class SecretPart:
    """A secret inside a text, written as it is or as an escape says (``{password|url}``, see `desired.template`)."""

    ref: SecretRef
    escape: str = ""


@dataclass(frozen=True, slots=True)
class SecretText:
    """A text with secrets in it, such as ``smtp://noreply:{password|url}@stalwart:587``: secret as a whole."""

    parts: tuple[str | SecretPart, ...]

    @property
    def refs(self) -> tuple[SecretRef, ...]:
        """The secrets it needs."""
        return tuple(part.ref for part in self.parts if isinstance(part, SecretPart))

    @property
    def held(self) -> bool:
        """Whether a secret in it is not to be read."""
        return any(ref.held for ref in self.refs)

    def __str__(self) -> str:
        """Render with the secrets' names in place of their values."""
        return "".join(part if isinstance(part, str) else str(part.ref) for part in self.parts)


Secret = SecretRef | SecretText


@dataclass(frozen=True, slots=True)
class Same:
    """The live secret equals the one this reference names."""

    ref: Secret


@dataclass(frozen=True, slots=True)
class Different:
    """The live secret is another one, or there is none; or nobody has ``compared`` it, and it is written anyway."""

    compared: bool = True


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Whether the live secret is the desired one can't be told."""

    why: str


Verdict = Same | Different | Unreadable


# ------------------------------------------------------------------------------------------------------ resources
@dataclass(frozen=True, slots=True)
class Brief:
    """A piece of what a plan says in short of a resource: ``words``, and behind them the value of a field, if any.

    ``name`` is the field's, by which its value is rendered: empty where it is rendered as any value, None for no value.
    """

    words: str
    name: str | None = None
    value: Any = None


@dataclass(frozen=True, slots=True)
class Resource:
    """One thing in a system. Fields of ``identity`` say which one it is; the others say how it is.

    ``marked`` is whether our mark tells whose a live one is: only then may absence remove it. ``keeps_mail`` is whether
    mail lies in it, which goes with it. ``secretive`` are the fields that may hold what lets somebody in, ``public``
    those that may be shown of a live one whatever they hold, beside its identity: addresses, names, what DNS publishes.
    """

    target: ClassVar[str]
    kind: ClassVar[str]
    identity: ClassVar[tuple[str, ...]]
    secretive: ClassVar[tuple[str, ...]] = ()
    marked: ClassVar[bool] = False
    keeps_mail: ClassVar[bool] = False
    public: ClassVar[frozenset[str]] = frozenset()

    @property
    def address(self) -> str:
        """How people name it, such as ``account/noreply@mana.how``."""
        raise NotImplementedError

    @property
    def group(self) -> tuple[str, ...]:
        """What it is compared within: equal for a desired and a live resource that may be the same thing."""
        return (self.kind, *(str(getattr(self, name)) for name in self.identity))

    @property
    def scope(self) -> str:
        """What is read, refused or lost as a whole: a target's name, or ``dns/ZONE``."""
        return self.target

    @property
    def essence(self) -> str:
        """What others rely on: its address, as a rule."""
        return self.address

    @property
    def mailboxes(self) -> tuple[str, ...]:
        """The e-mail addresses whose mail it gets, as far as they are known."""
        return ()

    @property
    def secrets(self) -> Iterator[SecretRef]:
        """The secrets that let somebody in, those of its possible values among them."""
        for value in (getattr(self, name) for name in self.secretive):
            for item in value if isinstance(value, tuple) else (value,):
                yield from (item,) if isinstance(item, SecretRef) else item.refs if isinstance(item, SecretText) else ()

    @property
    def held(self) -> tuple[SecretRef, ...]:
        """The references in it that are not to be read, each once."""
        return tuple(dict.fromkeys(ref for _, value in self.declared() for ref in references(value) if ref.held))

    def disclosed(self, desired: Resource | None) -> Self:
        """Return a live one as it may be shown beside what is desired of it; what is not public is withheld."""
        kept = {*self.identity, *self.public}
        beside = desired if type(desired) is type(self) else None
        values = {name: getattr(self, name) for name in compared_fields(type(self)) if name not in kept}
        shown = {name: disclosed(value, getattr(beside, name, None), self.harmless) for name, value in values.items()}
        changed = {name: value for name, value in shown.items() if value is not values[name]}
        return replace(self, **changed) if changed else self

    def harmless(self, text: str) -> bool:  # noqa: ARG002 (kinds differ in what they know)
        """Whether a live text that is no public field's may be shown all the same, by its form."""
        return False

    def was_judged_blind(self, early: Resource, live: Resource | None) -> bool:  # noqa: ARG002 (as above)
        """Whether its target has to see it again: what it said of it while it was ``early`` was said without a value.

        ``live`` is what it found. A target whose problems hang on no value has none to see again.
        """
        return False

    def set_by(self, field: str) -> Iterator[SecretRef]:
        """Yield the secrets that writing a field of it sets."""
        yield from references(getattr(self, field))

    @property
    def waits(self) -> bool:
        """Whether a value is known only after a first pass: a record of a key that the server has yet to make."""
        return any(value is UNKNOWN for _, value in self.values())

    def requires(self, *, takes_over: bool) -> Iterator[str]:  # noqa: ARG002 (kinds differ in what they go by)
        """Yield the `essence` of all that a change to it relies on; ``takes_over`` is whether one is there already."""
        yield from ()

    def holds_back(self, changed: Collection[str], *, new: bool) -> bool:  # noqa: ARG002 (as above)
        """Whether what relies on it has to wait for a change of these fields."""
        return True

    def precedes(self, gone: Resource, *, deleted: bool) -> bool:  # noqa: ARG002 (as above)
        """Whether its own change, which may delete it, has to come before another resource's removal."""
        return False

    @property
    def company(self) -> tuple[str, ...]:
        """What it must not be changed without: what has the same company is changed as a whole, or waits as a whole."""
        return self.group

    def touches(self, changed: Collection[str], *, new: bool) -> str:  # noqa: ARG002 (kinds differ in what they touch)
        """Say in a word what of the flow of mail a change of these fields touches; empty for nothing."""
        return ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of it beside its values."""
        return ()

    def brief(self) -> Iterator[Brief]:
        """Yield what it is, leaving out what its address says and what is at its default."""
        yield from ()

    def unusual(self, *names: str, **usual: Any) -> Iterator[Brief]:
        """Yield some fields for `brief`, but for what is not there and for the ``usual`` values."""
        for name in names:
            value = getattr(self, name)
            if value not in (None, UNMANAGED, ()) and value != usual.get(name):
                yield Brief(f"{name.replace('_', ' ')}: ", name, value)

    def values(self) -> Iterator[tuple[str, Any]]:
        """Yield name and value of every field that says how the thing is."""
        for name in compared_fields(type(self)):
            yield name, getattr(self, name)

    def declared(self) -> Iterator[tuple[str, Any]]:
        """Yield name and value of all that a directory says of it, also of what no live one is compared by."""
        for item in fields(self):
            if item.name not in self.identity:
                yield item.name, getattr(self, item.name)


def references(value: Any) -> Iterator[SecretRef]:
    """Yield the references inside a value."""
    if isinstance(value, SecretRef):
        yield value
    elif isinstance(value, SecretText):
        yield from value.refs
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from references(item)


def texts(value: Any) -> Iterator[str]:
    """Yield the texts inside a value, of a resource all that it says: whatever is no secret."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, SecretText):
        yield from (part for part in value.parts if isinstance(part, str))
    elif isinstance(value, Resource):
        yield value.address
        for item in fields(value):
            yield from texts(getattr(value, item.name))
    elif isinstance(value, Mapping):
        for item in (*value, *value.values()):
            yield from texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)


_compared: dict[type[Resource], tuple[str, ...]] = {}


def compared_fields(kind: type[Resource]) -> tuple[str, ...]:
    """Name the fields of a kind that say how a thing is, in declaration order."""
    if kind not in _compared:  # ten thousand records ask
        _compared[kind] = tuple(item.name for item in fields(kind) if item.compare and item.name not in kind.identity)
    return _compared[kind]


_QUICK = 300  # seconds: Cloudflare's own TTL, in which a line's new address is known everywhere


@dataclass(frozen=True, slots=True)
class Record(Resource):
    """A DNS record at Cloudflare.

    ``name`` is relative to ``zone``, ``@`` the zone itself; ``ttl`` is in seconds, 1 means automatic. ``content`` is
    normalised by `reconciler.dns.records.record`, which is the only way to make one from what a person or the API
    wrote: names lower-case, Punycode and without the trailing dot, TXT decoded and joined, DKIM by meaning.
    ``comment`` is the user's own text, without our mark. ``follows`` is the text that the content is made of where it
    follows the line's address (`reconciler.desired.public_ip`): until that is known the content is UNKNOWN.
    """

    target: ClassVar[str] = "cloudflare"
    kind: ClassVar[str] = "dns"
    identity: ClassVar[tuple[str, ...]] = ("zone", "type", "name")
    marked: ClassVar[bool] = True
    public: ClassVar[frozenset[str]] = frozenset({"content", "data"})

    zone: str
    type: str
    name: str
    content: str | Special
    ttl: int = 1
    proxied: bool = False
    priority: int | None = None
    data: tuple[tuple[str, str | int], ...] | None = None
    comment: str | Special | None = UNMANAGED
    follows: str = field(default="", compare=False)

    @property
    def address(self) -> str:
        """``dns/ZONE/TYPE/NAME``; where a name has several values `plan.addresses` adds the value's head."""
        return f"dns/{self.zone}/{self.type}/{self.name}"

    @property
    def host(self) -> str:
        """The full name."""
        return self.zone if self.name == "@" else f"{self.name}.{self.zone}"

    @property
    def essence(self) -> str:
        """A TXT record's is its full name, as its zone may be a parent of the domain that relies on it."""
        return f"TXT {self.host}" if self.type == "TXT" else self.address

    @property
    def group(self) -> tuple[str, ...]:
        """Records of one type at one name are compared together."""
        return ("dns", self.zone, self.type, self.name)

    @property
    def company(self) -> tuple[str, ...]:
        """All that stands at its name: an alias comes where a host goes, one exchange where the other does."""
        return ("dns", self.zone, self.name)

    @property
    def scope(self) -> str:
        """Zones are read and refused one by one."""
        return f"dns/{self.zone}"

    @property
    def notes(self) -> tuple[str, ...]:
        """Whether it follows the line's address, and what makes it slow to do so."""
        if not self.follows:
            return ()
        slow = f"; ttl {self.ttl}: after a change resolvers keep the former one so many seconds"
        return (f"follows the line's address{slow if self.ttl > _QUICK else ''}",)

    def brief(self) -> Iterator[Brief]:
        """Its value, and what is unusual about it."""
        yield Brief("" if self.priority is None else f"{self.priority} ", "content", self.content)
        yield from self.unusual("ttl", "proxied", "comment", ttl=1, proxied=False)


@dataclass(frozen=True, slots=True)
class Domain(Resource):
    """A mail domain of Stalwart.

    ``manual`` is whether the server leaves its keys and DNS to us (from 0.16). ``catch_all`` is the address that gets
    what nobody else has, ``aliases`` are other domains whose addresses mean the same, sorted. ``sub_addressing`` is
    None where a rule of the server's own says who has it.
    """

    target: ClassVar[str] = "stalwart"
    kind: ClassVar[str] = "domain"
    identity: ClassVar[tuple[str, ...]] = ("name",)
    public: ClassVar[frozenset[str]] = frozenset({"catch_all", "aliases"})

    name: str
    manual: bool | Special = UNMANAGED
    description: str | Special | None = UNMANAGED
    catch_all: str | Special | None = UNMANAGED
    aliases: tuple[str, ...] | Special = UNMANAGED
    sub_addressing: bool | Special | None = UNMANAGED

    def __post_init__(self) -> None:
        """Names and addresses are case-insensitive; aliases have no order."""
        values = {"catch_all": _lower(self.catch_all), "aliases": _sorted(self.aliases)}
        _normalise(self, name=self.name.lower(), **values)

    @property
    def address(self) -> str:
        """``domain/NAME``."""
        return f"domain/{self.name}"

    def holds_back(self, changed: Collection[str], *, new: bool) -> bool:
        """A domain has to be there, and its keys and records to be ours; what else it says is its own matter."""
        return new or "manual" in changed

    def touches(self, changed: Collection[str], *, new: bool) -> str:
        """Where its addresses lead."""
        return "addresses" if not new and {"catch_all", "aliases"} & set(changed) else ""

    def brief(self) -> Iterator[Brief]:
        """What it has besides its name."""
        yield from self.unusual("description", "catch_all", "aliases", "sub_addressing", sub_addressing=True)


@dataclass(frozen=True, slots=True)
class Group(Resource):
    """A shared mailbox of Stalwart; accounts say that they belong to it.

    ``name`` is the key in the YAML, which is its primary address; a live one without an address keeps its bare name.
    ``primary`` is False where a live one that is matched by its bare name has another primary address, or none.
    """

    target: ClassVar[str] = "stalwart"
    kind: ClassVar[str] = "group"
    identity: ClassVar[tuple[str, ...]] = ("name",)
    keeps_mail: ClassVar[bool] = True
    public: ClassVar[frozenset[str]] = frozenset({"aliases"})

    name: str
    description: str | Special | None = UNMANAGED
    aliases: tuple[str, ...] | Special = UNMANAGED
    primary: bool = True

    def __post_init__(self) -> None:
        """Addresses are stored in lower case; aliases have no order."""
        _normalise(self, name=self.name.lower(), aliases=_sorted(self.aliases))

    @property
    def address(self) -> str:
        """``group/NAME``."""
        return f"group/{self.name}"

    @property
    def mailboxes(self) -> tuple[str, ...]:
        """Its primary address, if it has one, and its aliases."""
        return _addresses(self.name, self.aliases)

    def requires(self, *, takes_over: bool) -> Iterator[str]:  # noqa: ARG002 (as its parent's)
        """A group relies on the domains of its addresses."""
        yield from _domains(self.name, self.aliases)

    def holds_back(self, changed: Collection[str], *, new: bool) -> bool:  # noqa: ARG002 (as its parent's)
        """A group has to be there."""
        return new

    def touches(self, changed: Collection[str], *, new: bool) -> str:
        """Its addresses."""
        return "addresses" if not new and "aliases" in changed else ""

    def brief(self) -> Iterator[Brief]:
        """What it has besides its address."""
        yield from self.unusual("description", "aliases")


BUILT_IN = frozenset({"user", "admin"})
"""The roles that every server has."""


@dataclass(frozen=True, slots=True)
class Account(Resource):
    """A login of Stalwart with its mailbox, or an administrator without an address.

    ``name`` is the key in the YAML (an e-mail address, or a bare name), ``email`` the primary address, ``login`` what
    one logs in with up to 0.15. A live account is matched to a declared one by login or by primary address, and takes
    its ``name``, so that a changed login or address is a change and not another account. ``aliases``, ``groups`` and
    ``roles`` are sorted; ``quota`` is in bytes, ``None`` is none. ``password`` is a reference when desired and a
    verdict when observed. ``locked`` is whether nobody may log in as it, while mail still arrives; ``locale`` is as
    ``de_DE``, ``None`` the server's default.
    """

    target: ClassVar[str] = "stalwart"
    kind: ClassVar[str] = "account"
    identity: ClassVar[tuple[str, ...]] = ("name",)
    keeps_mail: ClassVar[bool] = True
    secretive: ClassVar[tuple[str, ...]] = ("password",)
    public: ClassVar[frozenset[str]] = frozenset({"login", "email", "roles", "aliases", "groups"})

    name: str
    login: str | Special = UNMANAGED
    email: str | Special | None = UNMANAGED
    description: str | Special | None = UNMANAGED
    roles: tuple[str, ...] | Special = UNMANAGED
    aliases: tuple[str, ...] | Special = UNMANAGED
    groups: tuple[str, ...] | Special = UNMANAGED
    quota: int | Special | None = UNMANAGED
    password: SecretRef | Verdict | Special = UNMANAGED
    enforce_password: bool = field(default=True, compare=False)
    locked: bool | Special = UNMANAGED
    locale: str | Special | None = UNMANAGED

    def __post_init__(self) -> None:
        """Addresses and logins are stored in lower case (observed.md); lists have no order.

        Roles of one's own keep their case: from 0.16 two may differ by it alone.
        """
        lists = {name: _sorted(getattr(self, name)) for name in ("aliases", "groups")}
        if isinstance(self.roles, tuple):
            lists["roles"] = tuple(sorted(role.lower() if role.lower() in BUILT_IN else role for role in self.roles))
        _normalise(self, name=self.name.lower(), login=_lower(self.login), email=_lower(self.email), **lists)
        if isinstance(self.locale, str):
            _normalise(self, locale=self.locale.replace("-", "_"))

    @property
    def address(self) -> str:
        """``account/NAME``."""
        return f"account/{self.name}"

    @property
    def mailboxes(self) -> tuple[str, ...]:
        """Its primary address, if it has one, and its aliases."""
        return _addresses(self.email, self.aliases)

    def requires(self, *, takes_over: bool) -> Iterator[str]:  # noqa: ARG002 (as its parent's)
        """An account relies on the domains of its addresses, and on its groups."""
        yield from _domains(self.name, self.aliases)
        if isinstance(self.email, str):
            yield from _domains(self.email, ())
        yield from (f"group/{name}" for name in (self.groups if isinstance(self.groups, tuple) else ()))

    def values(self) -> Iterator[tuple[str, Any]]:
        """Leave the password of an account out whose owner may change it (``enforce_password: false``)."""
        for name in compared_fields(type(self)):
            if name != "password" or self.enforce_password:
                yield name, getattr(self, name)

    def touches(self, changed: Collection[str], *, new: bool) -> str:
        """Who gets in with what, and its addresses."""
        if new:
            return ""
        words = {"password": "password", "login": "login", "email": "addresses", "aliases": "addresses"}
        return next((word for name, word in words.items() if name in changed), "")

    def brief(self) -> Iterator[Brief]:
        """All that is not as with most accounts."""
        names = ("login", "email", "roles", "aliases", "groups", "quota", "password", "locked", "locale")
        login = self.name.partition("@")[0]
        yield from self.unusual(*names, login=login, email=self.name, roles=("user",), locked=False)


@dataclass(frozen=True, slots=True)
class MailingList(Resource):
    """An address of Stalwart whose mail goes to ``members``: addresses here and elsewhere, sorted.

    ``name`` and ``primary`` as of `Group`.
    """

    target: ClassVar[str] = "stalwart"
    kind: ClassVar[str] = "list"
    identity: ClassVar[tuple[str, ...]] = ("name",)
    public: ClassVar[frozenset[str]] = frozenset({"aliases", "members"})

    name: str
    description: str | Special | None = UNMANAGED
    aliases: tuple[str, ...] | Special = UNMANAGED
    members: tuple[str, ...] | Special = UNMANAGED
    primary: bool = True

    def __post_init__(self) -> None:
        """Addresses are compared in lower case; neither aliases nor members have an order."""
        _normalise(self, name=self.name.lower(), aliases=_sorted(self.aliases), members=_sorted(self.members))

    @property
    def address(self) -> str:
        """``list/NAME``."""
        return f"list/{self.name}"

    @property
    def mailboxes(self) -> tuple[str, ...]:
        """Its address and its aliases."""
        return _addresses(self.name, self.aliases)

    def requires(self, *, takes_over: bool) -> Iterator[str]:  # noqa: ARG002 (as its parent's)
        """A list relies on the domains of its addresses; its members need not exist."""
        yield from _domains(self.name, self.aliases)

    def touches(self, changed: Collection[str], *, new: bool) -> str:
        """Its addresses, and who gets its mail."""
        return "addresses" if not new and {"aliases", "members"} & set(changed) else ""

    def brief(self) -> Iterator[Brief]:
        """What it has besides its address."""
        yield from self.unusual("description", "aliases", "members")


@dataclass(frozen=True, slots=True)
class Signature(Resource):
    """A DKIM key that Stalwart signs with.

    ``public_key`` is the base64 of ``p=`` (RSA always as SubjectPublicKeyInfo), so keys are compared by it;
    ``private_key`` only says where the private half is when there is one to write. ``in_force`` as of `Setting`.
    ``since`` is the day from which it signs, as the directory says.
    """

    target: ClassVar[str] = "stalwart"
    kind: ClassVar[str] = "dkim"
    identity: ClassVar[tuple[str, ...]] = ("domain", "selector")
    public: ClassVar[frozenset[str]] = frozenset({"algorithm", "public_key"})

    domain: str
    selector: str
    algorithm: str  # ed25519 | rsa
    public_key: str | Special
    signs: bool | Special = True  # UNMANAGED where the server's rule is not the default
    private_key: SecretRef | None = field(default=None, compare=False)
    in_force: bool = True
    since: dt.date | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """A selector is a name of DNS, which has no case."""
        _normalise(self, selector=self.selector.lower())

    @property
    def address(self) -> str:
        """``dkim/DOMAIN/SELECTOR``."""
        return f"dkim/{self.domain}/{self.selector}"

    @property
    def host(self) -> str:
        """The full name of the record that publishes it."""
        return key_name(self.selector, self.domain)

    @property
    def waits(self) -> bool:
        """Never: what the server has yet to make is the key itself."""
        return False

    def set_by(self, field: str) -> Iterator[SecretRef]:
        """The private half goes with the public one, which it is compared by."""
        yield from references(self.private_key if field == "public_key" else getattr(self, field))

    def requires(self, *, takes_over: bool) -> Iterator[str]:
        """A key relies on its domain, and one that takes over on its TXT record."""
        yield f"domain/{self.domain}"
        if takes_over:
            yield f"TXT {self.host}"

    def precedes(self, gone: Resource, *, deleted: bool) -> bool:
        """A key goes on signing until the next one does, and its record stays until it signs no more."""
        if isinstance(gone, Signature):
            return not deleted and (self.domain, self.algorithm) == (gone.domain, gone.algorithm)
        return isinstance(gone, Record) and gone.host == self.host

    def touches(self, changed: Collection[str], *, new: bool) -> str:  # noqa: ARG002 (as its parent's)
        """What mail is signed with."""
        return "DKIM"

    def brief(self) -> Iterator[Brief]:
        """Its algorithm and the head of its public half."""
        yield Brief(self.algorithm)
        yield from () if self.signs else (Brief("does not sign"),)
        key = self.public_key
        # All keys of RSA begin alike.
        yield Brief(f"key …{key[-16:]}") if isinstance(key, str) else Brief("key ", "", key)


@dataclass(frozen=True, slots=True)
class Setting(Resource):
    """A neutral word of Stalwart's configuration (``hostname``, ``auto_ban/scan``), or ``settings/KEY``.

    ``None`` is "not set": the server's default holds. ``in_force`` is False where it is stored and the server is not
    known to go by it.
    """

    target: ClassVar[str] = "stalwart"
    kind: ClassVar[str] = "stalwart"
    identity: ClassVar[tuple[str, ...]] = ("word",)
    secretive: ClassVar[tuple[str, ...]] = ("value",)

    word: str
    value: Any
    in_force: bool = True

    @property
    def address(self) -> str:
        """``stalwart/WORD``."""
        return f"stalwart/{self.word}"

    def harmless(self, text: str) -> bool:
        """Whether it is an amount; a neutral word may be a host name, too. From 0.16 the server's types decide."""
        prefix, _, key = self.word.partition("/")
        if prefix in ("hostname", "default_domain"):
            return "." in text and is_name(text)
        return prefix != "objects" and is_measure(key, text)

    def touches(self, changed: Collection[str], *, new: bool) -> str:  # noqa: ARG002 (as its parent's)
        """The server's name, or what a raw setting is for."""
        return "setting" if "/" in self.word or self.word in ("hostname", "default_domain") else ""

    def brief(self) -> Iterator[Brief]:
        """Its value."""
        yield Brief("", "", self.value)


@dataclass(frozen=True, slots=True)
class AllowedIp(Resource):
    """A network that Stalwart never bans, in its canonical form (``172.18.0.0/16``); ``in_force`` as of `Setting`."""

    target: ClassVar[str] = "stalwart"
    kind: ClassVar[str] = "stalwart"
    identity: ClassVar[tuple[str, ...]] = ("network",)

    network: str
    in_force: bool = True

    def __post_init__(self) -> None:
        """``172.18.0.1/16`` is ``172.18.0.0/16``, and a single address a network of its own."""
        from ipaddress import ip_network

        _normalise(self, network=str(ip_network(self.network, strict=False)))

    @property
    def address(self) -> str:
        """``stalwart/allowed_ips/NETWORK``."""
        return f"stalwart/allowed_ips/{self.network}"


@dataclass(frozen=True, slots=True)
class Listener(Resource):
    """A port that Stalwart listens on. ``open`` is whether it answers: ``UNMANAGED`` where that can't be told.

    ``tls`` is whether TLS is spoken there at all, ``tls_disable`` which versions are not (``TLSv1.2``), and from
    ``proxy_networks`` (canonical) a connection begins with a PROXY header. ``tls_timeout`` is in seconds, buffers in
    bytes; None leaves an option of the socket to the system.
    """

    target: ClassVar[str] = "stalwart"
    kind: ClassVar[str] = "stalwart"
    identity: ClassVar[tuple[str, ...]] = ("name",)
    public: ClassVar[frozenset[str]] = frozenset(
        {"bind", "protocol", "tls_disable", "tls_disable_ciphers", "proxy_networks"}
    )
    USUAL: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "tls": True,
            "tls_disable": (),
            "tls_disable_ciphers": (),
            "tls_ignore_client_order": True,
            "tls_timeout": 60,
            "proxy_networks": (),
            "max_connections": 8192,
            "backlog": 1024,
            "no_delay": True,
            "reuse_address": True,
            "reuse_port": True,
            **dict.fromkeys(("send_buffer", "receive_buffer", "ttl", "tos")),
        }
    )
    """What holds where nothing is said (0.15.5: common/src/config/server/listener.rs; 0.16 by its schema)."""
    STOCK: ClassVar[frozenset[str]] = frozenset(
        (
            *("http", "https", "imap", "imaps", "imaptls", "pop3"),
            *("pop3s", "sieve", "smtp", "submission", "submissions"),
        )
    )
    """What those are called that a first start makes, of either generation (defaults.json of both)."""

    name: str
    bind: tuple[str, ...]
    protocol: str
    tls_implicit: bool = False
    open: bool | Special = True
    tls: bool | Special = UNMANAGED
    tls_disable: tuple[str, ...] | Special = UNMANAGED
    proxy_networks: tuple[str, ...] | Special = UNMANAGED
    max_connections: int | Special = UNMANAGED
    backlog: int | Special = UNMANAGED
    tls_disable_ciphers: tuple[str, ...] | Special = UNMANAGED
    tls_ignore_client_order: bool | Special = UNMANAGED
    tls_timeout: int | Special = UNMANAGED
    no_delay: bool | Special = UNMANAGED
    reuse_address: bool | Special = UNMANAGED
    reuse_port: bool | Special = UNMANAGED
    send_buffer: int | Special | None = UNMANAGED
    receive_buffer: int | Special | None = UNMANAGED
    ttl: int | Special | None = UNMANAGED
    tos: int | Special | None = UNMANAGED

    def __post_init__(self) -> None:
        """Neither addresses, nor networks, nor versions have an order."""
        _normalise(self, bind=tuple(sorted(self.bind)))
        if isinstance(self.proxy_networks, tuple):
            _normalise(self, proxy_networks=tuple(sorted(map(_network, self.proxy_networks))))
        for word in ("tls_disable", "tls_disable_ciphers"):
            if isinstance(value := getattr(self, word), tuple):
                _normalise(self, **{word: tuple(sorted(value))})

    @property
    def address(self) -> str:
        """``stalwart/listeners/NAME``."""
        return f"stalwart/listeners/{self.name}"

    def touches(self, changed: Collection[str], *, new: bool) -> str:  # noqa: ARG002 (as its parent's)
        """A port that mail or its readers come by."""
        return "listener"

    def brief(self) -> Iterator[Brief]:
        """What it speaks, and where."""
        yield Brief(f"{self.protocol} at {', '.join(self.bind)}")
        yield from (Brief("TLS from the start"),) if self.tls_implicit else ()
        yield from self.unusual(*self.USUAL, **self.USUAL)


@dataclass(frozen=True, slots=True)
class Login:
    """Where and as whom a consumer submits its mail: what the proof of credentials tries.

    ``account`` is the declared account whose login it is, if it is one of ours; ``provider`` whose server it is.
    Without a password nobody logs in. ``tls`` is ``starttls``, ``implicit`` or ``none``; empty is by the port.
    """

    host: str
    port: int
    username: str | SecretRef | Special | None
    password: SecretRef | None
    verify_tls: bool
    account: str | None = None
    provider: str = ""
    tls: str = ""


SECRET_FILES = "secrets/"  # noqa: S105 (a part of names)
"""Begins the name of a `Variable` that is the content of a compose secret's file."""


@dataclass(frozen=True, slots=True)
class Variable(Resource):
    """An environment variable of a compose service.

    ``running`` is what the running container has (``None``: the variable is not set or nothing runs), ``configured``
    what the compose file and the env file would give it. A desired variable has the same value in both. Where the
    value depends on the server's generation and holds a secret, ``candidates`` are the texts it may become. ``clear``
    are the accounts' passwords in it, of which a consumer needs the clear value. ``assumed`` is what the application
    goes by where the variable is not set at all, as far as that is known; ``by_tls`` whether it says the TLS mode of
    whatever provider is in use. A name ``secrets/NAME`` is no variable but the content of a compose secret's file.
    """

    target: ClassVar[str] = "compose"
    kind: ClassVar[str] = "smtp"
    identity: ClassVar[tuple[str, ...]] = ("service", "name")
    secretive: ClassVar[tuple[str, ...]] = ("running", "candidates")

    service: str
    name: str
    running: str | Secret | Verdict | Withheld | Special | None
    configured: str | Secret | Verdict | Withheld | Special | None
    login: Login | None = field(default=None, compare=False)
    candidates: tuple[Secret, ...] = field(default=(), compare=False)
    clear: tuple[SecretRef, ...] = field(default=(), compare=False)
    assumed: str | None = field(default=None, compare=False)
    by_tls: bool = field(default=False, compare=False)

    @property
    def secret(self) -> str:
        """The compose secret whose content it is; empty for an environment variable."""
        return self.name.removeprefix(SECRET_FILES) if self.name.startswith(SECRET_FILES) else ""

    @property
    def address(self) -> str:
        """``smtp/SERVICE/NAME``."""
        return f"smtp/{self.service}/{self.name}"

    def requires(self, *, takes_over: bool) -> Iterator[str]:  # noqa: ARG002 (as its parent's)
        """A consumer relies on the account that it logs in as."""
        if self.login is not None and self.login.account:
            yield f"account/{self.login.account}"

    def declared(self) -> Iterator[tuple[str, Any]]:
        """What it is set to, or may become: a directory says it once."""
        yield "configured", self.candidates or self.configured

    def set_by(self, field: str) -> Iterator[SecretRef]:
        """While its value is not known, the secrets of all that it may become."""
        value = getattr(self, field)
        yield from references(self.candidates if value is UNKNOWN else value)

    def was_judged_blind(self, early: Resource, live: Resource | None) -> bool:
        """Whether its value depended on the mail server's answer: what stands in its way was judged without it."""
        if not isinstance(early, Variable) or early.running is not UNKNOWN or self.running is UNKNOWN:
            return False
        if early.candidates or not isinstance(live, Variable):
            return True
        return (live.running, live.configured) != (self.running, self.configured)

    @property
    def company(self) -> tuple[str, ...]:
        """All variables of its service: host and password are switched together."""
        return ("smtp", self.service)

    def touches(self, changed: Collection[str], *, new: bool) -> str:  # noqa: ARG002 (as its parent's)
        """The provider that a service sends through, or what else it is given."""
        return "consumer" if self.login is None else "provider"

    def brief(self) -> Iterator[Brief]:
        """What it is set to."""
        yield Brief("", "", self.configured)


Shared = Group | MailingList
"""What several people stand behind: known by its primary address alone, and nobody logs in with it."""

Addressee = Account | Shared
"""What mail is sent to: it has a primary address, as a rule, and ``aliases``; an address has one of them."""


def _normalise(resource: Resource, **values: Any) -> None:
    """Set fields of a frozen resource while it is made: what means the same is equal from then on."""
    for name, value in values.items():
        object.__setattr__(resource, name, value)


def _network(text: str) -> str:
    """Write a network as all others are; what is live may be none, and stays as it is."""
    from ipaddress import ip_network

    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        return str(text)


def _addresses(primary: str | Special | None, aliases: tuple[str, ...] | Special) -> tuple[str, ...]:
    own = (primary,) if isinstance(primary, str) and "@" in primary else ()
    return (*own, *(aliases if isinstance(aliases, tuple) else ()))


def _domains(name: str, aliases: tuple[str, ...] | Special) -> Iterator[str]:
    """Yield what an owner of addresses relies on: their domains."""
    for item in (name, *(aliases if isinstance(aliases, tuple) else ())):
        yield f"domain/{item.rpartition('@')[2]}"


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _sorted(values: Any) -> Any:
    return tuple(sorted(_lower(value) for value in values)) if isinstance(values, tuple) else values


# The order of applying; removals go backwards. A phase is a run of neighbours of one target.
KINDS: tuple[type[Resource], ...] = (
    Record,
    Domain,
    Group,
    Account,
    MailingList,
    Signature,
    Setting,
    AllowedIp,
    Listener,
    Variable,
)


# ------------------------------------------------------------------------------------------------------- what is
@dataclass(frozen=True, slots=True)
class Live:
    """A resource that exists. ``id`` is the system's own name for it; ``owner`` the stack whose mark it bears.

    ``fixed`` says why it can't be changed by us (Cloudflare's Email Routing records), ``detail`` what only the
    target itself reads again when it applies a change. ``unread`` is whether its value could not be understood, so that
    nobody knows what it is like; it is ``fixed``, too.
    """

    resource: Resource
    id: str = ""
    owner: str | None = None
    fixed: str = ""
    detail: Any = None
    unread: bool = False


@dataclass(frozen=True, slots=True)
class Observation:
    """What one target found: live resources of its kinds, whosever they are, and what could not be read.

    ``unread`` names the scopes whose listing failed or can't be trusted: nothing is planned there. ``lost`` says that
    the system answered, its listing is complete, and nothing that is declared is there. ``head`` is what the plan's
    head says of the system; ``generation`` is ``rest`` or ``jmap`` for Stalwart; ``networks`` maps a compose network
    to its subnets. ``cause`` explains a loss where it can be seen. ``account`` is the `Live.id` of the account that
    the reconciler itself gets in as, as the server has it; ``login`` the name that got in, empty where a key did.
    """

    target: str
    live: Sequence[Live] = ()
    unread: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()
    head: tuple[str, ...] = ()
    lost: bool = False
    cause: tuple[Problem, ...] = ()
    generation: str | None = None
    networks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    account: str = ""
    login: str = ""

    @property
    def complete(self) -> bool:
        """Whether everything could be read."""
        return not self.unread
