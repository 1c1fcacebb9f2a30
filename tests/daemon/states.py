"""States as a daemon publishes them, made by hand: one that is as desired, and one in which much is wrong."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from reconciler.daemon.state import (
    Cause,
    Contest,
    Cycle,
    Loss,
    Result,
    Revision,
    Sourced,
    State,
    Suspension,
    TargetState,
)
from reconciler.journal import Entry, Written
from reconciler.plan import Plan
from reconciler.problem import Problem, Severity
from reconciler.reconcile import Fact
from reconciler.resources import Account, Live, Record, Resource, Same, SecretRef, Signature, Unreadable, Variable
from reconciler.target import Action, Change, Outcome, Reason, Status

CANARY = "canary-Zk93-word"
REF = SecretRef("env", "NOREPLY_PASSWORD")
REVISION = Revision(
    cast("Any", None),
    "3f2a9c1d3f2a9c1d3f2a9c1d3f2a9c1d3f2a9c1d",
    "Give the forum an account",
    "Ada <ada@mana.how>",
    "Grace <grace@mana.how>",
    "2026-11-28T09:12:00Z",
)


def record(name: str, content: str = "192.0.2.1", **fields: Any) -> Record:
    return Record("mana.how", fields.pop("type", "A"), name, content, **fields)


ACCOUNT = Account("noreply@mana.how", login="noreply", password=REF)
KEY = Signature("mana.how", "mana2026", "ed25519", "pXFq2w5uPVrs8zq1b7KxGZfK2Zz9n0mP9fBzqkq1e3I=")
CONSUMER = Variable("mana-notify", "SMTP_HOST", "smtp.mana.how", "smtp.mana.how")
MAIL = record("mail")
RESOURCES: tuple[Resource, ...] = (ACCOUNT, KEY, MAIL, record("@", "10 mail.mana.how", type="MX"), CONSUMER)


def update(before: Resource, after: Resource, **fields: Any) -> Change:
    return Change(after.address, (Action.UPDATE,), Reason.DIFFERS, Live(before), after, **fields)


def facts(*resources: Resource, place: str = "mail.yaml:3:1") -> dict[str, Fact]:
    return {item.address: Fact(item.address, place, item) for item in resources}


def target(name: str, state: str = "in_sync", **fields: Any) -> TargetState:
    return TargetState(name, state, fields.pop("since", "2026-11-28T10:00:00Z"), **fields)


def entry(identity: str = "a1b2c3d4", **fields: Any) -> Entry:
    written = Written(MAIL.address, ("update",), "done", "differs")
    known = {"ended": "2026-11-28T10:00:05Z", "result": "done", "whole": True, "written": (written,)}
    known |= {"targets": ("stalwart", "cloudflare", "compose"), "revision": "3f2a9c1"}
    known |= {"who": "daemon@server"}
    return Entry(identity, "mana", "2026-11-28T10:00:00Z", **known | fields)


def cycle(number: int = 7, **fields: Any) -> Cycle:
    known: dict[str, Any] = {"cause": Cause.INTERVAL, "result": Result.NOTHING, "seconds": 0.4}
    return Cycle(number, began="2026-11-28T12:00:00Z", ended="2026-11-28T12:00:01Z", **known | fields)


def calm(**fields: Any) -> State:
    """Everything as desired."""
    known: dict[str, Any] = {
        "started": "2026-11-27T08:00:00Z",
        "interval": 300.0,
        "source": Sourced("git.mana.how/stack.git", "main", REVISION, REVISION.commit, "2026-11-28T12:00:00Z"),
        "cycle": cycle(),
        "next": "2026-11-28T12:05:00Z",
        "plan": Plan("mana", revision=REVISION.commit, unchanged=len(RESOURCES)),
        "facts": facts(*RESOURCES),
        "targets": tuple(
            target(name, succeeded="2026-11-28T12:00:01Z") for name in ("stalwart", "cloudflare", "compose")
        ),
        "healed": (entry(),),
    }
    return State("mana", **known | fields)


def drifted(state: State | None = None) -> State:
    """A record that somebody has changed by hand, seen by a cycle that could not mend it."""
    state = state or calm()
    change = update(replace(MAIL, content="198.51.100.9"), MAIL)
    plan = replace(state.plan or Plan("mana"), changes=(change,), unchanged=4)
    outcome = Outcome(change, Status.FAILED, Problem(MAIL.address, "the system says no", "ask it nicely"))
    known = dict(state.facts) | {MAIL.address: replace(state.facts[MAIL.address], change=change)}
    targets = tuple(
        replace(item, state="pending", pending=1, since="2026-11-28T12:00:00Z") if item.name == "cloudflare" else item
        for item in state.targets
    )
    ended = cycle(8, result=Result.PARTIAL, outcomes=(outcome,), drift=frozenset({MAIL.address}))
    return replace(state, plan=plan, facts=known, targets=targets, cycle=ended)


def troubled() -> State:
    """Much is wrong at once, and the names and texts are as hostile as they may be."""
    evil = "<img src=x onerror=\"document.title='owned'\">"
    hostile = record("evil", '"><script>document.title="owned"</script>', type="TXT")
    state = drifted(calm(facts=facts(*RESOURCES, hostile)))
    refused = Problem(
        "dns/mana.how", f"a guard forbids {evil}", "say so with --allow-deletes", Severity.REFUSED, "dns/mana.how"
    )
    broken = Problem("dns.yaml:5:12", f"unknown key {evil}", "remove it")
    login = Problem("stalwart", "the login is refused", "set STALWART_ADMIN_PASSWORD anew", scope="stalwart")
    known = dict(state.facts)
    known[ACCOUNT.address] = replace(
        known[ACCOUNT.address],
        untold=(("password", Unreadable("it is no longer shown")),),
        problems=(Problem(ACCOUNT.address, "never logged in", "", Severity.WARNING),),
    )
    known[CONSUMER.address] = replace(known[CONSUMER.address], unread=True)
    return replace(
        state,
        plan=replace(state.plan or Plan("mana"), problems=(refused,), unread=frozenset({"compose"})),
        facts=known,
        source=replace(state.source, revision=replace(REVISION, subject=evil), seen="9" * 40, problems=(broken,)),
        targets=(
            target("stalwart", "held", failures=2, problem=login, pending=1),
            target("cloudflare", "refused", pending=1),
            target("compose", "unreadable", unread=("compose",), failures=3, retry="2026-11-28T12:02:00Z"),
        ),
        contested=(
            Contest(MAIL.address, "content", "192.0.2.1", evil, 3, "2026-11-28T11:00:00Z", "2026-11-28T12:15:00Z"),
        ),
        losses=(Loss("stalwart", "2026-11-26T01:00:00Z"), Loss("stalwart", "2026-11-28T01:00:00Z")),
        healed=(entry("00000001"), entry("00000002", who=evil, lost=("stalwart",), result="partial")),
        lease={"pid": 4711, "host": "server", "since": "2026-11-28T11:59:00Z", "command": f"apply {evil}"},
    )


def suspended(state: State | None = None) -> State:
    return replace(
        state or calm(),
        suspended=Suspension("the line is being moved", "ada@desk", "2026-11-28T11:00:00Z", "2026-11-29T08:00:00Z"),
    )


def secret_change() -> Change:
    """A consumer whose password is another one, as an observation tells of it."""
    before = Variable("mana-notify", "SMTP_PASSWORD", Same(REF), CANARY)
    return update(before, Variable("mana-notify", "SMTP_PASSWORD", REF, REF))


def shown() -> State:
    """What the screenshot shows: some minutes ago a record drifted and was healed; days ago a volume was restored."""

    def at(minutes: float) -> str:
        return (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")

    state = calm()
    written = tuple(Written(item.address, ("create",), "done", "lost") for item in (ACCOUNT, KEY))
    restored = replace(entry("7c1e5a90", lost=("stalwart",), written=written), began=at(-4000))
    return replace(
        state,
        cycle=replace(cycle(1204, drift=frozenset()), ended=at(-2.1)),
        next=at(2.5),
        targets=tuple(replace(item, since=at(-37 if item.name == "cloudflare" else -4000)) for item in state.targets),
        losses=(Loss("stalwart", at(-4000)),),
        healed=(restored, replace(entry(), began=at(-37))),
        source=replace(state.source, revision=replace(REVISION, when=at(-1600)), reached=at(-2.2)),
    )
