"""Accounts of Stalwart up to 0.15: logins with their mailboxes, whose passwords the server shows as it stores them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from reconciler.problem import Problem, Severity
from reconciler.resources import UNMANAGED, Account, Different, Live, Same, SecretRef, Unreadable, Verdict
from reconciler.secrets.reveal import is_crypt_hash
from reconciler.target import Change
from reconciler.targets.stalwart import passwords
from reconciler.targets.stalwart.connection import Login
from reconciler.targets.stalwart.passwords import Hashes
from reconciler.targets.stalwart.rest.kind import Import, Item, Reading
from reconciler.targets.stalwart.rest.principals import (
    Operation,
    Principal,
    addresses_after,
    check_lengths,
    emails,
    members,
    set_to,
    texts,
)


class Accounts(Principal[Account]):
    """The accounts; "superuser" is what old versions call an individual."""

    resource, types = Account, ("individual", "superuser")

    # ---------------------------------------------------------------------------------------------------------- reading
    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield all accounts; passwords of wanted ones are compared, problems reported."""
        own, wanted = self.own(reading.items), reading.of(Account)
        matched = _matched(own, wanted)
        verdicts = _verdicts(reading, [(matched[item["name"]], item) for item in own if item["name"] in matched])
        taken = {account.name for account in matched.values()}
        for item in own:
            account = matched.get(item["name"])
            addresses = _addresses(item)
            yield Live(
                Account(
                    name=account.name if account else _name(item, taken),
                    login=item["name"],
                    email=addresses[0] if addresses else None,
                    description=item.get("description") or None,
                    roles=tuple(sorted(texts(item, "roles"))),
                    aliases=tuple(sorted(addresses[1:])),
                    groups=tuple(sorted(texts(item, "memberOf"))),
                    quota=item.get("quota"),
                    password=verdicts.get(account.name, UNMANAGED) if account else UNMANAGED,
                ),
                id=item["name"],
            )
        for account in wanted:  # what its creation needs is read now, not when half of the plan is done
            if account.name not in taken and isinstance(account.password, SecretRef):
                passwords.revealed(account, account.password, reading.reveal, reading.report)
        self._conflicts([item for item in reading.items if item.get("type") not in self.types], reading)

    def _conflicts(self, others: Sequence[Item], reading: Reading) -> None:
        """Report logins and addresses of wanted accounts that a group, a list or a domain holds.

        What another account holds is for the plan to judge: it may give it up in the same run.
        """
        names = {item["name"]: item for item in others}
        held = {email: item for item in others for email in _addresses(item)}
        for account in reading.of(Account):
            if item := names.get(self.name(account)):
                summary = f"the login {self.name(account)} is the name of a {item.get('type')} on the server"
                reading.report(_conflict(account, summary))
            for address in self.addresses(account):
                if item := held.get(address):
                    summary = f"{address} is an address of the {item.get('type')} {item['name']}"
                    reading.report(_conflict(account, summary))

    # ---------------------------------------------------------------------------------------------------------- writing
    def name(self, resource: Account) -> str:
        """Return the name to log in with."""
        login, address = resource.login, resource.name
        return (login if isinstance(login, str) else address.rpartition("@")[0] or address).lower()

    def addresses(self, resource: Account) -> list[str]:
        """Return its addresses, the primary one first."""
        return emails(resource.email, resource.aliases)

    def body(self, resource: Account, hashes: Hashes) -> dict[str, Any]:
        """Return what creates it. Roles are always sent: without one it can't log in."""
        made: dict[str, Any] = {"type": "individual", "name": self.name(resource)}
        made["roles"] = list(resource.roles) if isinstance(resource.roles, tuple) else ["user"]
        made["emails"] = self.addresses(resource)
        if isinstance(resource.password, SecretRef):
            made["secrets"] = [hashes.of(resource, resource.password)]
        optional = {"description": resource.description, "quota": resource.quota}
        made |= {name: value for name, value in optional.items() if value is not None and value is not UNMANAGED}
        if isinstance(resource.groups, tuple) and resource.groups:
            made["memberOf"] = list(resource.groups)
        check_lengths(made)
        return made

    def operations(self, change: Change, before: Account, after: Account, hashes: Hashes) -> list[Operation]:
        """Return the operations that carry a change out; only the primary address has a position: addresses are set."""
        changed = change.fields
        operations: list[Operation] = []
        if "login" in changed:
            operations.append(set_to("name", self.name(after)))
        if "description" in changed:
            operations.append(set_to("description", after.description or ""))
        if "quota" in changed:
            operations.append(set_to("quota", "" if after.quota is None else after.quota))
        if "email" in changed or "aliases" in changed:
            operations.append(set_to("emails", addresses_after(before, after)))
        for name, field in (("roles", "roles"), ("groups", "memberOf")):
            if name in changed:
                operations += members(field, *changed[name])
        if "password" in changed and isinstance(after.password, SecretRef):
            # Replaces the password and leaves app passwords and one-time seeds; `set` would not (observed.md, 0.15.5).
            value = hashes.of(after, after.password)
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
                yield replace(item, resource=replace(account, enforce_password=compared, quota=quota))


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
    return str(item["name"]) if attribute == "login" else next(iter(_addresses(item)), "")


def _addresses(item: Item) -> list[str]:
    return [email.lower() for email in texts(item, "emails")]


def _name(item: Item, taken: set[str]) -> str:
    """Name an account that nobody declared: by its primary address, where that is no declared account's name."""
    address = _identity(item, "email")
    return address if address and address not in taken else str(item["name"])


def _conflict(account: Account, summary: str) -> Problem:
    hint = "names are one space for accounts, groups, lists and domains: give another `login`, or remove the other one"
    return Problem(account.address, summary, hint, scope=account.address)


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
    stored = next((secret for secret in texts(item, "secrets") if passwords.is_password(secret)), None)
    if value is None:
        return passwords.UNUSABLE, None
    if stored is None:
        return Different(), None
    if not is_crypt_hash(stored):
        summary, hint = "its password is stored in clear text on the server", "apply writes a hash in its place"
        return Different(), Problem(account.address, summary, hint, Severity.WARNING)
    same = passwords.matches(value, stored)
    if same is None:
        summary = "its password is stored as a kind of hash that can't be compared here"
        hint = "set it anew on the server, or give the hash"
        problem = Problem(account.address, summary, hint, Severity.WARNING)
        return Unreadable("this kind of hash can't be verified"), problem
    return Same(ref) if same else Different(), None


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
    try:
        passwords.check(own[0])
    except ValueError as error:
        note(address, f"its password {error}", "set another one on the server")
        return None
    if not is_crypt_hash(own[0]):
        hint = "it is imported with `enforce_password: false`: take that away, and apply writes a hash"
        note(address, "its password is stored in clear text, or as an unknown hash", hint)
    return own[0]
