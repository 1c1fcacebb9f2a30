"""What ``import`` learns of one Stalwart server, of either generation: what it has, in the words of the directory."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_args

from reconciler import http
from reconciler.desired.spec.mail import LIMITS
from reconciler.problem import Problem, Refused, Severity
from reconciler.resources import (
    UNMANAGED,
    Account,
    Domain,
    Listener,
    Live,
    Resource,
    Setting,
    Signature,
)
from reconciler.targets.stalwart.connection import TARGET
from reconciler.targets.stalwart.schema import same_locale

Objects = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""The server's own objects in the shape of ``stalwart.objects``: kind, name (``singleton``), property, value."""

_NAMED = 5  # how many of a kind a warning names


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything of one server that a directory can declare, as `Stalwart.observe` would compare it.

    ``live`` are domains, groups, accounts, lists, keys that sign, neutral words (never None), allowed addresses, and
    listeners that a fresh server does not have. ``hashes`` are passwords as stored by account name, ``private_keys``
    PEMs by the signature's address: 0.16 shows neither. ``settings`` (up to 0.15) are the raw keys that differ from a
    fresh server's, None where it has one that is not here; ``secrets`` those of them whose values are secrets.
    ``objects`` (from 0.16) are the properties that differ, secrets among them `Withheld`. ``removed`` are the addresses
    of listeners that a fresh server has and this one has not. ``omitted`` are warnings of what is not in the rest.
    """

    generation: str
    live: tuple[Live, ...] = ()
    hashes: Mapping[str, str] = field(default_factory=dict, repr=False)
    private_keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    settings: Mapping[str, str | None] = field(default_factory=dict)
    objects: Objects = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    removed: tuple[str, ...] = ()
    omitted: tuple[Problem, ...] = ()


class Omissions:
    """What is left out, gathered: one warning for all of a kind, in the order in which they were found."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._told: list[Problem] = []
        self._kinds: dict[tuple[str, str], list[str]] = {}

    def tell(self, problem: Problem) -> None:
        """Note a problem that something else has found: to an import it is a warning."""
        self._told.append(replace(problem, severity=Severity.WARNING, scope=""))

    def note(self, name: str, why: str, hint: str) -> None:
        """Note one thing by its name; ``why`` and ``hint`` are those of its kind."""
        self._kinds.setdefault((why, hint), []).append(name)

    def options(self, name: str, item: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
        """Note the properties of one thing that are not as usual, and that nothing in the directory can say."""
        for key, value in usual.items():
            same = key not in item or item[key] == value or same_locale(str(item[key]), str(value))
            if not same and (item[key] or value):
                hint = "set it again on a new server"
                self.note(name, f"its {key} can't be declared", LIMITS if key == "permissions" else hint)

    def problems(self) -> tuple[Problem, ...]:
        """Return the warnings: how many of each kind there are, and a few names."""
        counted = (
            Problem(self._where, f"{_listed(names)} {why}", hint, Severity.WARNING)
            for (why, hint), names in self._kinds.items()
        )
        return (*self._told, *counted)


def _listed(names: Sequence[str]) -> str:
    """Name a few, and count the others: what comes from the server is shown in one line."""
    shown = [_shown(name) for name in dict.fromkeys(names)]
    more = f" and {len(shown) - _NAMED} more" if len(shown) > _NAMED else ""
    return f"{', '.join(shown[:_NAMED])}{more}:"


_OPTIONAL = ("aliases", "quota", "description", "groups", "members", "catch_all", "locale")
"""What could stay undeclared of a thing, so that the rest of it can be declared."""


def fit(live: Iterable[Live], generation: str, omissions: Omissions) -> Iterator[Live]:
    """Yield what the directory has words for, and note the rest: one value that can't be said costs no other one."""
    for item in live:
        resource = item.resource
        unread = isinstance(resource, Signature) and not isinstance(resource.public_key, str)  # its kind tells of it
        why = None if unread else unfit(resource, generation)
        if why is None:
            yield item
            continue
        optional = [name for name in _OPTIONAL if hasattr(resource, name)]
        bare = replace(resource, **dict.fromkeys(optional, UNMANAGED))
        if unfit(bare, generation) is not None:
            hint = "rename it on the server, or leave it as it is: nothing touches it"
            omissions.note(resource.address, f"can't be declared: its name, or part of it, {why}", hint)
            continue
        kept = {name: _sayable(bare, name, getattr(resource, name), generation, omissions) for name in optional}
        yield replace(item, resource=replace(bare, **kept))


def _sayable(bare: Any, name: str, value: Any, generation: str, omissions: Omissions) -> Any:
    """Return what of one value the directory has words for, and note the rest."""
    parts = value if isinstance(value, tuple) else (value,)
    wrong = {part: unfit(replace(bare, **{name: (part,) if parts is value else part}), generation) for part in parts}
    hint = "change them on the server, or leave them: nothing touches them, and a restore does not know them"
    for part, why in wrong.items():
        if why is not None:
            shown = f": {_shown(part)}" if parts is value else ""
            omissions.note(bare.address, f"its {name} can't be declared ({why}){shown}", hint)
    left = tuple(part for part in parts if wrong[part] is None)
    if not left and parts:
        return UNMANAGED
    return left if parts is value else left[0]


def unremarkable(account: Account) -> Account:
    """Leave out of an account what every one has that nobody said anything of: open, and in the server's language."""
    locked = UNMANAGED if account.locked is False else account.locked
    return replace(account, locked=locked, locale=UNMANAGED if account.locale is None else account.locale)


def _shown(part: Any) -> str:
    return http.short(" ".join(str(part).split()), 80)


@functools.cache
def is_sayable(address: str) -> bool:
    """Whether the directory has words for an e-mail address: one that it has not is nobody's to change."""
    from pydantic import ValidationError

    try:
        _emails().validate_python(address)
    except ValidationError:
        return False
    return address.rpartition("@")[2].isascii()


@functools.cache
def _emails() -> Any:
    from pydantic import TypeAdapter

    from reconciler.desired.spec.scalars import Email

    return TypeAdapter[Any](Email)


def refuse_empty(where: str, live: Iterable[Live]) -> None:
    """Raise `Refused` where a server holds nothing to import: it is new, or has lost everything."""
    resources = [item.resource for item in live]
    if any(isinstance(item, Domain) for item in resources):
        return
    if any(isinstance(item, Account) and "admin" not in _roles(item) for item in resources):
        return
    summary = "has no domain and no account: it is new, or has lost everything"
    hint = "restore it first (reconciler apply, or a backup), or check the url; an import would write down nothing"
    raise Refused(Problem(where, summary, hint, Severity.REFUSED, TARGET))


def _roles(account: Account) -> tuple[str, ...]:
    return account.roles if isinstance(account.roles, tuple) else ()


# --------------------------------------------------------------------------------------------- what can be declared
def unfit(resource: Resource, generation: str) -> str | None:
    """Say why the directory could not declare a live resource just so; None where it can."""
    from pydantic import ValidationError

    from reconciler.desired.spec.scalars import is_free
    from reconciler.desired.yaml import is_text

    try:
        _validate(resource, generation)
    except ValidationError as error:
        found = error.errors()[0]
        return str(found.get("ctx", {}).get("errors", [((), found["msg"], "")])[0][1])
    if is_free(resource.domain if isinstance(resource, Signature) else getattr(resource, "name", "")):
        return "begins with x-, as what is free for anchors in the directory does"
    if not all(map(is_text, _texts(resource))):
        return "holds a NUL or half a character"
    domain = getattr(resource, "name", "").rpartition("@")[2] if _form(resource.kind) else ""
    return None if domain.isascii() else "is not written as DNS has it"


def _texts(resource: Resource) -> Iterator[str]:
    values = (getattr(resource, item.name) for item in fields(resource))
    parts = (part for value in values for part in (value if isinstance(value, tuple) else (value,)))
    yield from (part for part in parts if isinstance(part, str))


def _validate(resource: Resource, generation: str) -> None:
    """Hold a resource against the model of what a person would write. Raises `pydantic.ValidationError`."""
    from pydantic import TypeAdapter

    from reconciler.desired.spec.mail import Key
    from reconciler.desired.spec.scalars import DomainName
    from reconciler.desired.spec.stalwart import ListenerEntry

    match resource:
        case Signature():
            TypeAdapter[Any](DomainName).validate_python(resource.domain)
            names = ("selector", "algorithm", "public_key")
            Key.model_validate({name: getattr(resource, name) for name in names})
        case Listener():
            ListenerEntry.model_validate({"bind": list(resource.bind), "protocol": resource.protocol})
        case Setting(word="hostname" | "default_domain", value=str() as name):
            TypeAdapter[Any](DomainName).validate_python(name)
        case _ if (form := _form(resource.kind)) is not None:
            name, entry = form
            name.validate_python(getattr(resource, "name", ""))
            said = {key: getattr(resource, key, UNMANAGED) for key in entry.model_fields}
            usual = getattr(resource, "name", "").rpartition("@")[0] or getattr(resource, "name", "")
            if generation != "rest" or said.get("login") == usual:  # from 0.16 it is the address
                said["login"] = UNMANAGED
            known = {key: value for key, value in said.items() if type(value) in (str, int, tuple)}
            entry.model_validate({key: _written(value) for key, value in known.items()})


@functools.cache
def _form(kind: str) -> tuple[Any, Any] | None:
    """Return how the directory has things of a kind that have a map of their own: their names, and an entry's model."""
    from pydantic import TypeAdapter

    from reconciler.desired.spec import Spec

    field = Spec.model_fields.get(f"{kind}s")
    if field is None:
        return None
    name, entry = get_args(field.annotation)
    return TypeAdapter(name), entry


def _written(value: Any) -> Any:
    """Write a value as the YAML has it: lists and text."""
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, int) and value else value or None


def is_lost(wanted: Iterable[Resource], live: Iterable[Live]) -> bool:
    """Whether nothing of what is declared is there: domains, accounts and signatures together."""
    kinds = (Domain, Account, Signature)
    declared = {item.address for item in wanted if isinstance(item, kinds)}
    return bool(declared) and not declared & {item.resource.address for item in live}
