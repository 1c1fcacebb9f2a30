"""A server whose accounts are kept in a directory of somebody else's (LDAP, SQL, OpenID): they are left alone.

Such a server refuses to make an account (0.15.5: http/src/management/principal.rs) or to set its password (0.16.18:
jmap/src/registry/mapping/principal.rs); domains, groups, lists, keys and settings are its own as everywhere. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from reconciler.problem import Problem, Severity
from reconciler.resources import Account, Live, Resource, Unreadable


def others(wanted: Iterable[Resource]) -> list[Resource]:
    """Return what is wanted besides accounts: the server can be asked for that."""
    return [item for item in wanted if not isinstance(item, Account)]


def as_wanted(live: Iterable[Live], wanted: Sequence[Resource], directory: str) -> Iterator[Live]:
    """Yield what is live, with the wanted accounts as if they were there and right: nothing is planned for them."""
    accounts = [item for item in wanted if isinstance(item, Account)]
    known = {item.address for item in accounts} | {item.email for item in accounts}
    for item in live:
        if not (isinstance(item.resource, Account) and known & {item.resource.address, item.resource.email}):
            yield item
    for account in accounts:
        there = replace(account, password=Unreadable(f"the directory {directory} knows it"))
        yield Live(there, fixed=f"it is kept in the directory {directory}")


def warning(wanted: Iterable[Resource], directory: str, where: str) -> Iterator[Problem]:
    """Say once that declared accounts are not kept by us. ``where`` is the server."""
    count = sum(isinstance(item, Account) for item in wanted)
    if count:
        what = f"the {count} accounts declared here are" if count > 1 else "the account declared here is"
        summary = f"keeps its accounts in the directory {directory}: {what} left alone, and all else is kept"
        hint = "make them there, and take them away here"
        yield Problem(where, summary, hint, Severity.WARNING)
