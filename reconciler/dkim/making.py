"""Making a DKIM key, its private half where the user keeps secrets; and writing the due steps of a rotation."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from reconciler import keys
from reconciler.desired.derivation import zone_of
from reconciler.desired.edit import AddKey, Edit, SetKey, edit
from reconciler.desired.load import Directory
from reconciler.desired.spec import Spec
from reconciler.desired.spec.mail import Key
from reconciler.dkim.rotation import SHOWN, Step, Turn
from reconciler.dns.publication import Look, publication, question
from reconciler.dns.records import dkim_record
from reconciler.names import host
from reconciler.problem import Problem, ReconcilerError, Refused, Severity
from reconciler.resources import UNKNOWN, SecretRef
from reconciler.secrets.store import Store, open_store, store_of

DEFAULT_STORE = "file:../secrets"


@dataclass(frozen=True, slots=True)
class Order:
    """Which key is wanted; ``where`` is the store (None: where the domain's other keys are)."""

    domain: str
    algorithm: str
    selector: str | None = None
    where: str | None = None
    recipients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that is stored and that no entry names yet. ``found`` says that an earlier run stored it."""

    domain: str
    selector: str
    algorithm: str
    public_key: str
    private_key: SecretRef
    found: bool

    def entry(self, stage: str, since: dt.date) -> AddKey:
        """Return its entry in the YAML."""
        return AddKey(
            self.domain,
            {
                "selector": self.selector,
                "algorithm": self.algorithm,
                "public_key": self.public_key,
                "private_key": self.private_key,
                "stage": stage,
                "since": since,
            },
        )

    @property
    def words(self) -> str:
        """How it came about, and where its private half is."""
        if self.found:
            return f"Its private half was there already, and no entry named it: {self.private_key}"
        return f"Its private half is new at {self.private_key}"


def publishes(spec: Spec, domain: str) -> bool:
    """Whether an apply publishes the keys of a domain."""
    return bool(spec.targets.cloudflare) and zone_of(domain, spec.dns) is not None


def cares(spec: Spec, made: Sequence[NewKey]) -> list[str]:
    """Say what a person has to care for beside the directory: what git does not keep, and what we do not publish."""
    said = []
    if any(key.private_key.source == "file" for key in made):
        said.append("Git does not keep the private half: back it up (`--store age:FOLDER` or `sops:FILE` encrypt it).")
    for key in made:
        if not publishes(spec, key.domain):
            name = host(key.domain)
            record = dkim_record(name, name, key.selector, key.algorithm, key.public_key)
            said.append(f"No zone of the directory has {record.host}; publish there as TXT: {record.content}")
    return said


def next_algorithm(spec: Spec, domain: str) -> str:
    """Name the first algorithm that a domain has no key of. Raises `ReconcilerError` where it has one of each."""
    for algorithm in keys.ALGORITHMS:
        if not _at(spec, domain, algorithm, "active", "pending"):
            return algorithm
    hint = f"`reconciler dkim rotate {domain}` replaces them; or name one with --algorithm"
    raise ReconcilerError(Problem(f"dkim.{domain}", "has a key of each algorithm", hint))


def next_stage(spec: Spec, domain: str, algorithm: str) -> str:
    """Say what a new key will be: active, or pending where another signs. Raises `Refused` where one waits already."""
    for key in _at(spec, domain, algorithm, "pending"):  # only one can take over
        hint = f"`reconciler dkim rotate {domain}` lets it take over; or delete its entry"
        where = f"dkim/{domain}/{key.selector}"
        raise Refused(Problem(where, f"is pending already, as the next {algorithm} key", hint, Severity.REFUSED))
    return "pending" if _at(spec, domain, algorithm, "active") else "active"


def lacks_rsa(spec: Spec, domain: str) -> bool:
    """Whether a domain signs, or will, with Ed25519 alone, which Microsoft and Yahoo do not verify."""
    return not _at(spec, domain, "rsa", "active", "pending")


def _at(spec: Spec, domain: str, algorithm: str, *stages: str) -> list[Key]:
    return [key for key in spec.dkim.get(domain, ()) if key.algorithm == algorithm and key.stage in stages]


def make(directory: Directory, order: Order, environ: Mapping[str, str], today: dt.date, look: Look) -> NewKey:
    """Make a key and store it, or find one that an earlier run stored and did not come to name.

    ``environ`` is what the store's programs get, ``look`` asks the name servers whether a selector was ever published.
    Raises `Refused` for a selector that is or was in use, and `ReconcilerError` where the store fails.
    """
    store = open_store(order.where or default_store(directory.spec, order), directory.path, environ, order.recipients)
    taken = {key.selector for key in directory.spec.dkim.get(order.domain, ())}
    for selector in [order.selector] if order.selector else selectors(order.algorithm, today):
        reason = "stands in the directory: a selector is never used twice" if selector in taken else ""
        pem = None if reason else store.get(_file_name(selector, order))
        reason = reason or _unusable(look, selector, order, pem)
        if not reason:
            return _stored(store, selector, order, pem)
        if order.selector:
            hint = "name another one, or leave --selector out"
            raise Refused(Problem(f"dkim/{host(order.domain)}/{selector}", reason, hint, Severity.REFUSED))
    hint = "name one with --selector"
    raise ReconcilerError(Problem(f"dkim/{host(order.domain)}", "all selectors of this month are taken", hint))


def selectors(algorithm: str, today: dt.date) -> Iterator[str]:
    """Yield names for a new key in the order to try: ``ed202611``, ``ed202611b``, ..."""
    head = f"{'ed' if algorithm == 'ed25519' else 'rsa'}{today:%Y%m}"
    yield head
    yield from (f"{head}{letter}" for letter in "bcdefghijklmnopqrstuvwxyz")


def default_store(spec: Spec, order: Order) -> str:
    """Return where the domain's other keys are, the algorithm's own first, else where those of other domains are."""
    own = sorted(spec.dkim.get(order.domain, ()), key=lambda key: (key.algorithm != order.algorithm, key.stage))
    others = (key for entries in spec.dkim.values() for key in entries)
    found = (store_of(key.private_key) for key in (*own, *others) if key.private_key)
    return next((where for where in found if where), DEFAULT_STORE)


def _stored(store: Store, selector: str, order: Order, pem: str | None) -> NewKey:
    name, found = _file_name(selector, order), pem is not None
    pem = pem or keys.generate(order.algorithm)
    ref = store.reference(name)
    try:
        ref = ref if found else store.put(name, pem)
    except Refused:
        if store.get(name) is None:
            raise
        summary = "was made by another run meanwhile, so nothing was written"
        raise Refused(Problem(str(ref), summary, "run it again: it goes on with that key")) from None
    return NewKey(order.domain, selector, order.algorithm, keys.public_half(order.algorithm, pem), ref, found)


def _file_name(selector: str, order: Order) -> str:
    return f"{selector}.{host(order.domain)}.pem"


def _unusable(look: Look, selector: str, order: Order, pem: str | None) -> str:
    """Say why a selector can't be taken; empty where it can. A name server that can't be asked tells nothing."""
    try:
        public = keys.public_half(order.algorithm, pem) if pem else UNKNOWN
    except ValueError as error:
        return f"is taken in the store: what is there {error}"
    name = host(order.domain)
    record = dkim_record(name, name, selector, order.algorithm, public)
    asked = question(record)
    shown = tuple(answer for answer in look([asked]).get(asked, ()) if answer.values)
    if shown and (publication(record, {asked: shown}).missing or not pem):
        return "is published in DNS with another key: a selector is never used twice"
    return ""


# --------------------------------------------------------------------------------------------------- a rotation
@dataclass(slots=True)
class Rotation:
    """The due steps of a domain's keys, and what became of them: the keys made, and the files that say so now."""

    domain: str
    steps: tuple[Step, ...]
    file: str = ""
    made: list[NewKey] = field(default_factory=list)

    def write(
        self,
        directory: Directory,
        where: str | None,
        recipients: tuple[str, ...],
        *,
        environ: Mapping[str, str],
        today: dt.date,
        look: Look,
    ) -> None:
        """Make the keys that are needed, and write all that is due at once; the rest as of `Order` and `make`."""
        edits: list[Edit] = []
        steps = []
        for item in self.steps:
            step = item
            if item.move is Turn.START:
                order = Order(self.domain, item.algorithm, None, where, recipients)
                key = make(directory, order, environ, today, look)
                self.made.append(key)
                edits.append(key.entry("pending", today))
                step = _started(item, key, today)
            edits += [SetKey(self.domain, name, facts) for name, facts in step.changes.items()]
            steps.append(step)
        self.steps = tuple(steps)
        if edits:
            written = edit(directory, edits)
            written.write()
            self.file = ", ".join(written.files)


def _started(step: Step, key: NewKey, today: dt.date) -> Step:
    """Put the new key into the words of a step that begins a rotation."""
    said = f"{key.selector} is pending since {today}, and {step.selector} goes on signing"
    return replace(step, selector=key.selector, said=said, then=f"it takes over {SHOWN}")
