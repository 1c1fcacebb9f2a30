"""`accounts.yaml`, `groups.yaml` and `domains.yaml`: who has a mailbox or an address, and where each password is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.desired.spec.mail import AccountEntry, DomainEntry, GroupEntry, ListEntry
from reconciler.desired.spec.scalars import AccountName, DomainName, Email
from reconciler.importing.directory import Noted
from reconciler.importing.draft import Draft
from reconciler.importing.found import ADMINISTRATOR, Found
from reconciler.importing.smtp import Submission
from reconciler.resources import Account, Domain, Group, MailingList, SecretRef
from reconciler.secrecy import is_secret_form

HEADS = {
    "accounts.yaml": ("Keyed by e-mail address; a superuser may have none.",),
    "groups.yaml": ("Shared mailboxes and mailing lists, by e-mail address; who is in a group stands at the account.",),
    "domains.yaml": ("What mail domains are, besides that they exist: that follows from the addresses in them.",),
}
"""What stands at the head of each file that is written here."""

_NAMED = 5  # accounts that a note names
NO_PASSWORD = (
    "The server shows no hashes: for a restore, name where this password is, as",
    "password: {{env: {name}}}",
)


def accounts(found: Found, submissions: Sequence[Submission], draft: Draft) -> dict[str, Any]:
    """Return the entries by key. What an account has nothing of is left to the server."""
    content: dict[str, Any] = {}
    logins: set[str] = set()
    missing: list[str] = []
    for account in sorted(found.accounts, key=lambda item: ("@" in item.name, item.name)):
        entry = _entry(account, _login(found, account, logins), draft)
        password = _password(found, account, submissions, draft)
        whole = entry | ({"password": {password.source: password.name}} if password else {})
        if not draft.fits(account.address, dict[AccountName, AccountEntry], {account.name: whole}):
            continue
        if password is not None:
            entry["password"] = password
            if not account.enforce_password:
                entry["enforce_password"] = Noted(value=False, beside="stored in clear text, which can't be compared")
        elif _shows_no_hashes(found):  # up to 0.15 the survey has said why there is none
            missing.append(account.name)
        content[account.name] = entry
    return content | _with_advice(found, missing, content, draft)


def _login(found: Found, account: Account, taken: set[str]) -> str | None:
    """Return the login where it has to be said: where it is not the local part, or another account has that.

    From 0.16 the address is the login, and the directory's is not used; but one stands once there, as up to 0.15.
    """
    usual = account.name.partition("@")[0]
    login = account.login if isinstance(account.login, str) else usual
    if _shows_no_hashes(found):
        login = account.name if usual in taken else usual
    taken.add(login)
    return login if login != usual else None


def _entry(account: Account, login: str | None, draft: Draft) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    if _may_stand(account, "description", account.description, draft):
        entry["description"] = account.description
    if isinstance(account.roles, tuple):
        entry["roles"] = list(account.roles)
    if login:
        entry["login"] = login
    if isinstance(account.aliases, tuple) and account.aliases:
        entry["aliases"] = list(account.aliases)
    if isinstance(account.groups, tuple) and account.groups:
        entry["groups"] = list(account.groups)
    if isinstance(account.quota, int):
        entry["quota"] = _size(account.quota)
    if account.locked is True:
        entry["locked"] = True
    if isinstance(account.locale, str) and _may_stand(account, "locale", account.locale, draft):
        entry["locale"] = account.locale
    return entry


def _size(amount: int) -> str:
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if amount % 1024**power == 0:
            return f"{amount // 1024**power} {unit}"
    return str(amount)


def _password(found: Found, account: Account, submissions: Sequence[Submission], draft: Draft) -> SecretRef | None:
    """Return where the password is: the administrator's own, a consumer's in clear, or else the stored hash."""
    stored = found.server.hashes.get(account.name) if found.server else None
    if found.is_administrator(account) and _opens(found.environ.get(ADMINISTRATOR.name, ""), stored, found):
        return ADMINISTRATOR
    clear = next((item.password for item in submissions if item.account == account.name), None)
    value = clear if clear is not None else stored
    return draft.keep(account.name, value) if value and draft.keeps(account.address, value) else None


def _opens(value: str, stored: str | None, found: Found) -> bool:
    """Whether a password is an account's; from 0.16, which shows no hashes, the login itself has proved it."""
    from reconciler.targets.stalwart.passwords import matches

    if _shows_no_hashes(found):
        return True
    return bool(value and stored and matches(value, stored))


def _shows_no_hashes(found: Found) -> bool:
    return found.server is not None and found.server.generation == "jmap"


def _with_advice(found: Found, names: Sequence[str], content: Mapping[str, Any], draft: Draft) -> dict[str, Noted]:
    """Say of the accounts without a password, all at once and at each, where a person can put it."""
    if not names:
        return {}
    variables = _variables(found)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    summary = f"the server shows no passwords; a restore could not bring back that of {', '.join(names[:_NAMED])}{more}"
    hint = f"write where it is into the entry, as the comment there says: `password: {{env: {variables[names[0]]}}}`"
    draft.note("accounts", summary, hint)
    return {
        name: Noted(content[name], tuple(line.format(name=variables[name]) for line in NO_PASSWORD)) for name in names
    }


def _variables(found: Found) -> dict[str, str]:
    """Name a variable for each account's password: after its local part, or its address where two would share one."""
    short = {account.name: _variable(account.name.partition("@")[0]) for account in found.accounts}
    times = Counter(short.values())
    return {name: word if times[word] == 1 else _variable(name) for name, word in short.items()}


def _variable(text: str) -> str:
    word = "".join(char if char.isascii() and char.isalnum() else "_" for char in text)
    return f"{'_' if word[:1].isdigit() else ''}{word.upper()}_PASSWORD"


# --------------------------------------------------------------------------------------------- groups, lists, domains
def groups(found: Found, draft: Draft) -> dict[str, Any]:
    """Return the shared mailboxes by their address. One without an address is named by the accounts in it alone."""
    content: dict[str, Any] = {}
    for item in sorted(found.of(Group), key=lambda item: item.name):
        if "@" not in item.name:
            hint = "give it an address on the server, and import again; the accounts in it say so all the same"
            draft.note(item.address, "left out: it has no address", hint)
            continue
        content |= _fitting(item, ("description", "aliases"), dict[Email, GroupEntry], draft)
    return content


def lists(found: Found, draft: Draft) -> dict[str, Any]:
    """Return the mailing lists by their address. Members that are lists themselves get nothing, and can't be said."""
    content: dict[str, Any] = {}
    own = {address for item in found.of(MailingList) for address in item.mailboxes}
    for item in sorted(found.of(MailingList), key=lambda item: item.name):
        names = ["description", "aliases", "members"]
        nested = [address for address in item.members if address in own] if isinstance(item.members, tuple) else []
        if nested:
            names.remove("members")
            summary = f"its members are left out: {', '.join(nested[:_NAMED])} is a list, to which no mail is passed on"
            draft.note(item.address, summary, "write the members of that list in its place")
        content |= _fitting(item, names, dict[Email, ListEntry], draft)
    return content


def shared(found: Found, draft: Draft) -> dict[str, Any]:
    """Return all that has an address and no login, by the maps of the YAML; one without entries is left out.

    A further kind has a function beside these, and an entry here.
    """
    made = {"groups": groups(found, draft), "lists": lists(found, draft)}
    return {name: entries for name, entries in made.items() if entries}


def domains(found: Found, keys: Mapping[str, Any], draft: Draft) -> dict[str, Any]:
    """Return the domains of which more is to be said than that they exist, and those that nothing else would bring.

    ``keys`` are what `dkim.yaml` says of each domain.
    """
    named = {name for name, entry in keys.items() if not (isinstance(entry, Noted) and entry.out)}
    homes = {*named, *(address.rpartition("@")[2] for address in found.addresses)}
    own = {item.name for item in found.of(Domain)}
    content: dict[str, Any] = {}
    for item in sorted(found.of(Domain), key=lambda item: item.name):
        names = ["description", "catch_all", "aliases"]
        taken = sorted({*own, *homes} & set(item.aliases if isinstance(item.aliases, tuple) else ()))
        if taken:
            names.remove("aliases")
            summary = f"its aliases are left out: {', '.join(taken[:_NAMED])} is a domain of its own"
            draft.note(item.address, summary, "keep one of the two on the server")
        switched_off = item.sub_addressing is False and _shows_no_hashes(found)  # up to 0.15 it is one switch for all
        usual = {"sub_addressing": False} if switched_off else {}
        made = _fitting(item, names, dict[DomainName, DomainEntry], draft, usual)
        content |= {name: entry for name, entry in made.items() if entry or name not in homes}
    return content


def _fitting(
    item: Any, names: Sequence[str], form: Any, draft: Draft, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a resource's entry under its name, without what it has nothing of and what the directory can't say."""
    if not draft.fits(item.address, form, {item.name: {}}):
        return {}
    entry = dict(more or {})
    for name in names:
        value = getattr(item, name)
        said = list(value) if isinstance(value, tuple) else value
        if _may_stand(item, name, said, draft) and draft.fits(item.address, form, {item.name: {name: said}}):
            entry[name] = said
    return {item.name: entry}


def _may_stand(item: Any, name: str, value: Any, draft: Draft) -> bool:
    """Whether there is something to write that is no secret: people put passwords into descriptions."""
    if isinstance(value, str) and is_secret_form(value):
        draft.note(item.address, f"its {name} is left out: it looks like a secret", "write one that holds none")
        return False
    return isinstance(value, str | list) and bool(value)
