"""Accounts, groups and lists, their addresses and their domains: a mailbox that goes does not come back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from reconciler.guards.evidence import Evidence, refuse, warn
from reconciler.problem import Problem
from reconciler.resources import UNMANAGED, Account, Domain, Group, Live, Observation, Resource, Setting
from reconciler.target import Change, Reason


def domain_in_use(evidence: Evidence) -> Iterator[Problem]:
    """A domain goes only when nobody has an address there: the server would leave accounts without a domain."""
    gone = {change.address for change in evidence.plan.changes if change.deletes}
    for change in evidence.plan.changes:
        domain = change.resource
        if not (change.deletes and isinstance(domain, Domain)):
            continue
        users = [live.resource for live in evidence.live if _uses(live.resource, domain.name)]
        left = [item for item in users if item.address not in gone]
        if left:
            hint = f"remove {', '.join(item.address for item in left)} too, or keep the domain"
            what = (
                "accounts" if all(isinstance(item, Account) for item in left) else "accounts, groups, lists or domains"
            )
            yield refuse(change.address, f"{len(left)} {what} still have an address there", hint, "stalwart")
        if isinstance(domain.catch_all, str):
            hint = f"declare `catch_all: null` for {domain.name} and apply, then remove it"
            summary = f"its catch-all still takes mail for it, to {domain.catch_all}"
            yield refuse(change.address, summary, hint, "stalwart")


def _uses(resource: Resource, domain: str) -> bool:
    """Whether something lives in a domain: has an address there, or is a domain whose catch-all leads there."""
    own = (resource.name,) if isinstance(resource, Account) else ()
    if isinstance(resource, Domain) and resource.name != domain and isinstance(resource.catch_all, str):
        own = (resource.catch_all,)
    return any(address.endswith(f"@{domain}") for address in (*own, *resource.mailboxes))


def address_taken(evidence: Evidence) -> Iterator[Problem]:
    """An address is one thing's: another gets it only when this plan takes it away from the first."""
    return _taken(evidence, "address", lambda item: item.mailboxes)


def domain_taken(evidence: Evidence) -> Iterator[Problem]:
    """A name is one domain's, as its own or as an alias: another gets it only when this plan takes it away there."""
    return _taken(evidence, "alias", _names)


def _names(resource: Resource) -> tuple[str, ...]:
    if not isinstance(resource, Domain):
        return ()
    return (resource.name, *(resource.aliases if isinstance(resource.aliases, tuple) else ()))


def _taken(evidence: Evidence, what: str, names: Callable[[Resource], Iterable[str]]) -> Iterator[Problem]:
    """Refuse what a change takes from a live thing that keeps it, or that is removed only afterwards."""
    changes = evidence.plan.changes
    changed = {(item.kind, item.before.id): item for item in changes if item.before is not None}
    held = {name: live for live in evidence.live for name in names(live.resource)}
    for change in changes:
        for name in names(change.after) if change.after is not None else ():
            live = held.get(name)
            if live is None or (change.before is not None and _same(live.resource, live.id, change)):
                continue
            holder, other = live.resource.address, changed.get((live.resource.kind, live.id))
            if other is None or (other.after is not None and name in names(_afterwards(other.after, live.resource))):
                hint = f"take it from there: declare {holder} without it, as its aliases or its address"
                yield refuse(change.address, f"{name} is an {what} of {holder}", hint, "stalwart")
            elif other.deletes:
                hint = f"remove that first: reconciler apply --only {holder}"
                yield refuse(change.address, f"{name} is still an {what} of {holder}, which goes", hint, "stalwart")


def _same(resource: Resource, id: str, change: Change) -> bool:
    return change.before is not None and (resource.kind, id) == (change.kind, change.before.id)


def _afterwards(after: Resource, before: Resource) -> Resource:
    """Fill in what a change leaves as it is: what is unmanaged stays."""
    kept = (name for name in ("email", "aliases") if getattr(after, name, None) is UNMANAGED)
    return replace(after, **{name: getattr(before, name) for name in kept})


def group_in_use(evidence: Evidence) -> Iterator[Problem]:
    """A group goes only when nobody is in it any more: from 0.16 the server refuses it otherwise."""
    changed = {change.address: change.after for change in evidence.plan.changes}
    for change in evidence.plan.changes:
        if not (change.deletes and isinstance(change.resource, Group)):
            continue
        left = []
        for live in (item.resource for item in evidence.live if isinstance(item.resource, Account)):
            after = changed.get(live.address, live)
            groups = after.groups if isinstance(after, Account) and after.groups is not UNMANAGED else live.groups
            if after is not None and isinstance(groups, tuple) and change.resource.name in groups:
                left.append(live.address)
        if left:
            hint = "declare their `groups` without it, or remove them too"
            verb = "belongs" if len(left) == 1 else "belong"
            yield refuse(change.address, f"{', '.join(sorted(left))} still {verb} to it", hint, "stalwart")


def account_goes(evidence: Evidence) -> Iterator[Problem]:
    """Removing what keeps mail destroys it: said loudly, and refused for a login still in use."""
    for change in evidence.plan.changes:
        if not (change.deletes and change.resource.keeps_mail):
            continue
        account = change.resource if isinstance(change.resource, Account) else None
        service = next(evidence.consumers(account), None) if account else None
        if service is not None:
            hint = "switch the consumer to another provider or account first"
            yield refuse(change.address, f"{service} logs in with it", hint, "stalwart")
        elif account and _is_ours(change, account, evidence):
            yield refuse(
                change.address, "reconciler itself logs in with it", "change targets.stalwart first", "stalwart"
            )
        elif change.reason is not Reason.REMOVED:
            hint = f"say so in the directory: `removed: [{change.address}]`"
            yield refuse(change.address, "its removal destroys a mailbox", hint, "stalwart")
        else:
            yield warn(change.address, "its mailbox and every mail in it are destroyed", "there is no way back")


# --------------------------------------------------------------------------------------------------- our own access
def _is_ours(change: Change, account: Account, evidence: Evidence) -> bool:
    """Whether an account is the one that the reconciler gets in as: to the server, or by its name in the directory."""
    ids = [seen.account for seen in evidence.observations.values() if seen.account]
    known = change.before is not None and change.before.id in ids
    return known or evidence.policy.administrator.lower() in (account.name, account.login)


def own_access(evidence: Evidence) -> Iterator[Problem]:
    """The reconciler never takes its own way in: nobody but a person at the server could give it back."""
    for seen in evidence.observations.values():
        own = next((it for it in seen.live if isinstance(it.resource, Account) and it.id == seen.account), None)
        us = own if seen.account else None
        for change in evidence.plan.changes:
            if change.target == seen.target and (seen.account or seen.login):
                for cost, hint in _costs(change, us, seen, evidence):
                    summary = f"reconciler itself logs in as {seen.login or seen.account}, and {cost}"
                    yield refuse(change.address, summary, hint, seen.target)


def _costs(change: Change, us: Live | None, seen: Observation, evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Yield what of our access a change takes, and what to do first."""
    resource = change.resource
    domain = seen.login.rpartition("@")[2]
    if us is not None and isinstance(us.resource, Account):
        if isinstance(resource, Account) and change.before is not None and change.before.id == us.id:
            yield from _own_account(change, us.resource, seen, evidence)
        if isinstance(resource, Setting) and (cost := _own_rights(change, us.resource, evidence)):
            yield cost, "give it `roles: [admin]` first, or leave this as it is"
        if isinstance(resource, Setting) and seen.generation == "jmap" and _renames(change, us.resource, evidence):
            yield "another default domain makes another account of that name", "name it by its address there first"
    elif isinstance(resource, Setting) and resource.word.startswith(_FALLBACK):
        yield "this is where its login stands", "declare an account of its own first, and name it in targets.stalwart"
    if isinstance(resource, Domain) and change.before is not None and domain:
        have, want = change.fields.get("aliases", ((), ()))
        lost = {*_tuple(have)} - {*_tuple(want)} | ({resource.name} if change.deletes else set())
        if domain in lost:
            yield f"{domain} goes", "change targets.stalwart first"


def _own_account(change: Change, us: Account, seen: Observation, evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Yield what a change of the account that we are takes."""
    first = "change targets.stalwart first"
    after = change.after
    if not isinstance(after, Account):  # `account_goes` tells
        return
    names = {after.login, us.login} if seen.generation == "rest" else {*us.mailboxes}
    left = {after.login} if seen.generation == "rest" else {*_afterwards(after, us).mailboxes}
    renamed = {"login", "email", "aliases"} & change.fields.keys()
    if seen.login and renamed and seen.login in names and seen.login not in left:
        yield "it gets another name", f"{first}, to an account that stays"
    if "locked" in change.fields and after.locked is True:
        yield "nobody could log in as it any more", f"{first}, to an account that stays open"
    before, roles = (_tuple(value) for value in change.fields.get("roles", ((), ())))
    groups = change.fields.get("groups", ((), ()))
    kept = roles if "roles" in change.fields else _tuple(us.roles)
    if "admin" not in kept and (set(before) - set(roles) or {*_tuple(groups[0])} - {*_tuple(groups[1])}):
        yield "it loses rights", "let it keep `roles: [admin]`, or name another administrator in targets.stalwart first"
    listed = evidence.policy.passwords
    if seen.login and listed and "password" in change.fields and after.password not in listed:
        hint = f"write {after.password} as the first of a list under targets.stalwart.password, before the present one"
        yield f"its password becomes {after.password}, which targets.stalwart.password does not name", hint


_DIRECTORIES = ("settings/storage.directory", "settings/directory.", "objects/Authentication/directoryId")
_FALLBACK = ("settings/authentication.fallback-admin.", "settings/config.local-keys")
_DEFAULT_DOMAIN = ("default_domain", "objects/SystemSettings/defaultDomainId")


def _renames(change: Change, us: Account, evidence: Evidence) -> bool:
    """Whether a bare name that we log in with becomes that of another account: it is one in the default domain."""
    word, name = change.resource.word if isinstance(change.resource, Setting) else "", evidence.policy.username
    after = change.after.value if isinstance(change.after, Setting) else None
    return word in _DEFAULT_DOMAIN and name != "" and "@" not in name and f"{name}@{after}".lower() not in us.mailboxes


def _own_rights(change: Change, us: Account, evidence: Evidence) -> str:
    """Say what a raw setting takes of the account that we are; empty where it takes nothing."""
    word = change.resource.word if isinstance(change.resource, Setting) else ""
    if word.startswith(_DIRECTORIES) or (word.startswith("objects/Directory/") and change.before is not None):
        return "another directory may not know it"
    if word.startswith("settings/config.local-keys"):
        return "the server would take settings from elsewhere, that of its directory among them"
    roles = {role.lower() for role in _tuple(us.roles)}
    if word == "objects/Authentication/defaultAdminRoleIds":
        return "this takes roles of administrators" if "admin" in roles else ""
    if word == "objects/Authentication/defaultUserRoleIds":
        return "this takes roles of users" if roles == {"user"} else ""
    parts = word.split("/")
    known = _with_roles_below(roles | ({"system administrator"} if "admin" in roles else set()), evidence)
    if parts[:2] == ["objects", "Role"] and "/".join(parts[2:-1]).lower() in known:
        have, want = (frozenset(_items(value)) for value in change.fields.get("value", ((), ())))
        loses = want - have if parts[-1] == "disabledPermissions" else have - want
        return "this takes rights of its role" if loses else ""
    return ""


def _with_roles_below(roles: set[str], evidence: Evidence) -> set[str]:
    """Add the roles that roles consist of, as far as they were looked at."""
    live = (item.resource for item in evidence.live)
    parts = [it for it in live if isinstance(it, Setting) and it.word.startswith("objects/Role/")]
    below = {it.word.split("/", 2)[2].removesuffix("/roleIds").lower(): it for it in parts if "/roleIds" in it.word}
    known, left = set(roles), [*roles]
    while left:
        setting = below.get(left.pop())
        new = {name.lower() for name in _items(setting.value)} - known if setting else set()
        known |= new
        left += new
    return known


def _items(value: Any) -> Iterator[str]:
    yield from map(str, value) if isinstance(value, list | tuple | dict) else ()


def _tuple(value: Any) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else ()
