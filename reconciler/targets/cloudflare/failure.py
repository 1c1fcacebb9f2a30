"""What can go wrong between us and Cloudflare, told apart by what may have happened there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reconciler.problem import Problem


class Failure(Exception):
    """A request that did not do what it should: ``summary`` is the cause, ``hint`` the remedy."""

    def __init__(self, summary: str, hint: str = "") -> None:
        super().__init__(summary)
        self.summary = summary
        self.hint = hint

    def problem(self, where: str, scope: str = "") -> Problem:
        """Say at an address what went wrong; ``scope`` is what it blocks."""
        return Problem(where, self.summary, self.hint, scope=scope)


class Unsent(Failure):
    """No connection: nothing can have happened."""


class Lost(Failure):
    """No answer, or none that can be read: what was asked for may have happened."""


class Torn(Failure):
    """A listing that contradicts itself."""


class Throttled(Failure):
    """Refused for its rate: nothing happened, and nothing will for ``seconds``."""

    def __init__(self, summary: str, seconds: float) -> None:
        super().__init__(summary, "run it again when Cloudflare's limit (1,200 requests in 5 minutes) allows")
        self.seconds = seconds


class Refused(Failure):
    """The API said no: nothing happened. ``final`` is a no to whatever else is asked of this zone."""

    def __init__(self, what: str, text: str, hint: str, codes: frozenset[int], *, final: bool) -> None:
        super().__init__(f"{what}: {text}", hint)
        self.text = text
        self.codes = codes
        self.final = final


INVALID_TOKEN = 9109
TOKEN_CODES = frozenset({6003, 6102, 6103, 6111, 9106, INVALID_TOKEN})
ROUTE_CODES = frozenset({7000, 7003})
MISSING = 81044
QUOTA = 81045
CONTRADICTED = frozenset({MISSING, 81053, 81054, 81056, 81057, 81058})  # by what is there now
HINTS = {
    9003: "set proxied: false",
    9004: "set proxied: false: only A, AAAA and CNAME can be proxied",
    9021: "ttl must be auto, or 60 to 86400 seconds",
    9041: "set proxied: false",
    9300: "remove tags: the zone's plan has none left",
    9313: "shorten the comment: our mark needs a part of Cloudflare's 100 characters",
    MISSING: "it changed since the plan: plan again",
    QUOTA: "remove records that are not needed, or choose a larger plan at Cloudflare",
    81053: "a CNAME stands alone at its name (RFC 1034 section 3.6.2): declare or remove the other record",
    81054: "a CNAME stands alone at its name (RFC 1034 section 3.6.2): declare or remove it",
    81056: "NS records delegate the whole name: nothing but DS can stand beside them",
    81057: "plan again: an equal record is adopted",
    81058: "plan again: an equal record is adopted",
}


def leaves(errors: Any) -> Iterator[tuple[int, str]]:
    """Yield code and text of errors; what is useful stands at the end of their chains (terraform#3217)."""
    for error in errors if isinstance(errors, list) else ():
        if not isinstance(error, dict):
            continue
        chain = list(leaves(error.get("error_chain")))
        yield from chain
        if not chain and isinstance(error.get("code"), int):
            yield error["code"], str(error.get("message") or "no reason given")
