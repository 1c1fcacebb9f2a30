"""Domains and accounts of Stalwart up to 0.15: from its JSON to resources, and from changes to its JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from reconciler.plan import Change, differences
from reconciler.problem import Problem, Severity
from reconciler.reconcile import Report, Reveal
from reconciler.resources import (
    UNMANAGED,
    Account,
    Different,
    Domain,
    Live,
    Resource,
    Same,
    SecretRef,
    Special,
    Unreadable,
    Verdict,
)
from reconciler.secrets.reveal import is_crypt_hash
from reconciler.targets.stalwart import passwords
from reconciler.targets.stalwart.passwords import Hashes

_LONGEST = 512  # bytes of one text; longer ones are refused, or in lists dropped without a word
_ACCOUNTS = ("individual", "superuser")  # the second is what old versions call the first


class Principals:
    """One listing of the server, matched to the accounts that are wanted."""

    def __init__(self, items: Sequence[Mapping[str, Any]], wanted: Iterable[Account]) -> None:
        """Match by login first, then by primary address, so that a changed one is a change and no other account."""
        self._items = items
        self._wanted: dict[str, Account] = {}
        self._matched: set[str] = set()
        self._index = {
            attribute: {_identity(item, attribute): item for item in items if _is_account(item)}
            for attribute in ("login", "email")
        }
        accounts = list(wanted)
        for attribute in ("login", "email"):
            for account in accounts:
                self._match(account, attribute)
        self._taken = {account.name for account in self._wanted.values()}
        self._missing = [item for item in accounts if item.name not in self._matched]

    def _match(self, account: Account, attribute: str) -> None:
        value = getattr(account, attribute)
        if not isinstance(value, str) or account.name in self._matched:
            return
        item = self._index[attribute].get(value.lower())
        if item is not None and item["name"] not in self._wanted:
            self._wanted[item["name"]] = account
            self._matched.add(account.name)

    def live(self, reveal: Reveal, report: Report) -> Iterator[Live]:
        """Yield domains and accounts; passwords of wanted accounts are compared, problems reported."""
        for item in self._items:
            if item.get("type") == "domain":
                yield Live(Domain(item["name"]), id=item["name"])
            elif _is_account(item):
                yield Live(self._account(item, reveal, report), id=item["name"])
        for account in self._missing:  # what its creation needs is read now, not when half of the plan is done
            if isinstance(account.password, SecretRef):
                passwords.revealed(account, account.password, reveal, report)

    def _account(self, item: Mapping[str, Any], reveal: Reveal, report: Report) -> Account:
        wanted = self._wanted.get(item["name"])
        emails = [email.lower() for email in _texts(item, "emails")]
        name = emails[0] if emails and emails[0] not in self._taken else item["name"]
        return Account(
            name=wanted.name if wanted else name,
            login=item["name"],
            email=emails[0] if emails else None,
            description=item.get("description") or None,
            roles=tuple(sorted(_texts(item, "roles"))),
            aliases=tuple(sorted(emails[1:])),
            groups=tuple(sorted(_texts(item, "memberOf"))),
            quota=item.get("quota"),
            password=_verdict(wanted, _texts(item, "secrets"), reveal, report) if wanted else UNMANAGED,
        )

    def conflicts(self, wanted: Iterable[Account]) -> Iterator[Problem]:
        """Name logins and addresses of wanted accounts that a group, a list or a domain holds.

        What another account holds is for the plan to judge: it may give it up in the same run.
        """
        others = [item for item in self._items if not _is_account(item)]
        names = {item["name"]: item for item in others}
        emails = {email.lower(): item for item in others for email in _texts(item, "emails")}
        for account in wanted:
            if item := names.get(login(account)):
                kind = item.get("type")
                yield _conflict(account, f"the login {login(account)} is the name of a {kind} on the server")
            for address in _addresses(account):
                if item := emails.get(address):
                    yield _conflict(account, f"{address} is an address of the {item.get('type')} {item['name']}")


def _conflict(account: Account, summary: str) -> Problem:
    hint = "names are one space for accounts, groups, lists and domains: give another `login`, or remove the other one"
    return Problem(account.address, summary, hint, scope=account.address)


def _is_account(item: Mapping[str, Any]) -> bool:
    return item.get("type") in _ACCOUNTS


def _identity(item: Mapping[str, Any], attribute: str) -> str:
    if attribute == "login":
        return str(item["name"])
    return next((email.lower() for email in _texts(item, "emails")), "")


def _texts(item: Mapping[str, Any], name: str) -> list[str]:
    """Return a list of texts; an absent one is empty, a bare text is a list of one."""
    value = item.get(name) or []
    return [value] if isinstance(value, str) else [text for text in value if isinstance(text, str)]


def secrets_of(item: Mapping[str, Any]) -> list[str]:
    """Return what is stored of an account's secrets: the password, app passwords, one-time seeds."""
    return _texts(item, "secrets")


def _verdict(account: Account, stored: Sequence[str], reveal: Reveal, report: Report) -> Verdict | Special:
    """Compare a wanted password with the stored ones; app passwords and one-time seeds are left alone."""
    if not isinstance(account.password, SecretRef) or not account.enforce_password:
        return UNMANAGED
    value = passwords.revealed(account, account.password, reveal, report)
    if value is None:
        return passwords.UNUSABLE
    own = [secret for secret in stored if passwords.is_password(secret)]
    return _compared(account, account.password, value, own[0], report) if own else Different()


def _compared(account: Account, ref: SecretRef, value: str, stored: str, report: Report) -> Verdict:
    if not is_crypt_hash(stored):
        summary = "its password is stored in clear text on the server"
        report(Problem(account.address, summary, "apply writes a hash in its place", Severity.WARNING))
        return Different()
    same = passwords.matches(value, stored)
    if same is None:
        summary = "its password is stored as a kind of hash that can't be compared here"
        report(Problem(account.address, summary, "set it anew on the server, or give the hash", Severity.WARNING))
        return Unreadable("this kind of hash can't be verified")
    return Same(ref) if same else Different()


# ---------------------------------------------------------------------------------------------------------- writing
def body(account: Account, hashes: Hashes) -> dict[str, Any]:
    """Return what creates an account. Roles are always sent: without one it can't log in.

    Raises ValueError when a value can't be stored, `SecretUnreadable` when its password can't be read.
    """
    made: dict[str, Any] = {"type": "individual", "name": login(account)}
    made["roles"] = list(account.roles) if isinstance(account.roles, tuple) else ["user"]
    made["emails"] = _emails(account.email, account.aliases)
    if isinstance(account.password, SecretRef):
        made["secrets"] = [hashes.of(account, account.password)]
    optional = {"description": account.description, "quota": account.quota}
    made |= {name: value for name, value in optional.items() if value is not None and value is not UNMANAGED}
    if isinstance(account.groups, tuple) and account.groups:
        made["memberOf"] = list(account.groups)
    _check_lengths(made)
    return made


def login(account: Account) -> str:
    """Return the name to log in with; names are stored in lower case."""
    name = account.login if isinstance(account.login, str) else account.name.rpartition("@")[0] or account.name
    return name.lower()


def patch(before: Account, after: Account, hashes: Hashes) -> list[dict[str, Any]]:
    """Return the operations that turn one account into the other, empty when nothing differs.

    ``set`` of roles, memberOf or lists would wipe the other two, and ``set`` of secrets the app passwords: items are
    added and removed. Only the primary address has a position, so addresses are set. Raises as `body` does.
    """
    changed = differences(after, before)
    operations: list[dict[str, Any]] = []
    if "login" in changed:
        operations.append(_set("name", login(after)))
    if "description" in changed:
        operations.append(_set("description", after.description or ""))
    if "quota" in changed:
        operations.append(_set("quota", "" if after.quota is None else after.quota))
    if "email" in changed or "aliases" in changed:
        operations.append(_set("emails", _addresses_after(before, after)))
    for name, field in (("roles", "roles"), ("groups", "memberOf")):
        if name in changed:
            operations += _members(field, *changed[name])
    if "password" in changed and isinstance(after.password, SecretRef):
        # Replaces the password and leaves app passwords and one-time seeds (observed.md, 0.15.5).
        operations.append({"action": "addItem", "field": "secrets", "value": hashes.of(after, after.password)})
    _check_lengths(operations)
    return operations


def release(before: Resource, after: Account) -> list[dict[str, Any]]:
    """Return the operations that leave an account only those of its addresses which it keeps."""
    kept = _addresses_after(before, after) if isinstance(before, Account) else []
    return [_set("emails", [item for item in _addresses(before) if item in kept])]


def in_turn(changes: Sequence[Change]) -> Iterator[tuple[Change, bool]]:
    """Order changes so that a name or address is given up before another account takes it: each is unique.

    In a circle somebody has to begin: True beside a change says that it gives up early what others wait for.
    """
    held = {item: change for change in changes if change.before for item in _claims(change.before.resource)}
    begun: set[int] = set()
    done: set[int] = set()

    def turn(change: Change) -> Iterator[tuple[Change, bool]]:
        if id(change) in begun:
            if id(change) not in done:
                yield change, True
            return
        begun.add(id(change))
        for item in _claims(change.resource):
            holder = held.get(item, change)
            if holder is not change:
                yield from turn(holder)
        done.add(id(change))
        yield change, False

    for change in changes:
        yield from turn(change)


def _claims(resource: Resource) -> Iterator[tuple[str, str]]:
    """Yield what only one account may have: its login and its addresses."""
    if isinstance(resource, Account):
        yield "login", login(resource)
        yield from (("address", item) for item in _addresses(resource))


def _addresses(resource: Resource) -> list[str]:
    return _emails(resource.email, resource.aliases) if isinstance(resource, Account) else []


def _addresses_after(before: Account, after: Account) -> list[str]:
    email = before.email if after.email is UNMANAGED else after.email
    aliases = before.aliases if after.aliases is UNMANAGED else after.aliases
    return _emails(email, aliases)


def _set(field: str, value: Any) -> dict[str, Any]:
    return {"action": "set", "field": field, "value": value}


def _members(field: str, have: Sequence[str], want: Sequence[str]) -> Iterator[dict[str, Any]]:
    for name in sorted(set(want) - set(have)):
        yield {"action": "addItem", "field": field, "value": name}
    for name in sorted(set(have) - set(want)):
        yield {"action": "removeItem", "field": field, "value": name}


def _emails(email: str | Special | None, aliases: tuple[str, ...] | Special) -> list[str]:
    first = [email] if isinstance(email, str) else []
    return first + [alias for alias in (aliases if isinstance(aliases, tuple) else ()) if alias not in first]


def _check_lengths(value: Any) -> None:
    if isinstance(value, str) and len(value.encode()) > _LONGEST:
        raise ValueError(f"a text of {len(value.encode())} bytes is too long, the server takes up to {_LONGEST}")
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        _check_lengths(inner)
