"""Accounts of Stalwart up to 0.15: logins with their mailboxes, whose passwords the server shows as it stores them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from reconciler.problem import Problem, Severity
from reconciler.resources import (
    UNMANAGED,
    Account,
    Different,
    Group,
    Live,
    Resource,
    Same,
    SecretRef,
    Unreadable,
    Verdict,
)
from reconciler.secrets import schemes
from reconciler.secrets.schemes import is_crypt_hash
from reconciler.target import Change
from reconciler.targets.stalwart import passwords
from reconciler.targets.stalwart.connection import Login
from reconciler.targets.stalwart.rest.kind import Import, Item, Reading
from reconciler.targets.stalwart.rest.principals import (
    Means,
    Operation,
    Principal,
    aliases_of,
    asks,
    check_lengths,
    emails,
    kept,
    local_part,
    members,
    mended,
    named,
    own_emails,
    set_to,
    texts,
    unknown_role,
)
from reconciler.targets.stalwart.survey import unremarkable

LOCK = "authenticate"
"""The permission without which nobody logs in, whatever the roles grant (0.15.5: common/src/auth/mod.rs)."""


class Accounts(Principal[Account]):
    """The accounts; "superuser" is what old versions call an individual."""

    resource, types = Account, ("individual", "superuser")

    # ---------------------------------------------------------------------------------------------------------- reading
    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield all accounts; passwords of wanted ones are compared, problems reported."""
        own, wanted = self.own(reading.items), reading.of(Account)
        groups = named(reading.items, reading.of(Group))
        made = {name for group in reading.of(Group) for name in (group.name, local_part(group.name))}
        matched = _matched(own, wanted)
        verdicts = _verdicts(reading, [(matched[item["name"]], item) for item in own if item["name"] in matched])
        taken = {account.name for account in matched.values()}
        for item in own:
            account = matched.get(item["name"])
            email = next(iter(own_emails(item)), None)
            yield Live(
                Account(
                    name=account.name if account else _name(item, taken),
                    login=item["name"],
                    email=email,
                    description=item.get("description") or None,
                    roles=_roles(texts(item, "roles"), account, reading),
                    aliases=aliases_of(item, email, reading, account),
                    groups=tuple(self._groups(item, account, groups, made, reading)),
                    quota=item.get("quota"),
                    password=verdicts.get(account.name, UNMANAGED) if account else UNMANAGED,
                    locked=LOCK in texts(item, "disabledPermissions"),
                    locale=item.get("locale") or None,
                ),
                id=item["name"],
                detail=kept(item),
            )
        for account in wanted:  # what its creation needs is read now, not when half of the plan is done
            if account.name not in taken and isinstance(account.password, SecretRef):
                passwords.revealed(account, account.password, reading.reveal, reading.report)
            if account.name not in taken:
                self._missing(account, groups, made, reading)
        self._conflicts(reading)

    def _conflicts(self, reading: Reading) -> None:
        """Report logins of wanted accounts that something else has as its name.

        Addresses are for the plan to judge: something may give one up in the same run.
        """
        others = {item["name"]: item for item in reading.items if item.get("type") not in self.types}
        for account in reading.of(Account):
            if item := others.get(self.name(account)):
                summary = f"the login {item['name']} is the name of a {item.get('type')} on the server"
                hint = "names are one space for accounts, groups, lists and domains: give another `login`"
                reading.report(Problem(account.address, summary, hint, scope=account.address))

    def _groups(
        self, item: Item, account: Account | None, groups: Mapping[str, str], made: Collection[str], reading: Reading
    ) -> Iterator[str]:
        """Yield its groups by their addresses, or by their names where they have none or are wanted by them.

        A wanted one that does not exist, and that nobody makes, is reported and counts as there: nothing can be done.
        """
        wanted = account.groups if account and isinstance(account.groups, tuple) else ()
        for name in texts(item, "memberOf"):
            spelled = [address for address, group in groups.items() if group == name]
            yield next((it for it in spelled if it in wanted), spelled[-1] if spelled else name)
        if account:
            yield from self._missing(account, groups, made, reading)

    def _missing(
        self, account: Account, groups: Mapping[str, str], made: Collection[str], reading: Reading
    ) -> list[str]:
        """Report the groups and roles of an account that do not exist; return the groups, if nobody makes them."""
        for role in _unknown_roles(account, reading):
            hint = "make it on the server, or take it away here; until then the account is kept without it"
            reading.report(Problem(account.address, f"the server has no role {role}", hint))
        wanted = account.groups if isinstance(account.groups, tuple) else ()
        missing = [name for name in wanted if name not in groups and name not in made]
        for name in missing:
            hint = "declare it under `groups`, or take it away here; until then the account is kept without it"
            reading.report(Problem(account.address, f"the server has no group {name}", hint))
        return missing

    # ---------------------------------------------------------------------------------------------------------- writing
    def name(self, resource: Account) -> str:
        """Return the name to log in with."""
        login, address = resource.login, resource.name
        return (login if isinstance(login, str) else address.rpartition("@")[0] or address).lower()

    def body(self, resource: Account, means: Means) -> dict[str, Any]:
        """Return what creates it. Roles are always sent: without one it can't log in."""
        made: dict[str, Any] = {"type": "individual", "name": self.name(resource)}
        made["roles"] = means.roles(resource.roles) if isinstance(resource.roles, tuple) else ["user"]
        made["emails"] = emails(resource)
        if isinstance(resource.password, SecretRef):
            made["secrets"] = [means.hashes.of(resource, resource.password)]
        optional = {"description": resource.description, "quota": resource.quota, "locale": resource.locale}
        made |= {name: value for name, value in optional.items() if value is not None and value is not UNMANAGED}
        if resource.locked is True:
            made["disabledPermissions"] = [LOCK]
        if isinstance(resource.groups, tuple) and resource.groups:
            made["memberOf"] = means.groups(resource.groups)
        check_lengths(made)
        return made

    def operations(self, change: Change, before: Account, after: Account, means: Means) -> list[Operation]:
        """Return the operations that carry a change out."""
        del before
        changed = change.fields
        operations: list[Operation] = []
        if "login" in changed:
            operations.append(set_to("name", self.name(after)))
        if "description" in changed:
            operations.append(set_to("description", after.description or ""))
        if "quota" in changed:
            operations.append(set_to("quota", "" if after.quota is None else after.quota))
        if "locale" in changed:
            operations.append(set_to("locale", after.locale or ""))
        if "locked" in changed:
            operations += members("disabledPermissions", *([LOCK] if it else [] for it in changed["locked"]))
        if "email" in changed or "aliases" in changed:
            operations += mended(change)
        if "roles" in changed:
            operations += members("roles", *(means.roles(names or ()) for names in changed["roles"]))
        if "groups" in changed:
            operations += members("memberOf", *(means.groups(names or ()) for names in changed["groups"]))
        if "password" in changed and isinstance(after.password, SecretRef):
            # Replaces the password and leaves app passwords and one-time seeds; `set` would not (observed.md, 0.15.5).
            value = means.hashes.of(after, after.password)
            operations.append({"action": "addItem", "field": "secrets", "value": value})
        check_lengths(operations)
        return operations

    def written(self, change: Change, login: Login) -> None:
        """Try all passwords again after our own has changed; otherwise what was refused stays refused."""
        own = isinstance(change.after, Account) and self.name(change.after) == login.username.lower()
        if own and (change.before is None or "password" in change.fields):
            login.renewed()

    # -------------------------------------------------------------------------------------------------------- importing
    def imported(self, live: Sequence[Live], taken: Import) -> Iterator[Live]:
        """Yield all accounts, and keep their passwords as they are stored."""
        stored = {item["name"]: item for item in self.own(taken.items)}
        for item in live:
            account = item.resource
            if isinstance(account, Account):
                password = _importable(account, texts(stored[item.id], "secrets"), taken)
                taken.hashes |= {account.name: password} if password else {}
                quota = account.quota or None  # 0 is none, and nothing else that could be declared
                compared = password is None or is_crypt_hash(password)
                name, email = account.name, account.email
                if isinstance(email, str) and email.rpartition("@")[2] not in taken.domains:
                    taken.out.note(name, "has its address in a domain that the server does not have", _BY_LOGIN)
                    if "@" in item.id:
                        continue
                    name, email = item.id, UNMANAGED
                    taken.hashes |= {name: password} if password else {}
                account = replace(account, name=name, email=email, enforce_password=compared, quota=quota)
                account = unremarkable(account)
                yield replace(item, resource=account)


def taken_logins(wanted: Iterable[Resource], there: Collection[str], others: Mapping[str, str]) -> Iterator[Problem]:
    """Report logins of accounts that are to be made which a role, an API key or the like has as its name."""
    kind = Accounts()
    for account in wanted:
        if isinstance(account, Account) and (login := kind.name(account)) not in there and login in others:
            summary = f"the login {login} is the name of a principal of the type {others[login]} on the server"
            hint = "names are one space for all that the server keeps: give another `login`"
            yield Problem(account.address, summary, hint, scope=account.address)


def asks_for_roles(wanted: Iterable[Resource]) -> bool:
    """Whether some account is to have a role that has to be made first."""
    return any(asks(item.roles) for item in wanted if isinstance(item, Account) and isinstance(item.roles, tuple))


def _unknown_roles(account: Account, reading: Reading) -> list[str]:
    wanted = account.roles if isinstance(account.roles, tuple) else ()
    return [name for name in wanted if unknown_role(name, reading.roles)]


def _roles(live: Sequence[str], account: Account | None, reading: Reading) -> tuple[str, ...]:
    """Return the roles that one has, spelled as they are wanted; what the server does not know counts as there."""
    wanted = account.roles if account and isinstance(account.roles, tuple) else ()
    spelled = {name.lower(): name for name in wanted}
    unknown = _unknown_roles(account, reading) if account else []
    if unknown and len(unknown) == len(wanted) and list(live) == ["user"]:
        return tuple(unknown)
    return (*(spelled.get(name, name) for name in live), *unknown)


def _matched(items: Sequence[Item], wanted: Iterable[Account]) -> dict[str, Account]:
    """Map names to wanted accounts: by login first, then by primary address.

    So a changed login or address is a change, and no other account.
    """
    found: dict[str, Account] = {}
    rest = list(wanted)
    for attribute in ("login", "email"):
        index = {_identity(item, attribute): item["name"] for item in items}
        left = []
        for account in rest:
            value = getattr(account, attribute)
            name = index.get(value.lower()) if isinstance(value, str) else None
            if name is None or name in found:
                left.append(account)
            else:
                found[name] = account
        rest = left
    return found


def _identity(item: Item, attribute: str) -> str:
    return str(item["name"]) if attribute == "login" else next(iter(own_emails(item)), "")


def _name(item: Item, taken: set[str]) -> str:
    """Name an account that nobody declared: by its primary address, where that is no declared account's name."""
    address = _identity(item, "email")
    return address if address and address not in taken else str(item["name"])


def _verdicts(reading: Reading, matched: Iterable[tuple[Account, Item]]) -> dict[str, Verdict]:
    """Judge the wanted passwords, by the accounts' names: all are revealed, then verified on all cores."""
    due = [
        (account, ref, passwords.revealed(account, ref, reading.reveal, reading.report), item)
        for account, item in matched
        if isinstance(ref := account.password, SecretRef) and account.enforce_password
    ]
    words, progress = "comparing passwords", reading.progress
    judged = passwords.side_by_side(lambda it: _judged(*it), due, words, progress)
    for _, problem in judged:
        if problem is not None:
            reading.report(problem)
    return {account.name: verdict for (account, *_), (verdict, _) in zip(due, judged, strict=True)}


def _judged(account: Account, ref: SecretRef, value: str | None, item: Item) -> tuple[Verdict, Problem | None]:
    """Compare a password with the stored one; app passwords and one-time seeds are left alone."""
    if ref.held:
        return Different(), None
    stored = next((secret for secret in texts(item, "secrets") if passwords.is_password(secret)), None)
    if value is None:
        return passwords.UNUSABLE, None
    if stored is None:
        return Different(), None
    known = schemes.stored(stored)
    if known is not None and not known[1]:
        summary, hint = "its password is stored in clear text on the server", "apply writes a hash in its place"
        return Different(), Problem(account.address, summary, hint, Severity.WARNING)
    same = passwords.matches(value, stored)
    if same is None:
        summary = "its password is stored as a kind of hash that can't be compared here"
        hint = "set it anew on the server, or give the hash"
        problem = Problem(account.address, summary, hint, Severity.WARNING)
        return Unreadable("this kind of hash can't be verified"), problem
    return Same(ref) if same else Different(), None


_BY_LOGIN = "it gets no mail: the account is imported by its login, if that is a bare name, without that address"


def _importable(account: Account, stored: Sequence[str], taken: Import) -> str | None:
    """Return the password that counts, if a directory can hold it, and tell of the others."""
    own = [secret for secret in stored if passwords.is_password(secret)]
    note, address = taken.out.note, account.address
    if len(own) < len(stored):
        hint = "whoever owns the account makes new ones on a new server"
        note(address, "app passwords and one-time codes are not imported", hint)
    if len(own) > 1:
        note(address, "has several passwords", "the first one is imported, which is the only one that is compared")
    if not own:
        hint = "write a `password` for it: after a loss it is made without one"
        note(address, "has no password that could be imported", hint)
        return None
    if schemes.stored(own[0]) is None:
        summary = "its password is kept in a form that this server verifies no login with"
        note(address, summary, "set another one on the server")
        return None
    value = schemes.importable(own[0])
    try:
        passwords.check_password(value)
    except ValueError as error:
        note(address, f"its password {error}", "set another one on the server")
        return None
    if not is_crypt_hash(value):
        hint = "it is imported with `enforce_password: false`: take that away, and apply writes a hash"
        note(address, "its password is stored in clear text, or as an unknown hash", hint)
    return value
