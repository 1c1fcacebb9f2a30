"""Accounts, groups and lists, their addresses and their domains: a mailbox that goes does not come back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from reconciler.guards.evidence import Evidence, refuse, warn
from reconciler.problem import Problem
from reconciler.resources import UNMANAGED, Account, Domain, Group, Resource
from reconciler.target import Change, Reason


def domain_in_use(evidence: Evidence) -> Iterator[Problem]:
    """A domain goes only when nobody has an address there: the server would leave accounts without a domain."""
    gone = {change.address for change in evidence.plan.changes if change.deletes}
    for change in evidence.plan.changes:
        if not (change.deletes and isinstance(change.resource, Domain)):
            continue
        users = [live.resource for live in evidence.live if _uses(live.resource, change.resource.name)]
        left = [item for item in users if item.address not in gone]
        if left:
            hint = f"remove {', '.join(item.address for item in left)} too, or keep the domain"
            what = "accounts" if all(isinstance(item, Account) for item in left) else "accounts, groups or lists"
            yield refuse(change.address, f"{len(left)} {what} still have an address there", hint, "stalwart")


def _uses(resource: Resource, domain: str) -> bool:
    own = (resource.name,) if isinstance(resource, Account) else ()
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
    """Removing an account or a group destroys its mailbox: said loudly, and refused for a login still in use."""
    for change in evidence.plan.changes:
        account = change.resource
        if not (change.deletes and isinstance(account, Account | Group)):
            continue
        service = next(evidence.consumers(account), None) if isinstance(account, Account) else None
        if service is not None:
            hint = "switch the consumer to another provider or account first"
            yield refuse(change.address, f"{service} logs in with it", hint, "stalwart")
        elif isinstance(account, Account) and evidence.policy.administrator.lower() in (account.name, account.login):
            yield refuse(
                change.address, "reconciler itself logs in with it", "change targets.stalwart first", "stalwart"
            )
        elif change.reason is not Reason.REMOVED:
            hint = f"say so in the directory: `removed: [{change.address}]`"
            yield refuse(change.address, "its removal destroys a mailbox", hint, "stalwart")
        else:
            yield warn(change.address, "its mailbox and every mail in it are destroyed", "there is no way back")
