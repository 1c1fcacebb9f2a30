"""`reconciler dkim list`: what the directory, the server and every name server say of each key."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from reconciler.cli import session
from reconciler.cli.session import Session
from reconciler.problem import Problem, ReconcilerError, Severity

if TYPE_CHECKING:
    from reconciler.dkim.verdict import Standing
    from reconciler.resources import Signature
    from reconciler.stack import Stack


@click.command("list")
@click.argument("domains", nargs=-1, metavar="[DOMAIN]...")
@session.command
def command(session: Session, *, domains: tuple[str, ...]) -> int:
    """Show each key: its stage, whether the server signs with it, whether every name server publishes it.

    Shows the keys of every DOMAIN that is declared or that Stalwart has, or of the given ones. What is wrong stands
    below with what to do. AGE counts the days of a stage or, where `since` is not declared, since the month in the
    selector; DNS says how many of the authoritative name servers show the key.

    Ends with 0, whatever it finds, or 1 where Stalwart or a name server could not be asked.
    """
    stack = _stack(session)
    server, problems = _server(stack)
    found = _chosen(stack.standings(server), domains, readable=server is not None)
    session.console.done()
    complete = (server is not None or "stalwart" not in stack.targets) and not any(item.unread for item in found)
    _show(session, found, problems, complete=complete)
    return 0 if complete else 1


def _stack(session: Session) -> Stack:
    """Connect to Stalwart alone where it takes part: the rest is asked of the name servers."""
    from reconciler.stack import Choice

    directory, chosen = session.directory(), session.options.target
    takes_part = directory.spec.targets.stalwart is not None and (not chosen or "stalwart" in chosen)
    return session.stack(directory, Choice(("stalwart",)) if takes_part else None)


def _server(stack: Stack) -> tuple[tuple[Signature, ...] | None, tuple[Problem, ...]]:
    """Return what Stalwart has, and what it reports of it; None where it is no target or can't be read."""
    from reconciler.resources import UNKNOWN, Signature

    if "stalwart" not in stack.targets:
        hint = "declare targets.stalwart, or leave --target out"
        return None, (Problem("Stalwart", "was not asked: it is no target here", hint, Severity.WARNING),)
    # Without the keys' halves: whether they could be written is a matter for `plan`.
    desired = (item for item in stack.desired().resources if isinstance(item, Signature))
    wanted = [replace(item, public_key=UNKNOWN, private_key=None) for item in desired]
    held, problems = stack.signatures(wanted)
    if held is None:
        return None, problems
    return held, tuple(item for item in problems if item.where.startswith("dkim"))


def _chosen(found: tuple[Standing, ...], domains: Sequence[str], *, readable: bool) -> tuple[Standing, ...]:
    """Keep the keys of some domains. Raises ReconcilerError for a domain of which there is none."""
    wanted = [_domain(name) for name in domains]
    known = {item.domain for item in found}
    for name in wanted:
        if name not in known:
            summary = "no key of it is declared" + (", and the server has none" if readable else "")
            hint = f"make one: reconciler dkim generate {name}"
            if known:
                hint += f"; there are keys of {', '.join(sorted(known))}"
            raise ReconcilerError(Problem(name, summary, hint))
    return tuple(item for item in found if not wanted or item.domain in wanted)


def _domain(name: str) -> str:
    from reconciler.dns.names import host

    try:
        return host(name)
    except ValueError as error:
        raise ReconcilerError(Problem(name, str(error), "name a domain such as example.com")) from None


def _show(session: Session, found: tuple[Standing, ...], problems: tuple[Problem, ...], *, complete: bool) -> None:
    from reconciler.report import dkim

    if session.console.output == "json":
        session.console.document(dkim.document(found, problems, complete=complete))
    elif session.console.output == "markdown":
        session.console.text(dkim.page(found, problems))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        session.console.text(dkim.table(found, session.style, problems, width))
