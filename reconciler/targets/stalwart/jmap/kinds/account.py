"""Accounts of Stalwart from 0.16. An update names only what differs: nothing read is sent back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reconciler.desired.objects import TYPE
from reconciler.problem import Problem, SecretUnreadable, Severity
from reconciler.resources import UNMANAGED, Account, Different, Live, Resource, SecretRef, Special, Verdict
from reconciler.secrets import schemes
from reconciler.target import Change, Report, Reveal
from reconciler.targets.stalwart import passwords
from reconciler.targets.stalwart.connection import Connection, Credentials, Mode
from reconciler.targets.stalwart.jmap import addresses
from reconciler.targets.stalwart.jmap.addresses import JOIN, TAKE_OVER, Transfers, primary_after, primary_of
from reconciler.targets.stalwart.jmap.api import Selection
from reconciler.targets.stalwart.jmap.batch import Unwritable, Write
from reconciler.targets.stalwart.jmap.kind import ROLES, Ids, Raw, Reading, ResourceKind, Unknown
from reconciler.targets.stalwart.jmap.password_checks import SESSION, PasswordChecks, try_login
from reconciler.targets.stalwart.schema import same_locale
from reconciler.targets.stalwart.survey import Omissions, fit, unremarkable
from reconciler.targets.stalwart.work import unusable

_READ = (
    *("@type", "name", "domainId", "credentials", "memberGroupIds", "roles", "quotas", "aliases", "description"),
    *("permissions", "locale"),
)
_LOCALE = "en_US"
_LOCK = "authenticate"
"""The permission without which nobody logs in; who is without it gets mail all the same (0.16.18:
common/src/auth/authentication.rs)."""
_PLAIN: Raw = {"timeZone": None, "permissions": {TYPE: "Inherit"}, "encryptionAtRest": {TYPE: "Disabled"}}
"""What an account has that was only made; anything else can't be declared."""


class AccountKind(ResourceKind):
    """Accounts of people and services; groups, which are of the same kind to the server, have a file of their own."""

    resource, unique = Account, addresses.UNIQUE
    objects = (
        Selection("Account", properties=_READ),
        Selection("Domain", properties=("name",)),
        Selection("Role", properties=("description",), few=True),
        Selection("SystemSettings", singleton=True, properties=("defaultDomainId",)),
        Selection("Authentication", singleton=True, properties=("directoryId",)),
        Selection("Directory", properties=(TYPE, "description"), few=True),
    )
    surveyed = (Selection("Account", properties=tuple(_PLAIN)),)

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield all accounts, those that are wanted under their names there."""
        return _Accounts(reading).live()

    def writes(self, changes: Sequence[Change], reading: Reading) -> Iterator[Write | Unwritable]:
        """Yield the writes, in ranks: each address is unique, so it is given up before another account takes it."""
        return _Writing(changes, reading).writes()

    def is_same(self, before: Live, now: Live | None) -> bool:
        """Whether an id is still that of the account with this address, whatever the directory calls it."""
        return now is not None and primary_of(now.resource) == primary_of(before.resource)

    def survey(self, reading: Reading, live: Sequence[Live], out: Omissions) -> Iterator[Live]:
        """Note what else an account has. A quota of 0 is none, and nothing else that could be declared."""
        for item in reading.items("Account"):
            if item.get(TYPE) == "User":
                _note(reading.ids.address(item), item, out)
        for found in fit(live, "jmap", out):
            account = found.resource
            if isinstance(account, Account):
                yield replace(found, resource=unremarkable(replace(account, quota=account.quota or None)))


def _note(address: str, item: Raw, out: Omissions) -> None:
    out.options(address, {**item, "permissions": _beside_lock(item.get("permissions") or {})}, _PLAIN)
    credentials = [str(it.get(TYPE)) for it in (item.get("credentials") or {}).values()]
    for kind in sorted(set(credentials) - {"Password"}):
        hint = "whoever owns the account makes new ones on a new server"
        out.note(address, f"credentials of the type {kind} can't be declared", hint)
    addresses.note_disabled(address, item, out)


# ----------------------------------------------------------------------------------------------------------- reading
class _Accounts:
    """The accounts of one reading, matched to those that are wanted."""

    def __init__(self, reading: Reading) -> None:
        self._reading, self._ids, self._domain = reading, reading.ids, reading.domain
        users = [it for it in reading.items("Account") if it.get(TYPE) == "User"]
        self._found = {self._ids.address(it): it for it in users}
        self._times = Counter(map(self._ids.address, users))
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
        addresses = [primary_of(account, self._domain)]
        if "@" not in account.name:
            addresses.append(f"{account.name}@{self._ids.default_domain}")
        return next((item for item in addresses if item in self._found), None)

    def live(self) -> Iterator[Live]:
        """Yield accounts, and report what stands in the way of those that are wanted."""
        for address, item in self._found.items():
            yield Live(self._account(address, item), id=str(item["id"]), detail=item)
        for address, account in self._wanted.items():
            if self._times[address] > 1:
                summary = (
                    f"the server has {self._times[address]} accounts of that address: which one is meant can't be told"
                )
                hint = "remove all but one there; perhaps two domains differ in capitals alone"
                self._reading.report(Problem(account.address, summary, hint, scope=account.address))
        for account in self._missing:  # what its creation needs is read now, not when half of the plan is done
            if isinstance(account.password, SecretRef):
                _revealed(account, account.password, self._reading.reveal, self._reading.report)
        for account in (*self._wanted.values(), *self._missing):
            for summary, hint in self._objections(account):
                self._reading.report(Problem(account.address, summary, hint, scope=account.address))
            if account.roles == ():
                summary = "has no role, and from 0.16 that means those of a user"
                hint = "write `roles: [user]`, or `locked: true` where nobody is to log in"
                self._reading.report(Problem(account.address, summary, hint, Severity.WARNING))
            for summary, hint in self._shortfalls(account):
                self._reading.report(Problem(account.address, summary, f"{hint}; {_WITHOUT}"))

    def _account(self, address: str, item: Raw) -> Account:
        wanted = self._wanted.get(address)
        known = wanted.groups if wanted and isinstance(wanted.groups, tuple) else ()
        return Account(
            name=wanted.name if wanted else address,
            login=UNMANAGED if wanted else address,  # one logs in with the address
            email=address,
            description=item.get("description") or None,
            roles=self._roles(item.get("roles") or {}, wanted),
            aliases=addresses.aliases_in(item, self._ids),
            groups=(*self._ids.group_names(item.get("memberGroupIds") or {}, known), *_unknown(self._ids.group, known)),
            quota=(item.get("quotas") or {}).get("maxDiskQuota"),
            password=self._verdict(wanted, address, item),
            locked=_is_locked(item),
            locale=None
            if same_locale(found := str(item.get("locale") or _LOCALE), _LOCALE)
            else found.replace("-", "_"),
        )

    def _roles(self, roles: Raw, wanted: Account | None) -> tuple[str, ...]:
        """Return the roles that one has, and the wanted ones that the server does not know: nothing can be done.

        To have none can't be either: who has none has what a user has (common/src/auth/access_token.rs).
        """
        known = wanted.roles if wanted and isinstance(wanted.roles, tuple) else ()
        unknown = _unknown(self._role, known)
        if roles.get("@type") == "Custom":
            return (*self._ids.role_names(roles.get("roleIds") or {}, known), *unknown)
        own = str(roles.get("@type") or "user").lower()
        said = wanted is not None and isinstance(wanted.roles, tuple)
        return tuple(unknown) if said and own == "user" and len(unknown) == len(known) else (own, *unknown)

    def _verdict(self, wanted: Account | None, address: str, item: Raw) -> Verdict | Special:
        if wanted is None or not isinstance(wanted.password, SecretRef) or not wanted.enforce_password:
            return UNMANAGED
        return self._reading.judge(wanted, address) if _password_key(item) is not None else Different()

    def _objections(self, account: Account) -> Iterator[tuple[str, str]]:
        """Say what an account asks for that the server can't give."""
        address = primary_of(account, self._domain)
        if "@" not in address:
            yield (
                "from 0.16 every account has an address, and the server has no default domain",
                "declare stalwart.default_domain: its address is then there",
            )
        clash = self._wanted.get(address)
        if clash is not None and clash is not account:
            yield f"{clash.name} is the same account from 0.16: {address}", "declare one of them"
        for resolve, names in ((self._ids.group, account.groups), (self._role, account.roles)):
            for name in names if isinstance(names, tuple) else ():
                try:
                    resolve(name)
                except Unknown:
                    continue
                except ValueError as error:
                    yield str(error), "write one of these names as it stands there"

    def _shortfalls(self, account: Account) -> Iterator[tuple[str, str]]:
        """Say what an account asks for that the server does not know, and that it is made without."""
        role_hint = "make it on the server: roles are kept only as `stalwart.objects.Role`"
        asked = (
            (self._ids.group, account.groups, "declare it under groups, or correct the name"),
            (self._role, account.roles, role_hint),
        )
        for resolve, names, hint in asked:
            for name in _unknown(resolve, names):
                yield _why(resolve, name), hint

    def _role(self, name: str) -> str:
        return "" if name in ROLES else self._ids.role(name)


_BSDI = "is a hash of BSDi's crypt, which Stalwart from 0.16 takes for a clear value"


def _revealed(account: Account, ref: SecretRef, reveal: Reveal, report: Report) -> str | None:
    """Reveal a wanted password; None, and reported, where this generation can't be given it (tried on 0.16.18)."""
    value = passwords.revealed(account, ref, reveal, report)
    if value is None or not (schemes.is_crypt_hash(value) and schemes.clear(value).startswith("_")):
        return value
    hint = "set a new password, or give the clear value"
    report(Problem(account.address, f"its password {ref} {_BSDI}", hint, scope=account.address))
    return None


_WITHOUT = "until then the account is kept without it"


def _unknown(resolve: Callable[[str], str], names: Any) -> list[str]:
    """List the names that the server has nothing of."""
    return [name for name in names if _why(resolve, name)] if isinstance(names, tuple) else []


def _why(resolve: Callable[[str], str], name: str) -> str:
    """Say why a name leads nowhere; empty where it does, or leads to several."""
    try:
        resolve(name)
    except Unknown as error:
        return str(error)
    except ValueError:
        pass
    return ""


def _is_locked(item: Raw) -> bool:
    return _LOCK in ((item.get("permissions") or {}).get("disabledPermissions") or {})


def _locking(permissions: Raw, *, locked: bool) -> dict[str, Any]:
    """Return the patch that locks or opens; all else of the permissions stays."""
    if permissions.get(TYPE, "Inherit") == "Inherit":
        return {"permissions": {TYPE: "Merge", "enabledPermissions": {}, "disabledPermissions": {_LOCK: True}}}
    if not locked and _beside_lock(permissions) == {TYPE: "Inherit"}:
        return {"permissions": {TYPE: "Inherit"}}
    return {f"permissions/disabledPermissions/{_LOCK}": True if locked else None}


def _beside_lock(permissions: Raw) -> Raw:
    """Return permissions without what `locked` says; what then changes nothing is as inherited."""
    if permissions.get(TYPE, "Inherit") == "Inherit":
        return {TYPE: "Inherit"}
    disabled = {name: on for name, on in (permissions.get("disabledPermissions") or {}).items() if name != _LOCK}
    left = {**permissions, "disabledPermissions": disabled}
    return left if disabled or permissions.get("enabledPermissions") or left.get(TYPE) != "Merge" else {TYPE: "Inherit"}


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
        self._transfers = Transfers(reading)

    def writes(self) -> Iterator[Write | Unwritable]:
        """Yield the writes of each change."""
        for number, change in enumerate(self._changes):
            try:
                if change.after is None and change.before is not None:
                    yield Write("Account", "destroy", change.before.id, changes=(change,))
                elif change.before is None:
                    made = self._body(change.resource)
                    joins = any(item.startswith("#") for item in made.get("memberGroupIds", ()))
                    rank = TAKE_OVER if joins else self._transfers.rank(change)
                    yield Write("Account", "create", f"a{number}", made, (change,), rank)
                else:
                    yield from self._update(change, change.before.id, change.before.detail)
            except (ValueError, SecretUnreadable) as error:
                yield Unwritable(change, unusable(change.address, error))

    def _body(self, account: Any) -> dict[str, Any]:
        """Return what creates an account. Raises ValueError when a value can't be stored."""
        made: dict[str, Any] = {"@type": "User", **addresses.body(account, self._ids, self._domain)}
        made["roles"] = self._roles(account.roles if isinstance(account.roles, tuple) else ("user",))
        if isinstance(account.password, SecretRef):
            made["credentials"] = {"0": self._credential(account, account.password)}
        if account.locked is True:
            made["permissions"] = {TYPE: "Merge", "enabledPermissions": {}, "disabledPermissions": {_LOCK: True}}
        if isinstance(account.locale, str):
            made["locale"] = account.locale
        if isinstance(account.quota, int):
            made["quotas"] = {"maxDiskQuota": account.quota}
        if isinstance(account.groups, tuple) and account.groups:
            made |= {"memberGroupIds": ids} if (ids := dict.fromkeys(self._groups(account.groups), True)) else {}
        return made

    def _credential(self, account: Account, ref: SecretRef) -> dict[str, Any]:
        """Return a hash, which the server stores as it is; a clear value would have to pass its strength test."""
        return {"@type": "Password", "secret": self._hash(account, ref)}

    def _hash(self, account: Account, ref: SecretRef) -> str:
        """Return what is written. Raises ValueError, without the value, for what the server would hash again."""
        made = self._hashes.of(account, ref)
        if made.startswith("_"):
            raise ValueError(f"the password {ref} {_BSDI}")
        return made

    def _roles(self, names: Sequence[str]) -> dict[str, Any]:
        """Return roles as they are written: what the server does not know is left out, and nothing is a user."""
        known = [name for name in names if name in ROLES or not _why(self._ids.role, name)] or ["user"]
        if len(known) == 1 and known[0] in ROLES:
            return {"@type": ROLES[known[0]]}
        return {"@type": "Custom", "roleIds": {self._ids.role(name): True for name in known}}

    def _groups(self, names: Sequence[str]) -> list[str]:
        """Return the ids of groups; what the server does not know is left out. Raises ValueError as `Ids.group`."""
        return [self._ids.group(name) for name in names if not _why(self._ids.group, name)]

    def _update(self, change: Change, id: str, stored: Raw) -> Iterator[Write]:
        """Yield the writes that change an account; one joins a new group after that is made."""
        memberships = self._memberships(change, stored)
        joins = "memberGroupIds" in memberships
        others = self._patch(change, stored) | ({} if joins else memberships)
        yield from self._transfers.updates("Account", change, others)
        if joins:
            yield Write("Account", "update", id, memberships, (change,), JOIN)

    def _memberships(self, change: Change, stored: Raw) -> dict[str, Any]:
        """Return the patch of the groups; with one that this run makes whole, as a path must not refer to it."""
        after = change.after
        if "groups" not in change.fields or not isinstance(after, Account) or not isinstance(after.groups, tuple):
            return {}
        want = set(self._groups(after.groups))
        have = set(stored.get("memberGroupIds") or {})
        if any(item.startswith("#") for item in want):
            return {"memberGroupIds": dict.fromkeys(sorted(want), True)}
        return {f"memberGroupIds/{item}": item in want or None for item in sorted(want ^ have)}

    def _patch(self, change: Change, stored: Raw) -> dict[str, Any]:
        """Return what else differs, of that which groups and lists have not."""
        after, changed = change.after, change.fields
        if not isinstance(after, Account):
            raise TypeError(change.address)
        patch: dict[str, Any] = {}
        if "quota" in changed:
            patch["quotas/maxDiskQuota"] = after.quota
        if "locale" in changed:
            patch["locale"] = after.locale or _LOCALE
        if "locked" in changed:
            patch |= _locking(stored.get("permissions") or {}, locked=after.locked is True)
        if "roles" in changed and isinstance(after.roles, tuple):
            patch["roles"] = self._roles(after.roles)
        if "password" in changed and isinstance(after.password, SecretRef):
            patch |= self._password(after, after.password, stored)
        return patch

    def _password(self, account: Account, ref: SecretRef, stored: Raw) -> dict[str, Any]:
        """Return the patch of the password alone: other credentials are the person's own, and read masked."""
        key = _password_key(stored)
        if key is not None:
            return {f"credentials/{key}/secret": self._hash(account, ref)}
        free = max((int(item) for item in stored.get("credentials") or {}), default=-1) + 1
        return {f"credentials/{free}": self._credential(account, ref)}


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


def login_name(connection: Connection, reading: Reading) -> str:
    """Return the address that we log in with; empty where an API key lets us in, whatever the account is called."""
    name, accepted = connection.login.name.lower(), connection.login.accepted
    if accepted is not None and accepted.header(Mode.JMAP).startswith("Bearer"):
        return ""
    return name if "@" in name or not reading.ids.default_domain else f"{name}@{reading.ids.default_domain}"


def whose(connection: Connection, reading: Reading) -> str:
    """Return the id of the account that we are to the server; empty where it is none that it lists.

    An address names one account, so the server is asked only where we log in by an alias or with a key.
    """
    users = {reading.ids.address(it): str(it["id"]) for it in reading.items("Account") if it.get(TYPE) == "User"}
    name, accepted = login_name(connection, reading), connection.login.accepted
    if name in users or accepted is None or accepted.source == "recovery":
        return users.get(name, "")
    session = connection.send("GET", SESSION).json()
    return users.get(str(session.get("username")).lower(), "") if isinstance(session, dict) else ""


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
        if isinstance(ref, SecretRef) and ref.held:
            return Different()
        value = _revealed(account, ref, self.reveal, self.report) if isinstance(ref, SecretRef) else None
        if value is None or not isinstance(ref, SecretRef):
            return passwords.UNUSABLE
        login, clear = self.connection.login, schemes.clear(value)
        if address == login.name.lower():  # who we are was told by the server just now
            if login.accepted == Credentials(login.name, clear):
                self.checks.answered(address, value, self.container, accepted=True)
            elif login.was_refused(Credentials(login.name, clear)):
                self.checks.answered(address, value, self.container, accepted=False)
        return self.checks.verdict(
            address, ref, self.reveal, lambda who, _: try_login(self.connection, who, clear), self.container
        )

    def written(self, change: Change, domain: str) -> None:
        """Remember that a password was written; our own is tried first from the next request on."""
        account = change.after
        if not isinstance(account, Account) or not isinstance(account.password, SecretRef):
            return
        if change.before is None or "password" in change.fields:
            self.checks.written(primary_after(change, domain), self.reveal(account.password), self.container)
            self.renew(change, domain)

    def renew(self, change: Change, domain: str) -> None:
        """Try all passwords again where our own account was, or may have been, written."""
        login = self.connection.login
        if isinstance(change.after, Account) and primary_after(change, domain) == login.name.lower():
            login.renewed()
