"""Whatever main, a branch and a hand do: what is applied was approved or heals, and all else is held and named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from properties import tries
from systems import Wishing

from reconciler.desired.load import Directory, Places
from reconciler.desired.spec import Spec
from reconciler.desired.yaml import Mapping
from reconciler.dns.records import record
from reconciler.guards.approval import Approvals, judged, sealed, unmatched
from reconciler.guards.evidence import Policy
from reconciler.plan import Desired, diff, fingerprint
from reconciler.reconcile import apply, make_plan, permitted
from reconciler.report import json
from reconciler.resources import Account, Different, Domain, Live, Login, Observation, SecretRef, Variable
from reconciler.target import Status

ZONE = "mana.how"
RECORDS = tuple(f"dns/{ZONE}/A/r{number}" for number in range(3))
OTHERS = (f"account/a@{ZONE}", "smtp/notify/HOST", "smtp/notify/USER")  # which absence does not remove
ALL = (*RECORDS, *OTHERS)
World = dict[str, int]


def resource(address: str, number: int):
    kind, _, rest = address.partition("/")
    if kind == "dns":
        return record(ZONE, "A", rest.rpartition("/")[2], f"192.0.2.{number}")
    if kind == "account":
        return Account(rest, description=f"d{number}")
    return Variable("notify", rest.rpartition("/")[2], f"v{number}", f"v{number}")


class Stack(Wishing):
    """A stack in memory that knows what it wanted before."""

    def __init__(self, wanted: World, before: World | None = None) -> None:
        super().__init__(_resources(wanted), policy=Policy(max_deletes=99, allow_deletes=99))
        self.before = before
        if before is not None:
            self.former = Directory(Path("nowhere"), Spec(stack="mana"), Places(Mapping(".", 0)), (), "before", "")

    def formerly(self, former, observed) -> Desired:
        return Desired(_resources(self.before))


def _resources(wanted: World):
    return [Domain(ZONE), *(resource(address, number) for address, number in wanted.items())]


def live(stack: Stack) -> World:
    found = {}
    for item in stack.world.live:
        for number in range(10):
            if item.resource.address in ALL and item.resource == resource(item.resource.address, number):
                found[item.resource.address] = number
    return found


def put(stack: Stack, world: World) -> None:
    stack.world.live = [Live(item, owner="mana") for item in _resources(world)]


numbers = st.integers(0, 3)
worlds = st.fixed_dictionaries(dict.fromkeys(OTHERS, numbers), optional=dict.fromkeys(RECORDS, numbers))
edits = st.dictionaries(st.sampled_from(ALL), st.one_of(numbers, st.none()), max_size=4)


def edited(world: World, edit) -> World:
    return {
        name: number
        for name in ALL
        if (number := edit[name] if name in edit and (edit[name] is not None or name in RECORDS) else world.get(name))
        is not None
    }


class Expected:
    """What should become of each thing, worked out from the numbers alone."""

    def __init__(self, posted: dict[str, tuple], base: World, want: World, now: World) -> None:
        self.posted, self.base, self.want = posted, base, want
        self.end, self.held = dict(now), set[str]()
        open_ = {name for name in ALL if now.get(name) != want.get(name)}
        waits = {name for name in open_ if not self.heals(name) and not self.approved(name)}
        if waits & {"smtp/notify/HOST", "smtp/notify/USER"}:  # one service is switched as a whole
            waits |= {name for name in open_ if name.startswith("smtp/") and not self.heals(name)}
        for name in open_ - waits:
            self.set(name, want.get(name))
        for name in waits:
            if base.get(name) is not None:
                self.set(name, base[name])
        later = {name for name in waits if not self.approved(name) and self.end.get(name) != want.get(name)}
        if later & {"smtp/notify/HOST", "smtp/notify/USER"}:
            later |= {name for name in waits if name.startswith("smtp/")}
        # What was healed in between may be what was approved by now; without that nothing is looked at a second time.
        healed = {name for name in waits if base.get(name) is not None and now.get(name) != base.get(name)}
        companies = {self.company(name) for name in healed}
        for name in waits - later:
            if self.company(name) in companies:
                self.set(name, want.get(name))
        self.held = {name for name in ALL if self.end.get(name) != want.get(name)}

    @staticmethod
    def company(name: str) -> str:
        return "notify" if name.startswith("smtp/") else name

    def set(self, name: str, number: int | None) -> None:
        if number is None:
            self.end.pop(name, None)
        else:
            self.end[name] = number

    def heals(self, name: str) -> bool:
        return self.base.get(name) == self.want.get(name)

    def approved(self, name: str) -> bool:
        if name not in self.posted:
            return False
        before, after = self.posted[name]
        # Of what may not be shown nobody was told what it is: only that it is another.
        same = before == self.end.get(name) if name in RECORDS else (before is None) == (name not in self.end)
        return same and after == self.want.get(name)


@settings(max_examples=tries(150), deadline=None)
@given(worlds, edits, edits, edits, edits)
def test_what_is_applied_was_approved_or_heals_and_the_rest_is_named(base, change, moves, before_plan, before_merge):
    planned = Stack(edited(base, change))
    put(planned, edited(base, before_plan))
    seen = live(planned)
    plan = make_plan(planned)
    saved = json.load(json.dumps(json.plan(plan)), "plan.json")
    posted = {item.address: (seen.get(item.address), edited(base, change).get(item.address)) for item in plan.changes}

    moved = edited(base, moves)
    want = edited(moved, change)
    merged = Stack(want, moved)
    put(merged, edited(edited(base, before_plan), before_merge))
    now = live(merged)
    merged.approvals = Approvals([json.approved(saved, "plan.json")])
    expected = Expected(posted, moved, want, now)

    first = make_plan(merged)
    chosen = permitted(first)
    assert len({item.address for item in chosen.changes}) == len(chosen.changes)
    effect = apply(merged, chosen)
    assert all(item.status is Status.DONE for item in effect.outcomes)
    assert live(merged) == expected.end
    assert {item.where for item in effect.after.held} == expected.held
    assert {item.address for item in effect.after.changes} == expected.held  # nothing is lost, nothing else is left
    assert all(item.hint.startswith("reconciler apply --approve ") for item in effect.after.held)
    for outcome in effect.outcomes:  # each by itself
        name, after = outcome.change.address, outcome.change.after
        number = next((it for it in range(10) if after == resource(name, it)), None) if after is not None else None
        assert number == moved.get(name) or (name in posted and posted[name][1] == number)

    merged.approvals = replace(merged.approvals, named=frozenset(item.hint.split()[-1] for item in effect.after.held))
    assert list(unmatched(effect.after, merged.approvals.named)) == []
    assert apply(merged, permitted(make_plan(merged))).proven
    assert live(merged) == {name: number for name, number in want.items() if number is not None}


# ------------------------------------------------------------------------------------------------------- one by one
A, HOST, USER = RECORDS[0], "smtp/notify/HOST", "smtp/notify/USER"
CALM = dict.fromkeys(OTHERS, 0)


def held(stack: Stack) -> dict[str, str]:
    return {item.where: item.summary for item in make_plan(stack).held}


def test_without_what_it_wanted_before_nothing_heals():
    stack = Stack({**CALM, A: 1})
    put(stack, CALM)
    stack.approvals = Approvals()
    assert held(stack) == {A: "is not approved: no approved plan has it"}


def test_a_plan_as_a_whole_may_be_named():
    stack = Stack({**CALM, A: 1, HOST: 2}, CALM)
    put(stack, CALM)
    plan = make_plan(stack)
    stack.approvals = Approvals(named=frozenset({plan.fingerprint[:16]}))
    assert held(stack) == {}
    assert list(unmatched(plan, {plan.fingerprint[:16]})) == []


def test_a_service_is_switched_as_a_whole():
    stack = Stack({**CALM, HOST: 1, USER: 1}, CALM)
    put(stack, CALM)
    host = next(item for item in make_plan(stack).changes if item.address == HOST)
    stack.approvals = Approvals([{HOST: (fingerprint("mana", host), frozenset())}])
    assert held(stack) == {
        HOST: f"belongs together with {USER}, which is held",
        USER: "is not approved: no approved plan has it",
    }


def test_what_became_known_since_the_plan_is_what_was_approved():
    stack = Stack({**CALM, A: 1}, CALM)
    put(stack, CALM)
    [change] = make_plan(stack).changes
    unknown = frozenset({"content"})
    stack.approvals = Approvals([{A: (fingerprint("mana", change, unknown), unknown)}])
    assert held(stack) == {}
    stack.approvals = Approvals([{A: (fingerprint("mana", change, unknown), frozenset())}])
    assert held(stack) == {A: "is not what was approved: what is live, or wanted, is another than in the plan"}


def test_a_fingerprint_that_means_two_changes_approves_neither():
    stack = Stack({**CALM, A: 1, RECORDS[1]: 1}, CALM)
    put(stack, CALM)
    plan = make_plan(stack)
    assert {item.where for item in judged(plan, None, Approvals(named=frozenset({""}))).held} == set()  # the plan's own
    one, two = (fingerprint("mana", item) for item in plan.changes)
    assert one[:16] != two[:16]
    [problem] = unmatched(replace(plan, changes=(plan.changes[0], plan.changes[0])), {one[:16]})
    assert "means more than one change" in problem.summary


def test_a_due_restart_is_never_held():
    from reconciler.resources import Listener

    stack = Wishing([Domain(ZONE), Listener("smtp", ("[::]:25",), "smtp")], names=("stalwart",))
    stack.world.put(Domain(ZONE))
    stack.world.put(Listener("smtp", ("[::]:25",), "smtp", open=False))
    stack.approvals = Approvals()
    plan = make_plan(stack)
    assert [change.restarts for change in plan.changes] == [True]
    assert plan.held == ()


def test_what_heals_is_tried_with_the_login_of_then_and_not_with_what_waits():
    """The service goes on with the password that it has: the other one is refused, or has not been agreed to."""
    old, new = SecretRef("env", "OLD"), SecretRef("env", "NEW")

    def wish(ref):
        login = Login("relay.example", 587, "noreply", ref, verify_tls=True)
        return [Variable("notify", "HOST", "h", "h", login=login), Variable("notify", "PASS", ref, ref, login=login)]

    live = [Live(Variable("notify", "HOST", "x", "x")), Live(Variable("notify", "PASS", Different(), Different()))]
    seen = {"compose": Observation("compose", live)}
    now, then = (diff(Desired(wish(ref)), seen, stack="mana") for ref in (new, old))

    def host(plan):
        return next(item.after.login.password for item in permitted(plan).changes if item.address == HOST)

    assert host(judged(now, then, Approvals())) == old
    broken = {new: "0" * 64}
    now = sealed(now, broken)
    assert [item.where for item in judged(now, now, Approvals()).held] == ["smtp/notify/PASS"]
    assert host(judged(now, now, Approvals())) is None
    assert host(judged(now, now, Approvals(named=frozenset({now.fingerprint})))) == new
