"""What is remembered of the plans that pull requests show: what was planned, and what a merge has approved by it.

    DATA/pulls-STACK.json

Losing it loses consent and words, never safety: everything is planned and posted anew, and what was merged meanwhile is
held until a person approves it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from reconciler import files
from reconciler.plan import Approved

_VERSION = 1
_MERGED = 20  # pull requests that are remembered after their merge


@dataclass(frozen=True, slots=True)
class Posted:
    """The plan that was posted last on a pull request: of its ``head``, of a directory by its ``digest``.

    ``merged`` is the commit that brought it into the branch, as GitHub says; empty until it does.
    """

    head: str
    digest: str
    changes: Approved
    merged: str = ""

    def counts(self, came: Collection[str], digest: str) -> bool:
        """Whether it is of what is to be applied: a directory of this ``digest``, which got there by these commits.

        Until GitHub has said how it was merged, the same directory to the byte is it.
        """
        return self.head in came or (self.merged in came if self.merged else self.digest == digest)

    def as_dict(self) -> dict[str, Any]:
        """Write it."""
        changes = {address: [told, sorted(unknown)] for address, (told, unknown) in self.changes.items()}
        return {"head": self.head, "digest": self.digest, "merged": self.merged, "changes": changes}

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Self:
        """Read it. Raises LookupError, TypeError and ValueError for what is damaged."""
        texts = (value["head"], value["digest"], value["merged"])
        changes = {str(name): (str(told), frozenset(map(str, more))) for name, (told, more) in value["changes"].items()}
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("texts")
        return cls(texts[0], texts[1], changes, texts[2])


@dataclass(frozen=True, slots=True)
class Planned:
    """What was planned of one pull request: which ``head``, into which ``base`` (a directory's digest).

    ``live`` says of what was live then, ``at`` when it was. ``next`` is when it is tried again after so many ``tries``
    in vain, ``why`` what was wrong. ``shown`` says whether a comment of ours stands there.
    """

    head: str = ""
    base: str = ""
    live: str = ""
    at: str = ""
    tries: int = 0
    next: str = ""
    why: str = ""
    shown: bool = False
    posted: Posted | None = None

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Self:
        """Read it. Raises as `Posted.parse`."""
        texts = {name: value[name] for name in ("head", "base", "live", "at", "next", "why")}
        if not all(isinstance(text, str) for text in texts.values()):
            raise TypeError("texts")
        for name in ("at", "next"):
            if texts[name]:
                datetime.fromisoformat(texts[name])
        posted = value["posted"] and Posted.parse(value["posted"])
        return cls(**texts, tries=int(value["tries"]), shown=value["shown"] is True, posted=posted or None)

    def as_dict(self) -> dict[str, Any]:
        """Write it."""
        return asdict(replace(self, posted=None)) | {"posted": self.posted.as_dict() if self.posted else None}


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of each pull request, by its number; and after how many ``tries`` GitHub is asked again, and when.

    ``merged`` are plans of those that are closed.
    """

    pulls: Mapping[int, Planned] = field(default_factory=dict)
    merged: tuple[Posted, ...] = ()
    tries: int = 0
    next: str = ""
    why: str = ""

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read it. Raises as `Posted.parse`."""
        if value["v"] != _VERSION:
            raise ValueError(value["v"])
        if value["next"]:
            datetime.fromisoformat(value["next"])
        pulls = {int(number): Planned.parse(item) for number, item in value["pulls"].items()}
        merged = tuple(map(Posted.parse, value["merged"]))
        return cls(pulls, merged, int(value["tries"]), str(value["next"]), str(value["why"]))

    def as_json(self) -> bytes:
        """Write it."""
        pulls = {str(number): item.as_dict() for number, item in self.pulls.items()}
        merged = [item.as_dict() for item in self.merged]
        known = {"tries": self.tries, "next": self.next, "why": self.why}
        return json.dumps({"v": _VERSION, "pulls": pulls, "merged": merged, **known}).encode()

    def knowing(self, number: int, item: Planned) -> Self:
        """Note what is known of one of them by now."""
        return replace(self, pulls={**self.pulls, number: item})

    def closed(self, number: int, merged: str) -> Self:
        """Forget one; of one that was merged, by a commit, what was posted last is kept a while."""
        pulls = {known: item for known, item in self.pulls.items() if known != number}
        found = self.pulls[number].posted
        more = (replace(found, merged=merged),) if found and merged else ()
        return replace(self, pulls=pulls, merged=(*self.merged, *more)[-_MERGED:])


def place(data: Path, stack: str) -> Path:
    """Return where it is kept."""
    return data / f"pulls-{stack}.json"


def approved(data: Path, stack: str, came: Collection[str], digest: str) -> tuple[Approved, ...]:
    """Return the posted plans that count for a directory, by its digest and the commits by which it came."""
    kept = files.recall(place(data, stack), Kept.parse)[0] or Kept()
    every = (*(item.posted for item in kept.pulls.values()), *kept.merged)
    return tuple(item.changes for item in every if item is not None and item.counts(came, digest))
