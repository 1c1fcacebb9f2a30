"""E-mail addresses of accounts, groups and lists from 0.16: one space over all of them, and how aliases are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.problem import Problem
from reconciler.resources import Account, Addressee, Resource
from reconciler.target import Change
from reconciler.targets.stalwart.jmap.batch import RELEASE, Write
from reconciler.targets.stalwart.jmap.kind import Ids, Raw, Reading
from reconciler.targets.stalwart.survey import Omissions, is_sayable

USUAL, TAKE_OVER, JOIN = range(3)
"""Ranks: who takes a primary address over comes after who leaves it, and who joins a new group after that."""

UNIQUE = "addresses are unique over accounts, groups and mailing lists: plan again, or take another one"
"""What to do where the server has an address already."""


def aliases_of(resource: Resource | None) -> tuple[str, ...]:
    """Return the aliases of an account, a group or a list as far as they are managed."""
    aliases = getattr(resource, "aliases", ()) if isinstance(resource, Addressee) else ()
    return aliases if isinstance(aliases, tuple) else ()


def primary_of(resource: Resource | None, domain: str = "") -> str:
    """Return the primary address of one of them; a bare name is an address in the default domain."""
    if isinstance(resource, Account) and isinstance(resource.email, str):
        return resource.email
    if not isinstance(resource, Addressee):
        return ""
    return resource.name if "@" in resource.name or not domain else f"{resource.name}@{domain}"


def primary_before(change: Change) -> str:
    """Return the primary address before a change; empty where nothing is there yet."""
    return primary_of(change.before.resource) if change.before else ""


def primary_after(change: Change, domain: str) -> str:
    """Return the primary address after a change: that of a bare name is left as it is."""
    after, held = change.resource, primary_before(change)
    stays = held and not isinstance(getattr(after, "email", None), str) and "name" not in change.fields
    return held if stays else primary_of(after, domain)


def aliases_in(item: Raw, ids: Ids) -> tuple[str, ...]:
    """Return the addresses of the aliases that an object has, but those that are disabled or that nobody can say."""
    aliases: Mapping[str, Raw] = item.get("aliases") or {}
    enabled = (ids.address(alias) for alias in aliases.values() if alias.get("enabled", True))
    return tuple(address for address in enabled if is_sayable(address))


def note_disabled(address: str, item: Raw, out: Omissions) -> None:
    """Note for an import that an object has aliases which are disabled."""
    if any(not alias.get("enabled", True) for alias in (item.get("aliases") or {}).values()):
        out.note(address, "aliases that are disabled are not imported", "delete or enable them")
    for alias in (item.get("aliases") or {}).values():
        if not is_sayable(f"{alias.get('name')}@x"):
            out.note(address, "has aliases that can't be declared", "leave them: nothing touches them")


def hidden_conflicts(reading: Reading) -> Iterator[Problem]:
    """Report wanted addresses that a disabled alias has: it gets no mail, and keeps its address all the same."""
    holders: dict[str, str] = {}
    for item in (*reading.items("Account"), *reading.items("MailingList")):
        for alias in (item.get("aliases") or {}).values():
            if not alias.get("enabled", True):
                holders[reading.ids.address(alias)] = reading.ids.address(item)
    for wanted in reading.wanted if holders else ():
        own = primary_of(wanted, reading.domain)
        for address in {own, *aliases_of(wanted)} if isinstance(wanted, Addressee) else ():
            holder = holders.get(address)
            if holder is not None and holder != own:
                summary = f"{address} is an alias of {holder}, disabled there, which keeps the address all the same"
                hint = f"delete that alias on the server, or declare it among the aliases of {holder}"
                yield Problem(wanted.address, summary, hint, scope=wanted.address)


class Transfers:
    """The addresses that change hands in one run: each is given up before another takes it."""

    def __init__(self, reading: Reading) -> None:
        """See who takes which address, and who leaves his own."""
        self._ids, self._domain = reading.ids, reading.domain
        changes = reading.changes
        self._takers = {it: change for change in changes for it in self._after(change) - _before(change)}
        self._left = {own: change for change in changes if (own := primary_before(change)) not in self._after(change)}

    def _waited_for(self, change: Change) -> bool:
        """Whether a change gives up an alias that another one takes."""
        gone = _before(change) - self._after(change) - {primary_before(change)}
        return any(self._takers.get(item, change) is not change for item in gone)

    def rank(self, change: Change) -> int:
        """Say whether a change has to wait for another one that leaves its primary address."""
        waits = any(self._left.get(item, change) is not change for item in self._after(change))
        return TAKE_OVER if waits else USUAL

    def updates(self, object: str, change: Change, others: Raw) -> Iterator[Write]:
        """Yield the write that changes one, and before it one that gives up what another waits for.

        ``object`` is the server's name of its kind, ``others`` the patch of what it has beside address, description
        and aliases. Raises ValueError as `Ids.named`.
        """
        key, stored = (change.before.id, change.before.detail) if change.before else ("", {})
        patch: dict[str, Any] = {}
        if (address := primary_after(change, self._domain)) != primary_before(change):
            patch |= self._ids.named(address)
        if "description" in change.fields:
            patch["description"] = getattr(change.after, "description", None) or None  # an empty text is invalid
        first, added = _alias_patches(change, stored, self._ids)
        if self._waited_for(change):
            yield Write(object, "update", key, first, (change,), RELEASE)
            first = {}
        if patch := {**first, **added, **patch, **others}:
            yield Write(object, "update", key, patch, (change,), self.rank(change))

    def _after(self, change: Change) -> set[str]:
        """Return the addresses that one has after a change; aliases that are not managed stay."""
        after = change.after
        if not isinstance(after, Addressee):
            return set()
        managed = isinstance(after.aliases, tuple) or change.before is None
        aliases = aliases_of(after if managed or change.before is None else change.before.resource)
        return {primary_after(change, self._domain), *aliases}


def _before(change: Change) -> set[str]:
    """Return the addresses that one has before a change."""
    before = change.before.resource if change.before else None
    return {primary_of(before), *aliases_of(before)} if isinstance(before, Addressee) else set()


# ------------------------------------------------------------------------------------------------------------ writing
def body(resource: Any, ids: Ids, domain: str = "") -> dict[str, Any]:
    """Return name, domain, description and aliases of one that is made. Raises ValueError as `Ids.named`."""
    made = ids.named(primary_of(resource, domain))
    if isinstance(resource.description, str) and resource.description:
        made["description"] = resource.description
    if aliases := aliases_of(resource):
        made["aliases"] = {str(index): _alias(item, ids) for index, item in enumerate(aliases)}
    return made


def _alias_patches(change: Change, stored: Raw, ids: Ids) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the patches of aliases that are there, and of new ones; a disabled one is left alone.

    The server numbers aliases anew with each write, so those of the first must all be made at once.
    """
    after = change.after
    if not isinstance(after, Addressee) or not isinstance(after.aliases, tuple):
        return {}, {}
    aliases: Mapping[str, Raw] = stored.get("aliases") or {}
    places = {ids.address(item): key for key, item in aliases.items()}
    first: dict[str, Any] = {}
    for address, key in places.items():
        enabled, wanted = aliases[key].get("enabled", True), address in after.aliases
        if wanted and not enabled:
            first[f"aliases/{key}/enabled"] = True
        elif enabled and not wanted and is_sayable(address):
            first[f"aliases/{key}"] = None
    free = max((int(key) for key in aliases), default=-1) + 1
    new = [address for address in after.aliases if address not in places]
    return first, {f"aliases/{free + index}": _alias(address, ids) for index, address in enumerate(new)}


def _alias(address: str, ids: Ids) -> dict[str, Any]:
    return {"enabled": True, **ids.named(address)}
