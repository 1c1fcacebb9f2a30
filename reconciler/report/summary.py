"""What all forms of a plan say alike: how many of what, what stops it, and what a loss means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from reconciler.address import Address
from reconciler.names import SHOWN
from reconciler.plan import Plan, Unmerged, phases
from reconciler.problem import Problem, Severity
from reconciler.resources import Listener
from reconciler.target import Action, Change, Reason

TARGET_NAMES = {"cloudflare": "Cloudflare", "stalwart": "Stalwart", "compose": "Compose"}
MAILBOXES = "Mailboxes are not back: stored mail was in the volume and comes only from its backup."
_NAMED = 3  # secrets of a host that are named


@dataclass(frozen=True, slots=True)
class Counts:
    """How many changes of each sort; a change of type at one name counts as one change."""

    create: int = 0
    change: int = 0
    delete: int = 0
    restart: int = 0
    adopt: int = 0


def counts(plan: Plan) -> Counts:
    """Count a plan's changes."""
    found = Counter(sort(change) for change in plan.changes)
    return Counts(found["create"], found["change"], found["delete"], found["restart"], len(plan.adopted))


def sort(change: Change) -> str:
    """Say which sort a change counts as: ``create``, ``change``, ``delete`` or ``restart``."""
    if change.restarts:
        return "restart"
    if change.deletes:
        return "delete"
    return "create" if change.before is None else "change"


def sign(change: Change) -> str:
    """Return the sign a change is shown with: ``+ ~ - ↻``, and ``±`` for a change of type."""
    if Action.DELETE in change.actions and Action.CREATE in change.actions:
        return "±"
    return {"create": "+", "change": "~", "delete": "-", "restart": "↻"}[sort(change)]


def target_name(target: str) -> str:
    """Name a target as people write it."""
    return TARGET_NAMES.get(target, target)


def receivers(plan: Plan) -> Iterator[str]:
    """Say which hosts get secrets of the directory, and which, a line each."""
    for item in plan.receivers:
        more = f" and {len(item.secrets) - _NAMED} more" if len(item.secrets) > _NAMED else ""
        yield f"secrets go to {item.host}: {', '.join(map(str, item.secrets[:_NAMED]))}{more}"


def unmerged(of: Unmerged) -> Iterator[str]:
    """Say what a plan before a merge is worth."""
    yield f"{of.head[:SHOWN]} is not merged into {of.base[:SHOWN]}: this shows what it would do, and can't be applied."
    yield "Which systems are spoken to, how far a plan may go and what is read is what the base says."


def blocks(plan: Plan) -> Iterator[tuple[str, tuple[Change, ...]]]:
    """Yield target and changes of each phase in the order of applying."""
    for phase in phases(plan.changes):
        yield phase[0].target, phase


def stopping(plan: Plan) -> tuple[Problem, ...]:
    """Return what stops something, what a guard refuses first."""
    return (*plan.refused, *plan.errors)


def warnings(plan: Plan) -> tuple[Problem, ...]:
    """Return what is worth knowing and stops nothing."""
    return tuple(item for item in plan.problems if item.severity is Severity.WARNING)


def loss(plan: Plan) -> list[str]:
    """Explain a lost system, in sentences; empty where nothing is lost.

    Where it is not known when it last was whole it may as well be new: then the backup is named, and nobody is told of
    a loss.
    """
    said, last_whole = [], plan.last_whole
    for target in sorted(plan.lost):
        back = sum(change.target == target for change in plan.pending)
        whole = f" It was last whole on {last_whole}." if last_whole else ""
        does = f"brings {_many(back)} back" if last_whole else f"makes {_many(back)}"
        said.append(
            f"{target_name(target)} is empty: new, or its volume was recreated.{whole} "
            f"Apply {does} with the same passwords and DKIM keys, and deletes nothing anywhere."
        )
    ending = MAILBOXES if last_whole else "If it held mailboxes, their mail comes only from a backup of the volume."
    return [*said, ending] if said else said


def _many(count: int) -> str:
    return "1 resource" if count == 1 else f"{count:,} resources"


def conclusion(plan: Plan) -> str:
    """Sum a plan up in one line."""
    number = counts(plan)
    unchanged = f"{plan.unchanged:,} unchanged."
    if plan.pending or plan.adopted:
        parts = [f"{number.create:,} to create", f"{number.change:,} to change", f"{number.delete:,} to delete"]
        parts += [f"{number.adopt:,} to adopt"] if number.adopt else []
        line = f"Plan: {', '.join(parts)}. {unchanged}"
    elif plan.complete and not stopping(plan):
        line = f"Nothing to do: {_many(plan.unchanged)} {'is' if plan.unchanged == 1 else 'are'} as they should be."
        line = line.replace("is as they", "is as it")
    elif plan.unchanged:
        line = f"Nothing to do in what could be planned. {unchanged}"
    else:
        line = "Nothing could be planned."
    return " ".join([line, *_provisos(plan, number)])


def left_alone(plan: Plan) -> list[str]:
    """List what nobody declares, but for the listeners that every server has from its first start."""
    stock = {f"{Listener.kind}/listeners/{name}" for name in Listener.STOCK}
    return [address for address in plan.unmanaged if address not in stock]


def unrefused(plan: Plan) -> tuple[str, ...]:
    """Name the targets that have something to do and of which nothing is refused, where others are."""
    barred = {Address.parse(item.scope or item.where).target or item.scope for item in plan.refused}
    targets = {change.target for change in (*plan.changes, *plan.adopted)}
    return tuple(name for name in TARGET_NAMES if name in targets - barred) if barred <= TARGET_NAMES.keys() else ()


def unplanned(plan: Plan) -> str:
    """Count what could not be planned, in a sentence; empty where there is nothing. What is unread is told apart."""
    count = len({item.scope or item.where for item in plan.errors} - plan.unread)
    return f"{count:,} could not be planned." if count else ""


def _provisos(plan: Plan, number: Counts) -> Iterator[str]:
    if said := unplanned(plan):
        yield said
    if number.restart:
        yield "1 restart is due." if number.restart == 1 else f"{number.restart} restarts are due."
    if plan.held:
        yield f"{len(plan.held):,} held."
    if plan.refused:
        yield "Refused: nothing will be written."
        if free := unrefused(plan):
            yield f"The rest can go on by itself: {' '.join(f'--target {target}' for target in free)}."
    if plan.unread:
        yield f"Not complete: {', '.join(sorted(plan.unread))} could not be read."


def fold(changes: Sequence[Change], longest: int) -> Iterator[tuple[tuple[Change, ...], bool]]:
    """Split into runs, and say of each whether it may be folded: more than ``longest`` creations of one kind.

    Changes and deletions are never folded, nor is a creation that has something to tell.
    """
    for run in _runs(changes):
        yield run, len(run) > longest and _foldable(run[0])


def _runs(changes: Iterable[Change]) -> Iterator[tuple[Change, ...]]:
    run: list[Change] = []
    for change in changes:
        if run and (not _foldable(change) or not _foldable(run[0]) or _family(change) != _family(run[0])):
            yield tuple(run)
            run = []
        run.append(change)
    if run:
        yield tuple(run)


def _foldable(change: Change) -> bool:
    return sort(change) == "create" and not change.notes


def _family(change: Change) -> tuple[str, str, Reason]:
    return change.kind, change.resource.scope, change.reason
