"""A plan as JSON: for programs, for anyone's eyes, and to be applied later while it is still true."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from reconciler.plan import Approved, Plan, Unmerged, fingerprint
from reconciler.problem import Problem, ReconcilerError, Refused
from reconciler.report import difference, markdown, summary, values
from reconciler.resources import Resource
from reconciler.target import Action, Change

FORMAT_VERSION = "1.0"  # additive within a major


def plan(plan: Plan, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a plan as the contract's "Plan as JSON". ``options`` are those it was made with, for a saved one."""
    return {
        "format_version": FORMAT_VERSION,
        "stack": plan.stack,
        "revision": plan.revision,
        "desired_hash": plan.desired_hash,
        "fingerprint": plan.fingerprint,
        "unmerged": _unmerged(plan.unmerged) if plan.unmerged else None,
        "failover": asdict(plan.failover) if plan.failover else None,
        "complete": plan.complete,
        "applyable": plan.applyable,
        "problems": [problem(item) for item in plan.problems],
        "changes": [change(item) | {"fingerprint": fingerprint(plan.stack, item)} for item in plan.changes],
        "adopted": [change(item) for item in plan.adopted],
        "held": [problem(item) for item in plan.held],
        "approvable": plan.complete and markdown.is_whole(plan),
        "drift": list(plan.drift),
        "unmanaged": list(plan.unmanaged),
        "unread": sorted(plan.unread),
        "lost": sorted(plan.lost),
        "last_whole": plan.last_whole,
        "head": list(plan.head),
        "receivers": [{"host": item.host, "secrets": list(map(str, item.secrets))} for item in plan.receivers],
        "unchanged": plan.unchanged,
        "summary": asdict(summary.counts(plan)),
        "options": dict(options or {}),
    }


def _unmerged(of: Unmerged) -> dict[str, Any]:
    """Return what a plan before a merge is of, what it does not use, and which secrets it does not read."""
    return {
        "base": of.base,
        "head": of.head,
        "unused": [difference.change(item) for item in of.unused],
        "unread": [{"reference": str(ref), **difference.place(place)} for ref, place in of.unread],
    }


def problem(problem: Problem) -> dict[str, str]:
    """Return a problem's five texts."""
    return {name: str(getattr(problem, name)) for name in ("where", "summary", "hint", "severity", "scope")}


def problems(problems: Sequence[Problem]) -> dict[str, Any]:
    """Return what a command that failed prints."""
    return {"format_version": FORMAT_VERSION, "problems": [problem(item) for item in problems]}


def change(change: Change) -> dict[str, Any]:
    """Return a change. A secret is its reference or null, what the server will choose is null."""
    return {
        "address": change.address,
        "target": change.target,
        "kind": change.kind,
        "actions": [str(action) for action in change.actions],
        **values.sides(_fields(change.live), _fields(change.after)),
        "reason": str(change.reason),
        "needs": sorted(change.needs),
        "notes": list(change.notes),
    }


def _fields(resource: Resource | None) -> dict[str, Any] | None:
    if resource is None:
        return None
    return {name: getattr(resource, name) for name in resource.identity} | dict(resource.values())


# What programs compare; a password that happens to be one of these words must not break them.
_WORDS = frozenset(
    {"format_version", "stack", "revision", "desired_hash", "fingerprint", "target", "kind", "actions", "reason"}
    | {"severity", "scope", "status", "state", "result", "id", "options", "before_sensitive", "after_sensitive"}
)


def redacted(document: Any, redact: Callable[[str], str]) -> Any:
    """Return a document with secrets taken out of its texts; keys and the words that programs compare stay."""
    if isinstance(document, str):
        return redact(document)
    if isinstance(document, Mapping):
        return {key: item if key in _WORDS else redacted(item, redact) for key, item in document.items()}
    return [redacted(item, redact) for item in document] if isinstance(document, list | tuple) else document


def dumps(document: Mapping[str, Any]) -> str:
    """Render a document, with a newline at the end.

    Surrogates that no encoding takes are escaped, and so is what the log of a CI takes for an order (``##[``).
    """
    return json.dumps(document, indent=2, ensure_ascii=True).replace("##", "#\\u0023") + "\n"


# ---------------------------------------------------------------------------------------------------- saved plans
@dataclass(frozen=True, slots=True)
class Saved:
    """A plan that someone approved: what it would do, and the options it was made with.

    ``seals`` tell of the secrets that it sets which value each had (`secrets.seals`); empty where nobody knows.
    """

    stack: str
    revision: str
    desired_hash: str
    fingerprint: str
    complete: bool
    changes: Mapping[str, Mapping[str, Any]]  # by address
    approvable: bool = False
    unmerged: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    seals: Mapping[str, Any] = field(default_factory=dict)


def load(text: str, where: str) -> Saved:
    """Read a saved plan. ``where`` names the file. Raises ReconcilerError for anything else."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise _unusable(where, "is not JSON") from None
    version = document.get("format_version") if isinstance(document, dict) else None
    if not isinstance(version, str):
        raise _unusable(where, "is not a saved plan: it has no format_version")
    if version.partition(".")[0] != FORMAT_VERSION.partition(".")[0]:
        raise _unusable(where, f"is a plan of format {values.escape(version)}, this version reads {FORMAT_VERSION}")
    try:
        return _saved(document)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _unusable(where, "is not a saved plan, or not a whole one") from None


def _saved(document: Mapping[str, Any]) -> Saved:
    listed = (*document["changes"], *document["adopted"])
    changes = {item["address"]: item for item in listed}
    if len(changes) < len(listed) or not all(isinstance(item, dict) for item in listed):
        raise ValueError("changes")
    words = {name: document[name] for name in ("stack", "revision", "desired_hash", "fingerprint")}
    if not all(isinstance(word, str) for word in (*words.values(), *changes)):
        raise TypeError
    complete, approvable = (document.get(name) is True for name in ("complete", "approvable"))
    unmerged, options = document.get("unmerged") is not None, dict(document["options"])
    return Saved(
        **words,
        complete=complete,
        changes=changes,
        approvable=approvable,
        unmerged=unmerged,
        options=options,
        seals=dict(document.get("seals") or {}),
    )


def approved(saved: Saved, where: str) -> Approved:
    """Return what a saved plan approves. Raises ReconcilerError for one that nobody could read as a whole."""
    if not saved.complete:
        raise _unfit(where, "is not complete, so it approves nothing: a system could not be read")
    if not saved.approvable:
        raise _unfit(where, "approves nothing: it did not fit into a comment, so nobody was shown all of it")
    found = {}
    for address, item in saved.changes.items():
        told, unknown = item.get("fingerprint"), item.get("after_unknown")
        if isinstance(told, str) and _FINGERPRINT.fullmatch(told) and isinstance(unknown, dict):
            found[address] = (told, frozenset(unknown))
        elif item.get("actions"):  # what is only adopted is no change
            raise _unfit(where, "approves nothing: not all of its changes have a fingerprint")
    return found


_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def _unfit(where: str, summary: str) -> ReconcilerError:
    return Refused(Problem(where, summary, "plan that revision again, with this version of the reconciler"))


def _unusable(where: str, summary: str) -> ReconcilerError:
    return ReconcilerError(Problem(where, summary, "save one with `reconciler plan --out FILE`"))


def stale(saved: Saved, now: Plan) -> list[str]:
    """Say what has changed since a plan was saved; empty while it is still true."""
    if saved.fingerprint == now.fingerprint:
        return []
    if saved.stack != now.stack:
        return [f"it is a plan of the stack {values.escape(saved.stack)}, this is {values.escape(now.stack)}"]
    said = []
    if saved.desired_hash != now.desired_hash:
        said.append("the directory has changed")
    current = {item.address: item for item in (*now.changes, *now.adopted)}
    for address in sorted(saved.changes.keys() | current.keys()):
        word = _since(saved.changes.get(address), current.get(address))
        said += [f"{values.escape(address)}: {word}"] if word else []
    return said or ["what it would do has changed"]


def _since(saved: Mapping[str, Any] | None, current: Change | None) -> str:
    if current is None:
        return "is as it should be by now, or can't be planned any more"
    if saved is None:
        actions = ", ".join(current.actions) or "adopt"
        return f"needs a change that the plan does not have ({actions})"
    fresh = change(current)
    if saved.get("actions") != fresh["actions"]:
        restart = [str(Action.RESTART)]
        return "only its restart is left" if fresh["actions"] == restart else "needs another action now"
    differing = [side for side in ("before", "after") if saved.get(side) != fresh[side]]
    return (
        {"before": "what is live is another", "after": "what is wanted is another"}[differing[0]] if differing else ""
    )
