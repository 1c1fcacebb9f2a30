"""What is remembered of the last good revision, so that a restart neither loses it nor loosens what it may do."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from reconciler import files
from reconciler.desired.load import Directory
from reconciler.desired.spec import Spec

_VERSION = 1
_PRUNES = ("never", "owned")  # the tighter one first
_APPROVALS = ("plan", "merge")
_TEXTS = ("digest", "commit", "subject", "author", "committer", "when", "signer", "reached")


@dataclass(frozen=True, slots=True)
class Limits:
    """A directory's ``policy``: how many deletions a plan may have, which records may go by absence, who approves."""

    max_deletes: int
    prune_dns: str
    approval: str = "merge"

    @classmethod
    def of(cls, spec: Spec) -> Limits:
        """Read them from what a directory says."""
        return cls(spec.policy.max_deletes, spec.policy.prune.dns, spec.policy.approval)

    def bounded(self, by: Limits) -> Limits:
        """Return what both allow."""
        return Limits(
            min(self.max_deletes, by.max_deletes),
            min(self.prune_dns, by.prune_dns, key=_PRUNES.index),
            min(self.approval, by.approval, key=_APPROVALS.index),
        )

    def hold(self, directory: Directory) -> Directory:
        """Return a directory with this in place of its own policy."""
        own = directory.spec.policy
        prune = own.prune.model_copy(update={"dns": self.prune_dns})
        said = {"max_deletes": self.max_deletes, "prune": prune, "approval": self.approval}
        policy = own.model_copy(update=said)
        return replace(directory, spec=directory.spec.model_copy(update={"policy": policy}))


@dataclass(frozen=True, slots=True)
class Taken:
    """The last good revision. ``digest`` is the directory's; ``own`` its own policy, ``before`` that of the one before.

    ``before`` is None where there was none. What is of the commit is empty without git.
    """

    digest: str
    own: Limits
    before: Limits | None = None
    commit: str = ""
    subject: str = ""
    author: str = ""
    committer: str = ""
    when: str = ""
    signer: str = ""
    reached: str = ""

    @classmethod
    def after(cls, last: Taken | None, directory: Directory, **commit: str) -> Taken:
        """Take a directory. Only another directory is the next revision: a commit that leaves it as it is is none."""
        before = None if last is None else last.before if last.digest == directory.digest else last.own
        return cls(directory.digest, Limits.of(directory.spec), before, **commit)

    def hold(self, directory: Directory) -> Directory:
        """Return a directory with the policy that counts for it: never looser than that of the one before."""
        return self.own.bounded(self.before or self.own).hold(directory)


def recall(path: Path) -> Taken | None:
    """Return what a file remembers; None where it is missing, damaged or a newer reconciler's."""
    return files.recall(path, parsed)[0]


def remember(path: Path, taken: Taken) -> None:
    """Write it down, durable. Raises OSError."""
    files.write_private(path, json.dumps(said(taken), indent=1).encode())


def said(taken: Taken) -> dict[str, Any]:
    """Return it as JSON has it."""
    return {"v": _VERSION, **asdict(taken)}


def parsed(said: Any) -> Taken:
    """Read it. Raises LookupError, TypeError and ValueError for what is damaged, or a newer reconciler's."""
    texts = {name: said[name] for name in _TEXTS}
    if said["v"] != _VERSION or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError(said)
    return Taken(own=_limits(said["own"]), before=said["before"] and _limits(said["before"]), **texts)


def _limits(said: Any) -> Limits:
    approval = said.get("approval", "merge")  # absent in what an older version wrote, which knew no other
    prune = _PRUNES[_PRUNES.index(said["prune_dns"])]
    return Limits(int(said["max_deletes"]), prune, _APPROVALS[_APPROVALS.index(approval)])
