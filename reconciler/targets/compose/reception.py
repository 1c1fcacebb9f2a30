"""Whether a provider takes mail, asked again and again: what is asked each time, and when a login is tried at all.

A mail server bans who keeps trying logins. One that was accepted is not tried again while server, name and password are
the same; one that was refused is not until one of them is another (`reconciler.refusals`); one that the server did not
decide on (454, no answer) is, with growing pauses.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reconciler.problem import Problem, SecretUnreadable
from reconciler.resources import Login, SecretRef, Special
from reconciler.targets.compose.proof import Credentials, Proof, greet, prove, refused_before

if TYPE_CHECKING:
    from reconciler.refusals import Refusals
    from reconciler.target import Reveal
    from reconciler.targets.compose.doors import Doors

_FIRST = 60.0  # seconds until a login that was not decided on is tried again, doubled each time
_LAST = 3600.0


@dataclass(frozen=True, slots=True)
class Reception:
    """Whether mail is taken, None where that can't be told, and why not; ``refused`` where it is for the login."""

    taken: bool | None
    why: Problem | None = None
    refused: bool = False


@dataclass(slots=True)
class Tried:
    """What is known of the logins that were tried: the last one that was accepted, and one that was not decided on."""

    accepted: tuple[str, ...] = field(default=(), repr=False)
    undecided: tuple[str, ...] = field(default=(), repr=False)
    last: Reception = Reception(None)
    pause: float = _FIRST
    retry: float = 0.0

    def accept(self, facts: tuple[str, ...]) -> Reception:
        """Note that a login was accepted."""
        self.accepted, self.undecided = facts, ()
        return Reception(taken=True)

    def put_off(self, facts: tuple[str, ...], why: Problem) -> Reception:
        """Note that the server did not decide on a login."""
        self.pause = min(self.pause * 2, _LAST) if facts == self.undecided else _FIRST
        self.undecided, self.retry = facts, time.monotonic() + self.pause
        self.last = Reception(taken=False, why=why)
        return self.last

    def waits(self, facts: tuple[str, ...]) -> bool:
        """Whether it is too early to try a login again."""
        return facts == self.undecided and time.monotonic() < self.retry


def ask(login: Login, doors: Doors, refusals: Refusals, reveal: Reveal, tried: Tried | None) -> Reception:
    """Connect, begin TLS and say hello; log in only where that can tell something new, and never without ``tried``."""
    problem = greet(login, doors.of(login))
    if problem is not None:
        return Reception(taken=False, why=problem)
    try:
        credentials = _credentials(login, reveal)
    except SecretUnreadable as error:
        return Reception(None, error.problems[0])
    if credentials is None:  # nobody logs in, or which name to log in with is not known
        return Reception(taken=True)
    return _logged_in(credentials, doors, refusals, tried)


def _logged_in(credentials: Credentials, doors: Doors, refusals: Refusals, tried: Tried | None) -> Reception:
    login = credentials.login
    facts = (*doors.server(login), credentials.username, credentials.password)
    if refusals.holds(*facts):
        return Reception(taken=False, why=refused_before(login), refused=True)
    if tried is None or facts == tried.accepted or doors.is_unsafe(login):
        return Reception(taken=True)
    if tried.waits(facts):
        return tried.last
    return _judged(prove(credentials, doors.of(login)), facts, refusals, tried)


def _credentials(login: Login, reveal: Reveal) -> Credentials | None:
    name = login.username
    if isinstance(name, Special) or name is None or login.password is None:
        return None
    return Credentials(login, reveal(name) if isinstance(name, SecretRef) else name, reveal(login.password))


def _judged(proof: Proof, facts: tuple[str, ...], refusals: Refusals, tried: Tried) -> Reception:
    if proof.refused and proof.sent and proof.answered:
        refusals.add(*facts)
        return Reception(taken=False, why=proof.refused, refused=True)
    if proof.refused or proof.note:
        return tried.put_off(facts, proof.refused or Problem(facts[0], proof.note, "see the server's log"))
    return tried.accept(facts)
