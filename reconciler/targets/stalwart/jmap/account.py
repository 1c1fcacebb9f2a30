"""Accounts of Stalwart from 0.16. An update names only what differs: nothing read is sent back."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reconciler.desired.objects import TYPE
from reconciler.problem import Problem, SecretUnreadable, Severity
from reconciler.resources import UNMANAGED, Account, Different, Live, Resource, SecretRef, Special, Verdict
from reconciler.target import Change, Report, Reveal
from reconciler.targets.stalwart import passwords
from reconciler.targets.stalwart.connection import Connection, Credentials
from reconciler.targets.stalwart.jmap.api import Kind
from reconciler.targets.stalwart.jmap.kind import ROLES, Ids, Raw, Reading, ResourceKind
from reconciler.targets.stalwart.jmap.passwords import PasswordChecks, try_login
from reconciler.targets.stalwart.jmap.writes import Unwritable, Write
from reconciler.targets.stalwart.survey import Omissions, fit
from reconciler.targets.stalwart.work import unusable

_RELEASE, _USUAL, _TAKE_OVER = range(3)  # ranks: who takes a primary address over comes after who gives it up
_READ = ("@type", "name", "domainId", "credentials", "memberGroupIds", "roles", "quotas", "aliases", "description")
_PLAIN: Raw = {
    "locale": "en_US",
    "timeZone": None,
    "permissions": {TYPE: "Inherit"},
    "encryptionAtRest": {TYPE: "Disabled"},
}
"""What an account has that was only made; anything else can't be declared."""


class AccountKind(ResourceKind):
    """Accounts of people and services; groups, which are of the same kind to the server, are none."""

    resource = Account
    objects = (
        Kind("Account", properties=_READ),
        Kind("Domain", properties=("name",)),
        Kind("Role", properties=("description",)),
        Kind("SystemSettings", singleton=True, properties=("defaultDomainId",)),
    )
    surveyed = (Kind("Account", properties=tuple(_PLAIN)),)

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield all accounts, those that are wanted under their names there."""
        return _Accounts(reading).live()

    def writes(self, changes: Sequence[Change], reading: Reading) -> Iterator[Write | Unwritable]:
        """Yield the writes, in ranks: each address is unique, so it is given up before another account takes it."""
        return _Writing(changes, reading).writes()

    def is_same(self, before: Live, now: Live | None) -> bool:
        """Whether an id is still that of the account with this address, whatever the directory calls it."""
        return now is not None and _email(now.resource) == _email(before.resource)

    def survey(self, reading: Reading, live: Sequence[Live], out: Omissions) -> Iterator[Live]:
        """Note what else an account has. A quota of 0 is none, and nothing else that could be declared."""
        for item in reading.items("Account"):
            _note(reading.ids.address(item), item, out)
        for found in fit(live, "jmap", out):
            account = found.resource
            if isinstance(account, Account):
                yield replace(found, resource=replace(account, quota=account.quota or None))


def _note(address: str, item: Raw, out: Omissions) -> None:
    if item.get(TYPE) == "Group":
        hint = "make them on a new server before you apply: accounts may be in them"
        out.note(address, "groups can't be declared", hint)
        return
    out.options(address, item, _PLAIN)
    credentials = [str(it.get(TYPE)) for it in (item.get("credentials") or {}).values()]
    for kind in sorted(set(credentials) - {"Password"}):
        hint = "whoever owns the account makes new ones on a new server"
        out.note(address, f"credentials of the type {kind} can't be declared", hint)
    if any(not alias.get("enabled", True) for alias in (item.get("aliases") or {}).values()):
        out.note(address, "aliases that are disabled are not imported", "delete or enable them")


# ----------------------------------------------------------------------------------------------------------- reading
class _Accounts:
    """The accounts of one reading, matched to those that are wanted."""

    def __init__(self, reading: Reading) -> None:
        self._reading, self._ids, self._domain = reading, reading.ids, reading.domain
        self._found = {self._ids.address(it): it for it in reading.items("Account") if it.get(TYPE) == "User"}
        self._wanted: dict[str, Account] = {}  # by the address that is live
        self._missing: list[Account] = []
        for account in reading.of(Account):
            address = self._live_address(account)
            if address is not None and address not in self._wanted:
                self._wanted[address] = account
            else:
                self._missing.append(account)

    def _live_address(self, account: Account) -> str | None:
        """Say where a wanted account is; a bare name may still be in the domain that was the default one."""
        addresses = [_address_of(account, self._domain)]
        if "@" not in account.name:
            addresses.append(f"{account.name}@{self._ids.default_domain}")
        return next((item for item in addresses if item in self._found), None)

    def live(self) -> Iterator[Live]:
        """Yield accounts, and report what stands in the way of those that are wanted."""
        for address, item in self._found.items():
            yield Live(self._account(address, item), id=str(item["id"]), detail=item)
        for account in (*self._wanted.values(), *self._missing):
            for summary, hint in self._objections(account):
                self._reading.report(Problem(account.address, summary, hint, scope=account.address))

    def _account(self, address: str, item: Raw) -> Account:
        wanted = self._wanted.get(address)
        known = wanted.groups if wanted and isinstance(wanted.groups, tuple) else ()
        return Account(
            name=wanted.name if wanted else address,
            login=UNMANAGED if wanted else address,  # one logs in with the address
            email=address,
            description=item.get("description") or None,
            roles=self._roles(item.get("roles") or {}),
            aliases=tuple(
                self._ids.address(alias) for alias in (item.get("aliases") or {}).values() if alias.get("enabled", True)
            ),
            groups=self._ids.group_names(item.get("memberGroupIds") or {}, known),
            quota=(item.get("quotas") or {}).get("maxDiskQuota"),
            password=self._verdict(wanted, address, item),
        )

    def _roles(self, roles: Raw) -> tuple[str, ...]:
        if roles.get("@type") == "Custom":
            return tuple(self._ids.role_names(roles.get("roleIds") or {}))
        return (str(roles.get("@type") or "user").lower(),)

    def _verdict(self, wanted: Account | None, address: str, item: Raw) -> Verdict | Special:
        if wanted is None or not isinstance(wanted.password, SecretRef) or not wanted.enforce_password:
            return UNMANAGED
        return self._reading.judge(wanted, address) if _password_key(item) is not None else Different()

    def _objections(self, account: Account) -> Iterator[tuple[str, str]]:
        """Say what an account asks for that the server can't give."""
        address = _address_of(account, self._domain)
        if "@" not in address:
            yield (
                "from 0.16 every account has an address, and the server has no default domain",
                "declare stalwart.default_domain: its address is then there",
            )
        clash = self._wanted.get(address)
        if clash is not None and clash is not account:
            yield f"{clash.name} is the same account from 0.16: {address}", "declare one of them"
        for item in sorted({address, *_aliases_of(account)} & self._ids.groups()):
            yield f"{item} is the address of a group on the server", "take another address, or rename the group"
        for resolve, names in ((self._ids.group, account.groups), (self._role, account.roles)):
            for name in names if isinstance(names, tuple) else ():
                try:
                    resolve(name)
                except ValueError as error:
                    yield str(error), "make it on the server: groups and roles are not kept here"

    def _role(self, name: str) -> str:
        return "" if name in ROLES else self._ids.role(name)


def _address_of(account: Account, domain: str) -> str:
    """Return the primary address of a wanted account; a bare name is an address in the default domain."""
    if isinstance(account.email, str):
        return account.email
    return account.name if "@" in account.name or not domain else f"{account.name}@{domain}"


def _aliases_of(account: Account) -> tuple[str, ...]:
    """Return the aliases of an account as far as they are managed."""
    return account.aliases if isinstance(account.aliases, tuple) else ()


def _password_key(item: Raw) -> str | None:
    """Name the place of the password among the credentials: app passwords and API keys are the person's own."""
    credentials: Mapping[str, Raw] = item.get("credentials") or {}
    return next((key for key, value in credentials.items() if value.get("@type") == "Password"), None)


# ----------------------------------------------------------------------------------------------------------- writing
class _Writing:
    """The changes of accounts of one run."""

    def __init__(self, changes: Sequence[Change], reading: Reading) -> None:
        self._changes = changes
        self._hashes = passwords.Hashes(changes, reading.reveal, reading.progress)
        self._ids: Ids = reading.ids
        self._domain = reading.domain  # in which bare names are
        self._takers = {item: change for change in changes for item in self._addresses(change) - _held(change)}
        self._left = {_primary(change): change for change in changes if _primary(change) not in self._addresses(change)}

    def writes(self) -> Iterator[Write | Unwritable]:
        """Yield the writes of each change."""
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
        aliases = (
            _aliases_of(after) if isinstance(after.aliases, tuple) or not isinstance(old, Account) else old.aliases
        )
        return {_address(change, self._domain), *(aliases if isinstance(aliases, tuple) else ())}

    def _rank(self, change: Change) -> int:
        waits = any(self._left.get(item, change) is not change for item in self._addresses(change))
        return _TAKE_OVER if waits else _USUAL

    # --------------------------------------------------------------------------------------------------------- creating
    def _body(self, account: Any) -> dict[str, Any]:
        """Return what creates an account. Raises ValueError when a value can't be stored."""
        made: dict[str, Any] = {"@type": "User", **self._ids.named(_address_of(account, self._domain))}
        made["roles"] = self._roles(account.roles if isinstance(account.roles, tuple) else ("user",))
        if isinstance(account.password, SecretRef):
            made["credentials"] = {"0": self._credential(account, account.password)}
        if isinstance(account.description, str) and account.description:
            made["description"] = account.description
        if isinstance(account.quota, int):
            made["quotas"] = {"maxDiskQuota": account.quota}
        if aliases := _aliases_of(account):
            made["aliases"] = {str(index): self._alias(item) for index, item in enumerate(aliases)}
        if isinstance(account.groups, tuple) and account.groups:
            made["memberGroupIds"] = {self._ids.group(name): True for name in account.groups}
        return made

    def _alias(self, address: str) -> dict[str, Any]:
        return {"enabled": True, **self._ids.named(address)}

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
        after, changed = change.after, change.fields
        if not isinstance(after, Account):
            raise TypeError(change.address)
        patch: dict[str, Any] = {}
        if (address := _address(change, self._domain)) != _primary(change):
            patch |= self._ids.named(address)
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
        key = _password_key(stored)
        if key is not None:
            return {f"credentials/{key}/secret": self._hashes.of(account, ref)}
        free = max((int(item) for item in stored.get("credentials") or {}), default=-1) + 1
        return {f"credentials/{free}": self._credential(account, ref)}


def _primary(change: Change) -> str:
    """Return the primary address before a change; empty where there is no account yet."""
    return _email(change.before.resource) if change.before else ""


def _address(change: Change, domain: str) -> str:
    """Return the primary address after a change: that of a bare name is left as it is."""
    after = change.resource
    if not isinstance(after, Account):
        raise TypeError(change.address)
    held = _primary(change)
    stays = held and not isinstance(after.email, str) and "name" not in change.fields
    return held if stays else _address_of(after, domain)


def _email(resource: Resource) -> str:
    """Return the primary address of a live account."""
    return resource.email if isinstance(resource, Account) and isinstance(resource.email, str) else ""


def _held(change: Change) -> set[str]:
    """Return the addresses that an account has before a change."""
    before = change.before.resource if change.before else None
    return {_primary(change), *_aliases_of(before)} if isinstance(before, Account) else set()


# --------------------------------------------------------------------------------------------------------- passwords
def unknown_administrator(connection: Connection, wanted: Sequence[Resource]) -> Problem | None:
    """Warn where the declared login was refused and no declared account is it: apply would never make it work."""
    login = connection.login
    declared = {item.name for item in wanted if isinstance(item, Account)}
    if (
        login.accepted is None
        or login.accepted.source not in ("recovery", "saved")
        or declared & {login.name, login.username}
    ):
        return None
    hint = f"declare accounts.{login.username} with `roles: [admin]` and that password, or correct targets.stalwart"
    summary = f"does not take the declared password of {login.name}"
    return replace(connection.problem(summary, hint), severity=Severity.WARNING, scope="")


@dataclass(frozen=True, slots=True)
class Passwords:
    """What is known of passwords, and from whom: the server shows none."""

    connection: Connection
    checks: PasswordChecks
    reveal: Reveal
    report: Report
    container: str

    def verdict(self, account: Account, address: str) -> Verdict:
        """Judge a wanted account's password; one that can't be read or stored is reported."""
        ref = account.password
        value = passwords.revealed(account, ref, self.reveal, self.report) if isinstance(ref, SecretRef) else None
        if value is None or not isinstance(ref, SecretRef):
            return passwords.UNUSABLE
        login = self.connection.login
        if address == login.name.lower():  # who we are was told by the server just now
            if login.accepted == Credentials(login.name, value):
                self.checks.answered(address, value, self.container, accepted=True)
            elif Credentials(login.name, value).digest in login.refused:
                self.checks.answered(address, value, self.container, accepted=False)
        attempt = functools.partial(try_login, self.connection)
        return self.checks.verdict(address, ref, self.reveal, attempt, self.container)

    def written(self, change: Change, domain: str) -> None:
        """Remember that a password was written; our own is tried first from the next request on."""
        account = change.after
        if not isinstance(account, Account) or not isinstance(account.password, SecretRef):
            return
        if change.before is None or "password" in change.fields:
            self.checks.written(_address(change, domain), self.reveal(account.password), self.container)
            self.renew(change, domain)

    def renew(self, change: Change, domain: str) -> None:
        """Try all passwords again where our own account was, or may have been, written."""
        login = self.connection.login
        if isinstance(change.after, Account) and _address(change, domain) == login.name.lower():
            login.renewed()
