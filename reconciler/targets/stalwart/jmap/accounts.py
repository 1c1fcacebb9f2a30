"""Writing domains and accounts to Stalwart from 0.16. An update names only what differs: nothing read is sent back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reconciler.plan import Change, differences
from reconciler.problem import SecretUnreadable
from reconciler.resources import Account, Domain, SecretRef
from reconciler.targets.stalwart.jmap.directory import (
    MANUAL,
    ROLES,
    TWO_WRITERS,
    Ids,
    Raw,
    address_of,
    aliases_of,
    automatic,
    password_key,
)
from reconciler.targets.stalwart.jmap.writes import Unwritable, Write
from reconciler.targets.stalwart.passwords import Hashes
from reconciler.targets.stalwart.work import unusable

_RELEASE, _USUAL, _TAKE_OVER = range(3)  # ranks: who takes a primary address over comes after who gives it up


def domain_write(change: Change, ids: Ids) -> Write:
    """Turn a change of a domain into a write. A domain made by us is manual in everything (traps.md 27 and 28)."""
    after, before = change.after, change.before
    if before is None:
        name = change.resource.name if isinstance(change.resource, Domain) else ""
        body = {"name": name, **dict.fromkeys((*TWO_WRITERS, "certificateManagement"), MANUAL)}
        return Write("Domain", "create", ids.make_domain(name), body, (change,))
    if after is None:
        return Write("Domain", "destroy", before.id, changes=(change,))
    return Write("Domain", "update", before.id, dict.fromkeys(automatic(before.detail), MANUAL), (change,))


class AccountWrites:
    """The changes of accounts of one run. ``domain`` is the default domain, in which bare names are."""

    def __init__(self, changes: Sequence[Change], ids: Ids, domain: str, hashes: Hashes) -> None:
        self._changes, self._ids, self._domain, self._hashes = changes, ids, domain, hashes
        self._takers = {item: change for change in changes for item in self._addresses(change) - _held(change)}
        self._left = {_primary(change): change for change in changes if _primary(change) not in self._addresses(change)}

    def writes(self) -> Iterator[Write | Unwritable]:
        """Yield the writes, in ranks: each address is unique, so it is given up before another account takes it."""
        for number, change in enumerate(self._changes):
            try:
                if change.after is None and change.before is not None:
                    yield Write("Account", "destroy", change.before.id, changes=(change,))
                elif change.before is None:
                    body = self._body(change.resource)
                    yield Write("Account", "create", f"a{number}", body, (change,), self._rank(change))
                else:
                    yield from self._update(change, change.before.id, change.before.detail)
            except (ValueError, SecretUnreadable) as error:
                yield Unwritable(change, unusable(change.address, error))

    def _addresses(self, change: Change) -> set[str]:
        """Return the addresses that an account has afterwards."""
        after = change.after
        if not isinstance(after, Account):
            return set()
        old = change.before.resource if change.before else None
        aliases = aliases_of(after) if isinstance(after.aliases, tuple) or not isinstance(old, Account) else old.aliases
        return {self._address(change), *(aliases if isinstance(aliases, tuple) else ())}

    def _address(self, change: Change) -> str:
        """Return the primary address afterwards: that of a bare name is left as it is."""
        after = change.resource
        if not isinstance(after, Account):
            raise TypeError(change.address)
        held = _primary(change)
        stays = held and not isinstance(after.email, str) and "name" not in change.fields
        return held if stays else address_of(after, self._domain)

    def _rank(self, change: Change) -> int:
        waits = any(self._left.get(item, change) is not change for item in self._addresses(change))
        return _TAKE_OVER if waits else _USUAL

    # --------------------------------------------------------------------------------------------------------- creating
    def _body(self, account: Any) -> dict[str, Any]:
        """Return what creates an account. Raises ValueError when a value can't be stored."""
        made: dict[str, Any] = {"@type": "User", **self._named(address_of(account, self._domain))}
        made["roles"] = self._roles(account.roles if isinstance(account.roles, tuple) else ("user",))
        if isinstance(account.password, SecretRef):
            made["credentials"] = {"0": self._credential(account, account.password)}
        if isinstance(account.description, str) and account.description:
            made["description"] = account.description
        if isinstance(account.quota, int):
            made["quotas"] = {"maxDiskQuota": account.quota}
        if aliases := aliases_of(account):
            made["aliases"] = {str(index): self._alias(item) for index, item in enumerate(aliases)}
        if isinstance(account.groups, tuple) and account.groups:
            made["memberGroupIds"] = {self._ids.group(name): True for name in account.groups}
        return made

    def _named(self, address: str) -> dict[str, Any]:
        """Return name and domain of an address; the name is only its local part."""
        local, _, domain = address.rpartition("@")
        if not local:
            raise ValueError("has no address: declare stalwart.default_domain")
        return {"name": local, "domainId": self._ids.the_domain(domain)}

    def _alias(self, address: str) -> dict[str, Any]:
        return {"enabled": True, **self._named(address)}

    def _credential(self, account: Account, ref: SecretRef) -> dict[str, Any]:
        """Return a hash, which the server stores as it is; a clear value would have to pass its strength test."""
        return {"@type": "Password", "secret": self._hashes.of(account, ref)}

    def _roles(self, names: Sequence[str]) -> dict[str, Any]:
        if len(names) == 1 and names[0] in ROLES:
            return {"@type": ROLES[names[0]]}
        return {"@type": "Custom", "roleIds": {self._ids.role(name): True for name in names}}

    # --------------------------------------------------------------------------------------------------------- changing
    def _update(self, change: Change, id: str, stored: Raw) -> Iterator[Write]:
        """Yield the write that changes an account, and before it one that gives up what another one waits for."""
        gone = _held(change) - self._addresses(change)
        early = {item for item in gone if self._takers.get(item, change) is not change}
        kept, patch = self._alias_patches(change, stored, early)
        if kept:
            yield Write("Account", "update", id, kept, rank=_RELEASE)
        patch |= self._patch(change, stored)
        if patch:
            yield Write("Account", "update", id, patch, (change,), self._rank(change))

    def _alias_patches(self, change: Change, stored: Raw, early: set[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the patches of aliases to be given up early, and the others; a disabled one is left alone."""
        after = change.after
        if not isinstance(after, Account) or not isinstance(after.aliases, tuple):
            return {}, {}
        aliases: Mapping[str, Raw] = stored.get("aliases") or {}
        places = {self._ids.address(item): key for key, item in aliases.items()}
        leaving = {
            address: f"aliases/{key}"
            for address, key in places.items()
            if address not in after.aliases and aliases[key].get("enabled", True)
        }
        patch: dict[str, Any] = {pointer: None for address, pointer in leaving.items() if address not in early}
        free = max((int(key) for key in aliases), default=-1) + 1
        for address in after.aliases:
            if address not in places:
                patch[f"aliases/{free}"] = self._alias(address)
                free += 1
            elif not aliases[places[address]].get("enabled", True):
                patch[f"aliases/{places[address]}/enabled"] = True
        return {pointer: None for address, pointer in leaving.items() if address in early}, patch

    def _patch(self, change: Change, stored: Raw) -> dict[str, Any]:
        """Return everything else that differs."""
        after, before = change.after, change.before
        if not isinstance(after, Account) or before is None:
            raise TypeError(change.address)
        changed = differences(after, before.resource)
        patch: dict[str, Any] = {}
        if (address := self._address(change)) != _primary(change):
            patch |= self._named(address)
        if "description" in changed:
            patch["description"] = after.description or None  # an empty text is invalid
        if "quota" in changed:
            patch["quotas/maxDiskQuota"] = after.quota
        if "roles" in changed and isinstance(after.roles, tuple):
            patch["roles"] = self._roles(after.roles)
        if "groups" in changed and isinstance(after.groups, tuple):
            want = {self._ids.group(name) for name in after.groups}
            have = set(stored.get("memberGroupIds") or {})
            patch |= {f"memberGroupIds/{item}": item in want or None for item in sorted(want ^ have)}
        if "password" in changed and isinstance(after.password, SecretRef):
            patch |= self._password(after, after.password, stored)
        return patch

    def _password(self, account: Account, ref: SecretRef, stored: Raw) -> dict[str, Any]:
        """Return the patch of the password alone: other credentials are the person's own, and read masked."""
        key = password_key(stored)
        if key is not None:
            return {f"credentials/{key}/secret": self._hashes.of(account, ref)}
        free = max((int(item) for item in stored.get("credentials") or {}), default=-1) + 1
        return {f"credentials/{free}": self._credential(account, ref)}


def _primary(change: Change) -> str:
    """Return the primary address before a change; empty where there is no account yet."""
    before = change.before.resource if change.before else None
    return before.email if isinstance(before, Account) and isinstance(before.email, str) else ""


def _held(change: Change) -> set[str]:
    """Return the addresses that an account has before a change."""
    before = change.before.resource if change.before else None
    return {_primary(change), *aliases_of(before)} if isinstance(before, Account) else set()
