"""Accounts, their addresses and their domains: a mailbox that goes does not come back."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.guards.evidence import Evidence, mail_addresses, refuse, warn
from reconciler.problem import Problem
from reconciler.resources import Account, Domain
from reconciler.target import Change, Reason


def domain_in_use(evidence: Evidence) -> Iterator[Problem]:
    """A domain goes only when nobody has an address there: the server would leave accounts without a domain."""
    gone = {change.address for change in evidence.plan.changes if change.deletes}
    for change in evidence.plan.changes:
        if not (change.deletes and isinstance(change.resource, Domain)):
            continue
        name = change.resource.name
        users = [live.resource.address for live in evidence.live if _uses(live.resource, name)]
        left = [address for address in users if address not in gone]
        if left:
            hint = f"remove {', '.join(left)} too, or keep the domain"
            yield refuse(change.address, f"{len(left)} accounts still have an address there", hint, "stalwart")


def _uses(resource: object, domain: str) -> bool:
    if not isinstance(resource, Account):
        return False
    aliases = resource.aliases if isinstance(resource.aliases, tuple) else ()
    return any(str(address).endswith(f"@{domain}") for address in (resource.name, resource.email, *aliases))


def address_taken(evidence: Evidence) -> Iterator[Problem]:
    """An address is one account's: another gets it only when this plan takes it away from the first."""
    accounts = [change for change in evidence.plan.changes if isinstance(change.resource, Account)]
    changed = {change.before.id: change for change in accounts if change.before is not None}
    held = {
        address: live
        for live in evidence.live
        if isinstance(live.resource, Account)
        for address in mail_addresses(live.resource)
    }
    for change in accounts:
        for address in mail_addresses(change.after) if isinstance(change.after, Account) else ():
            live = held.get(address)
            if live is None or (change.before is not None and live.id == change.before.id):
                continue
            holder, other = live.resource.address, changed.get(live.id)
            if other is None or (other.after is not None and not _gives_up(other, address)):
                hint = f"take it from there: declare {holder} without it, as its aliases or its address"
                yield refuse(change.address, f"{address} is an address of {holder}", hint, "stalwart")
            elif other.deletes:
                hint = f"remove that first: reconciler apply --only {holder}"
                yield refuse(change.address, f"{address} is still an address of {holder}, which goes", hint, "stalwart")


def _gives_up(change: Change, address: str) -> bool:
    """Whether an account no longer has an address after its change; what is unmanaged stays."""
    after, before = change.after, change.before.resource if change.before else None
    if not isinstance(after, Account) or not isinstance(before, Account):
        return False
    email = after.email if isinstance(after.email, str) else before.email
    aliases = after.aliases if isinstance(after.aliases, tuple) else before.aliases
    return address not in (email, *(aliases if isinstance(aliases, tuple) else ()))


def account_goes(evidence: Evidence) -> Iterator[Problem]:
    """An account's removal destroys its mailbox: said loudly, and refused for a login that is still in use."""
    for change in evidence.plan.changes:
        account = change.resource
        if not (change.deletes and isinstance(account, Account)):
            continue
        service = next(evidence.consumers(account), None)
        if service is not None:
            hint = "switch the consumer to another provider or account first"
            yield refuse(change.address, f"{service} logs in with it", hint, "stalwart")
        elif evidence.policy.administrator.lower() in (account.name, account.login):
            yield refuse(
                change.address, "reconciler itself logs in with it", "change targets.stalwart first", "stalwart"
            )
        elif change.reason is not Reason.REMOVED:
            hint = f"say so in the directory: `removed: [{change.address}]`"
            yield refuse(change.address, "its removal destroys a mailbox", hint, "stalwart")
        else:
            yield warn(change.address, "its mailbox and every mail in it are destroyed", "there is no way back")
