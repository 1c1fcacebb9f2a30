"""What changes in meaning between two directories: what a plan would do to systems that are as the first says. Pure.

Both are derived as for a plan, without a system and without a secret, and compared as a plan compares; what the first
one wants stands for what is live. So order, comments, anchors, quotes and the file that an entry stands in mean
nothing. What no resource tells (`statements`) is compared beside that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from reconciler.address import Address
from reconciler.desired.derivation import canonical, desire, zone_records
from reconciler.desired.load import Directory, Places, paths
from reconciler.desired.spec import Spec, references
from reconciler.desired.spec.targets import Targets
from reconciler.desired.statements import Statement, statements, told
from reconciler.desired.yaml import Path
from reconciler.difference import Difference, Risk, differing
from reconciler.plan import Plan, diff, sensitive, touches_mail
from reconciler.problem import Place, Problem
from reconciler.resources import KINDS, UNMANAGED, Live, Observation, Resource, SecretRef, Signature
from reconciler.target import Action, Reason


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that changes, in the order of applying, and how many things do not.

    ``named`` are the references to secrets that only the second directory has, with their places. ``problems`` are what
    can't be derived from it.
    """

    differences: tuple[Difference, ...] = ()
    unchanged: int = 0
    named: tuple[tuple[SecretRef, Place | None], ...] = ()
    problems: tuple[Problem, ...] = ()


def compare(base: Directory | None, head: Directory) -> Comparison:
    """Return what changes from one directory to another; None is one that says nothing."""
    empty = Spec.model_validate({"stack": head.spec.stack})
    was, wanted = _Side(base.spec if base else empty, base.places if base else None), _Side(head.spec, head.places)
    for side in (was, wanted):
        side.say(was.told | wanted.told)
    things = sorted(_resources(was, wanted), key=_order)
    said = list(_statements(was, wanted, {item.address: item for item in things}))
    # A key is told with its stage, and what goes where that is said.
    others = {*was.statements, *wanted.statements, *(item.address for item in said)}
    things = [item for item in things if item.address not in others]
    return Comparison(
        tuple(item for item in (*said, *things) if item.actions or item.before != item.after),
        sum(item.before == item.after for item in things),
        tuple(named(base, head)),
        wanted.desired.problems,
    )


def named(base: Directory | None, head: Directory) -> Iterator[tuple[SecretRef, Place | None]]:
    """Yield the references that only the second directory has, each with the place of the first one of its kind."""
    known = {ref for _, ref in references(base.spec)} if base else set[SecretRef]()
    for path, ref in references(head.spec):
        if ref not in known and ref.source != "account":
            known.add(ref)
            yield ref, head.places.near(path)[0]


_POSITIONS = {kind.kind: position for position, kind in reversed(list(enumerate(KINDS)))}


def _order(item: Difference) -> tuple[int, str]:
    return _POSITIONS[item.kind], item.address


class _Side:
    """A directory, and what follows from it."""

    def __init__(self, spec: Spec, places: Places | None) -> None:
        self.spec, self._places = spec, places
        self._declared = zone_records(spec)
        self.desired = desire(spec, declared=self._declared)
        self.told = frozenset(told(self.desired))
        self.statements = dict[str, Statement]()

    def say(self, told: frozenset[str]) -> None:
        """Find out what it says beside what is told by resources."""
        self.statements = {item.address: item for item in statements(self.spec, told)}

    @property
    def resources(self) -> list[Resource]:
        """What is wanted, in an order that the files do not decide: it pairs what shares a name."""
        return sorted(self.desired.resources, key=lambda item: (item.address, repr(item)))

    @cached_property
    def _record_paths(self) -> dict[Resource, Path]:
        found = (("dns", zone, index) for zone, entries in self.spec.dns.items() for index in range(len(entries)))
        return dict(zip(self._declared, found, strict=True))

    def targets(self, name: str | None) -> bool:
        """Whether a system is declared."""
        return name is not None and bool(getattr(self.spec.targets, name))

    def place(self, item: Resource | Statement, changed: Sequence[str] = ()) -> Place | None:
        """Say where it stands: what of it is changed, where that has a line of its own, else the whole."""
        places = self._places
        if places is None:
            return None
        if isinstance(item, Statement):
            known: tuple[Path, ...] = (item.path,)
        elif item in self._record_paths:
            known = (self._record_paths[item],)
        else:
            known = paths(self.spec, item.address)
        exact = (places.of(*path, *name.split(".")) for path in known for name in changed)
        whole = (places.of(*path) for path in known)
        near = (places.near(path)[0] for path in known[:1] if path)
        return next((found for found in (*exact, *whole, *near) if found is not None), None)


# ------------------------------------------------------------------------------------------------------- resources
def _resources(was: _Side, wanted: _Side) -> Iterator[Difference]:
    """Yield both sides of each resource, equal or not."""
    plan, sides = _plan(was, wanted), (was, wanted)
    seen: set[object] = set()
    for change in plan.changes:
        before = change.before.resource if change.before else None
        seen |= {_key(item) for item in (before, change.after) if item is not None}
        actions = change.actions if wanted.targets(change.target) else ()
        yield _difference(change.address, before, change.after, sides, actions=actions, reason=change.reason)
    for address, item, live in plan.compared:
        pair = (live.resource if live else None, item)
        if not seen & {_key(one) for one in pair if one is not None}:
            yield _difference(address, *pair, sides)


def _plan(was: _Side, wanted: _Side) -> Plan:
    """Let systems be as the first directory wants them, all of it ours, and plan for the second one."""
    stack, prune = wanted.spec.stack, wanted.spec.policy.prune.dns == "owned"
    systems = {
        name: Observation(name, [Live(item, owner=stack) for item in was.resources if item.target == name])
        for name in Targets.model_fields
    }
    # What can't be derived is told, and compared all the same.
    desired = replace(wanted.desired, resources=wanted.resources, problems=(), stays=frozenset())
    return diff(desired, systems, stack=stack, prune=prune)


def _key(resource: Resource) -> object:
    """Tell one from another: several records may share an address, and what is renamed is there twice."""
    return id(resource) if resource.marked else resource.address


def _difference(
    address: str,
    before: Resource | None,
    after: Resource | None,
    sides: tuple[_Side, _Side],
    *,
    actions: tuple[Action, ...] = (),
    reason: Reason = Reason.NOT_IN_DESIRED,
) -> Difference:
    was, wanted = sides
    resource = after or before
    if resource is None:
        raise AssertionError(address)
    values = (_said(before), _said(after))
    changed = differing(*(side or {} for side in values))
    notes = resource.notes if after is not None else ()
    if before is not None and after is not None:
        reason = Reason.SECRET_DIFFERS if all(map(_secret, changed.values())) else Reason.DIFFERS
        actions = actions or ((Action.UPDATE,) if changed else ())
        renamed = before.kind == after.kind and before.address != after.address and not after.marked
        notes += (f"renamed from {before.address}, and keeps its mailbox",) if renamed else ()
    elif after is not None:
        actions, reason = (Action.CREATE,), Reason.MISSING
    elif not actions:
        notes = (_left(resource, wanted),)
    place = was.place(resource) if after is None else wanted.place(after, tuple(changed) if before else ())
    risks = tuple(_risks(before, gone=after is None)) if actions else ()
    what = (address, resource.kind, resource.target, actions, reason)
    return Difference(*what, *values, place, after is None, risks, notes, before, resource)


def _risks(before: Resource | None, *, gone: bool) -> Iterator[Risk]:
    """Yield what a reader has to know of a change of what is there."""
    if gone:
        yield Risk.DELETION
    if touches_mail(before, gone=gone):
        yield Risk.MAIL_FLOW


def _said(resource: Resource | None) -> dict[str, Any] | None:
    if resource is None:
        return None
    return {name: getattr(resource, name) for name in resource.identity} | dict(resource.declared())


def _secret(pair: tuple[Any, Any]) -> bool:
    return all(sensitive(value) or value in (None, UNMANAGED) for value in pair) and any(map(sensitive, pair))


def _left(resource: Resource, wanted: _Side) -> str:
    """Say why what is no longer declared stays."""
    if not wanted.targets(resource.target):
        return f"targets.{resource.target} is not declared any more: left as it is"
    if resource.scope not in {resource.target, *(f"dns/{zone}" for zone in wanted.desired.zones or ())}:
        return "its zone is not declared any more: left as it is"
    return "not declared any more: left as it is"


# ------------------------------------------------------------------------------------------------------ statements
def _statements(was: _Side, wanted: _Side, things: Mapping[str, Difference]) -> Iterator[Difference]:
    """Yield both sides of each statement, equal or not."""
    known = {**was.statements, **wanted.statements}
    for address in sorted(known, key=lambda name: (list(Spec.model_fields).index(known[name].kind), name)):
        old, new = was.statements.get(address), wanted.statements.get(address)
        item = new or old
        if item is None:
            raise AssertionError(address)
        before, after = (dict(side.values) if side is not None else None for side in (old, new))
        changed = differing(before or {}, after or {})
        place = was.place(item) if new is None else wanted.place(item, tuple(changed) if old else ())
        reason = Reason.NOT_IN_DESIRED if new is None else Reason.MISSING if old is None else Reason.DIFFERS
        found = Difference(address, item.kind, item.target, (), reason, before, after, place, new is None)
        if (judged := _JUDGES.get(item.kind, _judged)(found, things)) is not None:
            yield judged


def _judged(item: Difference, _: Mapping[str, Difference]) -> Difference | None:
    if item.before == item.after:
        return item
    action = Action.UPDATE if item.before is not None else Action.CREATE
    return replace(item, actions=(Action.DELETE if item.gone else action,))


def _of_target(item: Difference, things: Mapping[str, Difference]) -> Difference | None:
    risks = (Risk.TARGET,) if item.before != item.after else ()
    notes = [f"{name} is another: secrets go there" for name in ("url", "base_url") if name in item.fields]
    if item.fields.get("allow_plain_http", ())[1:] == (True,):
        notes.append("secrets may go there in clear")
    found = _judged(item, things)
    return found and replace(found, risks=risks, notes=tuple(notes if item.before is not None else ()))


def _of_policy(item: Difference, things: Mapping[str, Difference]) -> Difference | None:
    more, prune = item.fields.get("max_deletes", (0, 0)), item.fields.get("prune.dns", ("", ""))
    notes = ["looser: a plan may delete more"] if more[1] > more[0] else []
    notes += ["looser: records that are not declared any more go by themselves"] if prune[1] == "owned" else []
    merged = item.fields.get("approval", ("", ""))[1] == "merge"
    notes += ["looser: what is merged needs no approved plan any more"] if merged else []
    return _noted(item, things, notes, Risk.POLICY)


def _of_daemon(item: Difference, things: Mapping[str, Difference]) -> Difference | None:
    plans = item.fields.get("plans", (False, False))[1]
    return _noted(item, things, ["pull requests are planned where the secrets are"] if plans else [], Risk.POLICY)


def _of_router(item: Difference, things: Mapping[str, Difference]) -> Difference | None:
    notes = ["address is another: the router's login goes there"] if "address" in item.fields else []
    return _noted(item, things, notes, Risk.HOST)


def _of_stack(item: Difference, things: Mapping[str, Difference]) -> Difference | None:
    said = "what bears the former mark is not ours any more" if item.fields else ""
    return _noted(item, things, [said] if said else [], Risk.POLICY)


def _of_smtp(item: Difference, things: Mapping[str, Difference]) -> Difference | None:
    if item.before is None or item.after is None:
        return _judged(item, things)
    elsewhere = [name for name in ("host", "port", "preset") if name in item.fields]
    notes = [f"{' and '.join(elsewhere)}: the login goes elsewhere"] if elsewhere else []
    if item.fields.get("verify_tls", ())[1:] == (False,):
        notes.append("whose server that is, is not checked any more")
    if item.fields.get("tls", ())[1:] == ("none",):
        notes.append("mail and login go there in clear text")
    found = _noted(item, things, notes, Risk.HOST)
    return found and replace(found, risks=(*found.risks, *((Risk.MAIL_FLOW,) if "provider" in item.fields else ())))


def _noted(item: Difference, things: Mapping[str, Difference], notes: list[str], risk: Risk) -> Difference | None:
    found = _judged(item, things)
    return found and replace(found, notes=tuple(notes), risks=(risk,) if notes else ())


def _of_key(item: Difference, things: Mapping[str, Difference]) -> Difference | None:
    """A key is told with its stage; that it does not sign any more is no removal while it is declared."""
    thing = things.get(item.address)
    if not item.gone:
        return _judged(item, things)
    return replace(item, actions=thing.actions, notes=thing.notes, risks=thing.risks) if thing else item


def _of_zone(item: Difference, things: Mapping[str, Difference]) -> Difference | None:
    return replace(item, notes=("its records are left as they are",)) if item.gone else _judged(item, things)


def _of_removed(item: Difference, things: Mapping[str, Difference]) -> Difference | None:
    """What is newly named goes, whether or not it was declared before."""
    if item.before is not None:
        return replace(item, notes=("was let go before",)) if item.gone else item
    address = canonical(item.address.removeprefix("removed[").removesuffix("]"))
    thing = things.get(address)
    kind = Address.parse(address).kind
    if kind == Signature.kind and thing is not None:  # told as a key
        return None
    found = Difference(address, kind, item.target, (Action.DELETE,), Reason.REMOVED, None, None, item.place)
    found = replace(found, risks=(Risk.DELETION,))
    if thing is None or thing.before is None:
        return found
    risks = tuple(dict.fromkeys((*found.risks, *thing.risks)))
    return replace(found, before=thing.before, former=thing.former, resource=thing.resource, risks=risks)


def _of_moved(item: Difference, things: Mapping[str, Difference]) -> Difference | None:
    """A move is told with what is renamed, where that is declared on both sides."""
    source = canonical(item.address.removeprefix("moved[").removesuffix("]"))
    renamed = any(thing.former is not None and thing.former.address == source for thing in things.values())
    if item.gone:
        return replace(item, notes=("was renamed before",))
    return None if item.before is None and renamed else _judged(item, things)


def _of_adopt(item: Difference, things: Mapping[str, Difference]) -> Difference | None:
    if item.gone:
        return replace(item, notes=("was taken over before",))
    notes = ["takes over what is there and differs"] if item.before is None else []
    return _noted(item, things, notes, Risk.POLICY)


_JUDGES = {
    "targets": _of_target,
    "policy": _of_policy,
    "daemon": _of_daemon,
    "router": _of_router,
    "stack": _of_stack,
    "smtp": _of_smtp,
    "dkim": _of_key,
    "dns": _of_zone,
    "removed": _of_removed,
    "moved": _of_moved,
    "adopt": _of_adopt,
}
"""What there is to say of a difference, by the key at the top of the file; None where another one says it."""
