"""Asks the declared router where it leads ports: once, with the login that the directory refers to."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler import url
from reconciler.checks.check import Unread
from reconciler.checks.evidence import Router
from reconciler.problem import SecretUnreadable
from reconciler.stack import Stack

if TYPE_CHECKING:
    from reconciler.desired.spec.targets import RouterEntry
    from reconciler.observe.router import Login


def gather(stack: Stack) -> Router | Unread | None:
    """Ask the router; None where none is declared. A login that was refused before is not sent."""
    from reconciler.observe import router

    entry = stack.spec.router
    if entry is None:
        return None
    host, port = entry.door
    found = Router(
        where=url.shown(host, port),
        needed=tuple(entry.forwards),
        to=entry.to or "",
        here=_here(host, port),
    )
    try:
        login = _login(stack, entry)
    except SecretUnreadable as error:
        return Unread(str(error))
    facts = (found.where, entry.username, login.password if login else "")
    if login and stack.refusals.holds(*facts):
        return replace(found, refuses="it was refused before")
    try:
        return replace(found, told=router.ask(host, port, login, entry.forwards))
    except router.RouterRefuses as error:
        if login:
            stack.refusals.add(*facts)
        return replace(found, refuses=str(error) if login else "it wants one, and router.password is not declared")
    except router.RouterSilent as error:
        return replace(found, silent=str(error))


def _login(stack: Stack, entry: RouterEntry) -> Login | None:
    from reconciler.observe.router import Login

    return Login(entry.username, stack.secrets(entry.password)) if entry.password else None


def _here(host: str, port: int) -> str:
    """Return the address under which the router knows this machine; nothing where it is not known."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, port))  # no packet is sent
        return str(probe.getsockname()[0])
    return ""
