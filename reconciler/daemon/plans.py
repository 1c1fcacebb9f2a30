"""Plans of pull requests: what a merge would do, posted where it is decided, and kept for that.

All of it is beside the loop, in a thread that looks, plans and posts; the loop says what counts now and waits for
nobody. A head is planned once, and again when what it is merged into has changed, or what is live. What others wrote is
planned as `desired.unmerged` says: it chooses no system, no policy and no secret.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from reconciler.daemon import backlog, posted
from reconciler.daemon.heads import Heads
from reconciler.daemon.posted import Kept, Planned, Posted
from reconciler.daemon.state import Revision, State
from reconciler.daemon.store import CannotFetch
from reconciler.desired.committed import NotHere
from reconciler.desired.failover import basis
from reconciler.desired.unmerged import Candidate
from reconciler.git.objects import Damaged
from reconciler.github import comments, pulls
from reconciler.github.api import GitHubError, Repository
from reconciler.github.pulls import Pull
from reconciler.names import SHOWN
from reconciler.plan import Plan, public
from reconciler.problem import Problem, ReconcilerError, Refused, Severity
from reconciler.process import CannotRun
from reconciler.reconcile import make_plan
from reconciler.report import json as documents
from reconciler.report import links, markdown
from reconciler.stack import Choice, Stack

_AT_ONCE = 10  # pull requests that are planned in one look; the others wait for the next one
_AGAIN = timedelta(minutes=10)  # from one plan of a head to the next, where only what is live has changed
_ENDING = 1.0  # seconds that `close` waits
_HINT = "its token needs to read and write pull requests of that repository; docs/github.md"


_NO_GITHUB, _NO_REPOSITORY = (
    Problem("daemon.plans", f"pull requests are not planned: that needs {needed}", hint, Severity.WARNING)
    for needed, hint in (
        ("daemon.github", "write `github: {repository: OWNER/NAME, token: {env: NAME}}` below daemon"),
        ("a repository", "start the daemon with --repo"),
    )
)


@dataclass(frozen=True, slots=True)
class Base:
    """What pull requests are merged into: the revision that counts, its stack, and a digest of what is live."""

    stack: Stack
    revision: Revision
    live: str

    @property
    def digest(self) -> str:
        """Of its directory."""
        return self.revision.directory.digest


@dataclass(frozen=True, slots=True)
class _Text:
    """What is said of a head: the comment, what it approves, whether it is the last word for now, and what is new."""

    body: str
    posted: Posted | None = None
    final: bool = True
    changed: bool = True


def live(plan: Plan) -> str:
    """Return a digest of all that was seen of the systems when a plan was made, of secrets only their names."""
    seen = [[address, _seen(item.resource), item.owner] for address, _, item in plan.compared if item is not None]
    facts = [sorted(seen, key=str), sorted(plan.unread), sorted(plan.lost)]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()


def _seen(resource: Any) -> list[str]:
    return [f"{name}={public(value)}" for name, value in resource.values()]


class Plans:
    """Plans the open pull requests of one stack. Neither `tell` nor `close` waits for anybody, or raises.

    ``heads`` is None where no repository is followed; ``targets`` are those that are planned, where not all are.
    ``ring`` is called when something was merged; ``url`` is the API's.
    """

    def __init__(
        self,
        heads: Heads | None,
        data: Path,
        stack: str,
        targets: tuple[str, ...] = (),
        *,
        url: str = "",
        ring: Callable[[], None] = lambda: None,
        unexpected: Callable[[Exception], None] = lambda _: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Recall what was planned; where that is damaged or gone, it is planned and posted anew."""
        self._heads, self._targets, self._url = heads, targets, url
        self._ring, self._unexpected, self._clock = ring, unexpected, clock
        self._memory = backlog.Memory(posted.place(data, stack), Kept.parse, Kept())
        self._base: Base | None = None
        self._wrong: tuple[Problem, ...] = ()
        self._wake, self._closed = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    # --------------------------------------------------------------------------------------------- said by the loop
    def tell(self, stack: Stack, state: State) -> None:
        """Say what counts after a cycle."""
        former, self._base = self._base, self._based(stack, state)
        if self._base is None or self._closed.is_set():
            return
        if former is None or (former.revision.commit, former.live) != (self._base.revision.commit, self._base.live):
            self._wake.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="plans", daemon=True)
            self._thread.start()

    def _based(self, stack: Stack, state: State) -> Base | None:
        revision, plan, declared = state.source.revision, state.plan, stack.spec.daemon
        self._wrong = ()
        if not declared.plans:
            return None
        if declared.github is None or self._heads is None:
            self._wrong = (_NO_GITHUB if declared.github is None else _NO_REPOSITORY,)
            return None
        if revision is None or plan is None or plan.desired_hash != revision.directory.digest:
            return self._base
        return Base(stack, revision, live(plan))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What stands between pull requests and their plans: worth knowing, and nothing that stops healing."""
        kept = self._memory.kept
        if self._base is None:
            return self._wrong
        why = ((f"can't be asked for pull requests: {kept.why}",) if kept.why else ()) + tuple(
            f"pull request {number} can't be planned: {item.why}" for number, item in kept.pulls.items() if item.why
        )
        unsaid = tuple(Problem("daemon.plans", said, _HINT) for said in why)
        lost = self._memory.problems
        return tuple(replace(item, severity=Severity.WARNING) for item in (*self._wrong, *unsaid, *lost))

    def close(self) -> None:
        """Begin nothing more. What is under way is hardly waited for: it is planned anew."""
        self._closed.set()
        self._wake.set()
        if (thread := self._thread) is not None:
            thread.join(_ENDING)

    # ------------------------------------------------------------------------------------------- beside the loop
    def _run(self) -> None:
        pause = self._heads.pause if self._heads else backlog.LONGEST.total_seconds()
        while not self._closed.is_set():
            self._wake.clear()
            if self._base is not None and backlog.is_due(self._memory.kept.next, self._clock()):
                try:
                    self.look(self._base)
                except Exception as error:  # noqa: BLE001 (what nobody thought of must not end the thread)
                    self._unexpected(error)
                    self._fail(f"this is a bug: {type(error).__name__}")
            self._wake.wait(pause)

    def look(self, base: Base) -> None:
        """See which pull requests are open, and plan what is new of them."""
        declared = base.stack.spec.daemon.github
        if declared is None or self._heads is None:
            return
        try:
            token = base.stack.secrets(declared.token).strip()
            repository = Repository.of(declared.repository, token, self._url)
            found = tuple(pulls.opened(repository, self._heads.branch))
            self._close_others(repository, self._heads, {item.number for item in found})
            due = [item for item in found if self._is_due(item, base)]
            for item in sorted(due, key=lambda item: self._known(item.number).at)[:_AT_ONCE]:
                if self._closed.is_set() or not self._counts(base):
                    break
                self._plan(repository, self._heads, base, item)
            self._memory.keep(replace(self._memory.kept, tries=0, next="", why=""))
        except ReconcilerError as error:
            pause = timedelta(seconds=error.retry or 0.0) if isinstance(error, GitHubError) else timedelta()
            self._fail(base.stack.secrets.redact("; ".join(item.summary for item in error.problems)), pause)

    def _close_others(self, repository: Repository, heads: Heads, numbers: set[int]) -> None:
        """Forget those that are not open any more. Of what was merged, what was posted last counts for a while."""
        for number in sorted(self._memory.kept.pulls.keys() - numbers):
            known = self._known(number).posted
            merged = pulls.merge_of(repository, Pull(number, known.head), heads.branch) if known else ""
            self._memory.keep(self._memory.kept.closed(number, merged))
            if merged:
                self._ring()
        heads.keep(numbers)

    def _counts(self, base: Base) -> bool:
        return self._base is not None and self._base.revision.commit == base.revision.commit

    def _known(self, number: int) -> Planned:
        return self._memory.kept.pulls.get(number, Planned())

    def _is_due(self, pull: Pull, base: Base) -> bool:
        known, now = self._known(pull.number), self._clock()
        if known.head != pull.head or known.base != base.digest:
            return True
        if known.next:
            return backlog.is_due(known.next, now)
        return known.live != base.live and backlog.is_due((datetime.fromisoformat(known.at) + _AGAIN).isoformat(), now)

    def _plan(self, repository: Repository, heads: Heads, base: Base, pull: Pull) -> None:
        """Plan one and post that. What is wrong with one is no matter of the others. Raises `GitHubError` for all."""
        now, known = self._clock(), self._known(pull.number)
        made = replace(known, head=pull.head, base=base.digest, live=base.live, at=now.isoformat(), why="", next="")
        why, pause = "", None
        try:
            said = self._said(repository, heads, base, pull)
            if not self._counts(base):
                return  # what counts is another by now: it is planned anew
            if said.changed or known.shown:
                comments.comment(repository, pull.number, pull.head, said.body)
                made = replace(made, shown=True, posted=said.posted)
            final = said.final
        except Refused:  # it is closed, or at another commit, by now
            return
        except GitHubError as error:
            final, why, pause = False, error.problem.summary, error
        except ReconcilerError as error:
            final, why = False, "; ".join(item.summary for item in error.problems)
        except (CannotFetch, CannotRun, Damaged, OSError) as error:
            final, why = False, _cause(error)
        except Exception as error:  # noqa: BLE001 (one of them must not keep the others from their plans)
            self._unexpected(error)
            final, why = False, f"this is a bug: {type(error).__name__}"
        tries = 0 if final else known.tries + 1
        again = "" if final else (now + backlog.pause(known.tries)).isoformat()
        made = replace(made, tries=tries, next=again, why=base.stack.secrets.redact(why))
        self._memory.keep(self._memory.kept.knowing(pull.number, made))
        if pause is not None and pause.retry is not None:  # it waits behind the others from now on
            raise pause

    def _said(self, repository: Repository, heads: Heads, base: Base, pull: Pull) -> _Text:
        """Plan a head and say that as its comment does."""
        with ExitStack() as exits:
            try:
                candidate = exits.enter_context(heads.proposed(pull.number, pull.head, base.revision))
            except NotHere:
                raise
            except ReconcilerError as error:  # what whoever opened it can mend
                # Of the head's own texts: no secret was read for them, and what is taken out of them would tell one.
                body = markdown.unplanned(base.stack.name, pull.head, error.problems)
                return _Text(comments.with_foot(body, pull.head, ""))
            stack = self._stack(base, candidate)
            plan = make_plan(stack)
            body = stack.secrets.redact(_comment(stack, plan, heads, repository, pull))
            changed = candidate.directory.digest != base.digest
            approved = _approved(plan, pull) if changed else None
            return _Text(comments.with_foot(body, pull.head, ""), approved, plan.complete, changed)

    def _stack(self, base: Base, candidate: Candidate) -> Stack:
        """Return a head's stack: what the loop leaves alone and knows to be refused is not asked here either."""
        failover, directory = base.stack.failover, candidate.directory
        stack = Stack(
            directory,
            base.stack.settings,
            Choice(self._targets),
            unexpected=self._unexpected,
            unattended=True,
            revision=candidate.commit[:SHOWN],
            failover=failover if failover and failover.basis == basis(directory.spec) else None,
            candidate=candidate,
        )
        stack.refusals = base.stack.refusals
        stack.held = {**base.stack.held, **stack.held}
        stack.secrets.remember(base.stack.secrets)
        return stack

    def _fail(self, why: str, least: timedelta = timedelta()) -> None:
        kept = self._memory.kept
        pause = min(backlog.LONGEST, max(backlog.pause(kept.tries), least))
        self._memory.keep(replace(kept, tries=kept.tries + 1, next=(self._clock() + pause).isoformat(), why=why))


def _cause(error: Exception) -> str:
    """Say in a few words why a head can't be looked at."""
    if isinstance(error, CannotFetch):
        return f"the repository {error.summary}"
    if isinstance(error, CannotRun):
        return f"git {error.why}"
    return getattr(error, "strerror", None) or "what was fetched of it can't be read"


def _comment(stack: Stack, plan: Plan, heads: Heads, repository: Repository, pull: Pull) -> str:
    addresses = [change.address for change in plan.changes]
    base = f"{repository.site}/{repository.name}/blob/{pull.head}"
    found = links.links(stack.directory, addresses, PurePosixPath(heads.path), base)
    return markdown.plan(plan.redacted(stack.secrets.redact), links=found)


def _approved(plan: Plan, pull: Pull) -> Posted | None:
    """Return what a plan approves once it is merged, as a saved one does; None where nobody could read all of it."""
    document: Mapping[str, Any] = documents.plan(plan)
    where = f"pull request {pull.number}"
    try:
        changes = documents.approved(documents.load(json.dumps(document), where), where)
    except ReconcilerError:
        return None
    return Posted(pull.head, plan.desired_hash, changes)
