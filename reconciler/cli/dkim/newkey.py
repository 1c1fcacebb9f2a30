"""A new DKIM key: a selector that nobody has used, and its private half where the user keeps secrets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reconciler import keys
from reconciler.cli.session import Session
from reconciler.desired.edit import AddKey, Facts
from reconciler.desired.load import Directory
from reconciler.desired.resources import zone_of
from reconciler.desired.spec import Spec
from reconciler.desired.spec.mail import Key
from reconciler.dkim import rotation
from reconciler.dns import dkim_record, host
from reconciler.dns.publication import Answers, publication, question
from reconciler.problem import Problem, ReconcilerError, Refused, Severity
from reconciler.resources import UNKNOWN, Record, SecretRef
from reconciler.secrets.store import open_store, store_of

if TYPE_CHECKING:
    from reconciler.secrets.store import Store

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

    def added(self, stage: str, session: Session) -> AddKey:
        """Return its entry."""
        facts: Facts = {
            "selector": self.selector,
            "algorithm": self.algorithm,
            "public_key": self.public_key,
            "private_key": self.private_key,
            "stage": stage,
            "since": session.settings.today,
        }
        return AddKey(self.domain, facts)

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


def new_key(session: Session, directory: Directory, order: Order) -> NewKey:
    """Make a key and store it, or find one that an earlier run stored and did not come to name.

    Raises `Refused` for a selector that is or was in use, and `ReconcilerError` where the store fails.
    """
    where = order.where or default_store(directory.spec, order)
    store = open_store(where, directory.path, session.settings.environ, order.recipients)
    taken = {key.selector for key in directory.spec.dkim.get(order.domain, ())}
    for selector in [order.selector] if order.selector else rotation.selectors(order.algorithm, session.settings.today):
        reason = "stands in the directory: a selector is never used twice" if selector in taken else ""
        pem = None if reason else store.get(_name(selector, order))
        reason = reason or _unusable(session, selector, order, pem)
        if not reason:
            return _stored(store, selector, order, pem)
        if order.selector:
            hint = "name another one, or leave --selector out"
            raise Refused(Problem(f"dkim/{host(order.domain)}/{selector}", reason, hint, Severity.REFUSED))
    hint = "name one with --selector"
    raise ReconcilerError(Problem(f"dkim/{host(order.domain)}", "all selectors of this month are taken", hint))


def default_store(spec: Spec, order: Order) -> str:
    """Return where the domain's other keys are, the algorithm's own first, else where those of other domains are."""
    own = sorted(spec.dkim.get(order.domain, ()), key=lambda key: (key.algorithm != order.algorithm, key.stage))
    others = (key for entries in spec.dkim.values() for key in entries)
    found = (store_of(key.private_key) for key in (*own, *others) if key.private_key)
    return next((where for where in found if where), DEFAULT_STORE)


def _stored(store: Store, selector: str, order: Order, pem: str | None) -> NewKey:
    name, found = _name(selector, order), pem is not None
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


def _name(selector: str, order: Order) -> str:
    return f"{selector}.{host(order.domain)}.pem"


def _unusable(session: Session, selector: str, order: Order, pem: str | None) -> str:
    """Say why a selector can't be taken; empty where it can."""
    try:
        public = keys.public_half(order.algorithm, pem) if pem else UNKNOWN
    except ValueError as error:
        return f"is taken in the store: what is there {error}"
    name = host(order.domain)
    record = dkim_record(name, name, selector, order.algorithm, public)
    answers = _published(session, record)
    if answers and (publication(record, answers).missing or not pem):
        return "is published in DNS with another key: a selector is never used twice"
    return ""


def _published(session: Session, record: Record) -> Answers:
    """Return what name servers show at a selector. One that can't be asked tells nothing: a key needs no network."""
    from reconciler.observe import nameservers

    settings, asked = session.settings, question(record)
    said = nameservers.look([asked], nameservers=settings.nameservers, progress=session.console.step)
    session.console.done()
    shown = tuple(answer for answer in said.get(asked, ()) if answer.values)
    return {asked: shown} if shown else {}


def check_selector(selector: str | None) -> None:
    """Refuse what the directory could not hold, before a key is stored under it."""
    from pydantic import ValidationError

    try:
        Key.model_validate({"selector": selector or "any", "algorithm": "ed25519"})
    except ValidationError:
        hint = "write a-z, 0-9 and -, such as ed202611"
        raise ReconcilerError(Problem(f"--selector {selector}", "is no selector", hint)) from None


def declared(spec: Spec, domain: str) -> str | None:
    """Return a domain as the directory writes it below ``dkim``; None where it does not."""
    wanted = domain_name(domain)
    return next((name for name in spec.dkim if host(name) == wanted), None)


def domain_name(domain: str) -> str:
    """Normalise a domain of the command line. Raises `ReconcilerError`."""
    try:
        return host(domain)
    except ValueError as error:
        raise ReconcilerError(Problem("DOMAIN", str(error), "write it like mana.how")) from None


def unknown(domain: str, known: Sequence[str], hint: str, summary: str) -> ReconcilerError:
    """Make the error for a domain that the directory does not know, or has no key of."""
    from reconciler.desired.checks import near

    return ReconcilerError(Problem(domain, summary, near(domain_name(domain), known) or hint))
