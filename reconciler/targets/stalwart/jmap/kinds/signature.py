"""DKIM signatures of Stalwart from 0.16. It knows no unique selectors, so they are told apart here (traps.md 27)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from reconciler import keys as dkim
from reconciler.desired.objects import TYPE
from reconciler.problem import Problem, SecretUnreadable, Severity
from reconciler.resources import UNKNOWN, UNMANAGED, Live, Resource, Signature, Special
from reconciler.target import Change, Reveal, differences
from reconciler.targets.stalwart.jmap.api import Selection
from reconciler.targets.stalwart.jmap.batch import Unwritable, Write
from reconciler.targets.stalwart.jmap.kind import MANUAL, Effect, Raw, Reading, ResourceKind, unsaid
from reconciler.targets.stalwart.survey import Omissions, fit
from reconciler.targets.stalwart.work import unusable

_READ = ("@type", "domainId", "selector", "publicKey", "stage", "createdAt")  # the private key reads masked
_TYPES = {"ed25519": "Dkim1Ed25519Sha256", "rsa": "Dkim1RsaSha256"}
_ALGORITHMS = {theirs: ours for ours, theirs in _TYPES.items()}
_RSA_BITS = 2048


class SignatureKind(ResourceKind):
    """DKIM keys, told apart by domain and selector."""

    resource = Signature
    objects = (Selection("DkimSignature", properties=_READ), Selection("Domain", properties=("name",)))
    in_force_by = Effect.CACHES

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield the signatures, each once, and report doubles and keys that can't be written."""
        return _Signatures(reading).live()

    def writes(self, changes: Sequence[Change], reading: Reading) -> Iterator[Write | Unwritable]:
        """Turn changes into writes; another algorithm is another object, made before the old one goes."""
        for number, change in enumerate(changes):
            try:
                yield from _writes(change, f"k{number}", reading)
            except (ValueError, SecretUnreadable) as error:
                yield Unwritable(change, unusable(change.address, error))

    def effects(self, change: Change, write: Write | None = None) -> frozenset[Effect]:
        """A warm signer cache never sees another selector of its domain (traps.md 27); a new domain has none yet."""
        if write is None or (write.verb == "create" and not write.body["domainId"].startswith("#")):
            return super().effects(change, write)
        return frozenset()

    def survey(self, reading: Reading, live: Sequence[Live], out: Omissions) -> Iterator[Live]:
        """Take the keys that sign, of domains whose records are ours."""
        managed = {str(it["name"]): it.get("dnsManagement") or MANUAL for it in reading.items("Domain")}
        for item in fit(live, "jmap", out):
            signature = item.resource
            if not isinstance(signature, Signature):
                continue
            if managed.get(signature.domain, {}).get(TYPE) != "Manual":
                hint = "it replaces keys, too; to keep them here, adopt the domain, then import again"
                out.note(signature.address, "the server manages the records of its domain by itself", hint)
            elif not signature.signs:
                hint = "it is pending, retiring or retired there; its record in DNS is imported as it is"
                out.note(signature.address, "the server does not sign with it", hint)
            elif not isinstance(signature.public_key, str):
                out.note(signature.address, "the server can't read its key", "see where it keeps it")
            else:
                yield item


class _Signatures:
    """The signatures of one reading, matched to those that are wanted."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._wanted = {item.address: item for item in reading.of(Signature)}
        self._found: dict[str, list[Live]] = defaultdict(list)  # by address
        for item in reading.items("DkimSignature"):
            domain = reading.ids.domain_name(item.get("domainId"))
            algorithm = _ALGORITHMS.get(str(item.get("@type")))
            if domain and algorithm:
                live = _live(Signature(domain, str(item.get("selector")), algorithm, UNMANAGED), item)
                self._found[live.resource.address].append(live)

    def live(self) -> Iterator[Live]:
        """Yield each once."""
        found = []
        for items in self._found.values():
            lives = sorted(items, key=self._preference)
            if len(lives) > 1:
                self._reading.report(_double(lives))
            found.append(replace(lives[0], detail=tuple(item.id for item in lives)))
        yield from found
        self._check(found)

    def _preference(self, live: Live) -> tuple[int, bool, str]:
        """Sort key: of several with one selector the one most like the declared one stands for all, then who signs."""
        wanted = self._wanted.get(live.resource.address)
        unlike = differences(wanted, live.resource) if wanted else {}
        return len(unlike) + ("algorithm" in unlike), not getattr(live.resource, "signs", None), live.id

    def _check(self, found: Sequence[Live]) -> None:
        """Tell of the keys to be written what stands in the way, before anything is written."""
        for signature in self._wanted.values():
            own = [item for item in found if item.resource.address == signature.address]
            if (
                signature.public_key is UNKNOWN
                or signature.held
                or any(not differences(signature, item.resource) for item in own)
            ):
                continue
            held = own[0].resource if own else None
            try:
                if not _holds(signature, held):
                    _pem(signature, self._reading.reveal)
            except (ValueError, SecretUnreadable) as error:
                self._reading.report(replace(unusable(signature.address, error), scope=signature.address))


def _live(name: Signature, item: Raw) -> Live:
    public: str | Special = UNMANAGED  # a key in a file that the server can't read shows none
    if item.get("publicKey"):
        try:
            public = dkim.public_key(name.algorithm, str(item["publicKey"]))
        except ValueError:
            public = str(item["publicKey"])
    return Live(replace(name, public_key=public, signs=item.get("stage") == "active"), id=str(item["id"]))


def _double(lives: Sequence[Live]) -> Problem:
    """Name the others of one selector, of which DNS shows one key only."""
    keys = {getattr(live.resource, "public_key", None) for live in lives}
    spare = [live.id for live in lives[1:]]
    summary = f"the server has it {len(lives)} times, with {'the same key' if len(keys) == 1 else 'different keys'}"
    if len(keys) > 1:
        summary += ": mail is signed with each, and receivers see a broken signature"
    listed = ", ".join(f'"{key}"' for key in spare)
    hint = (
        f"destroy the other{'s' if len(spare) > 1 else ''} in the web admin, or POST to /jmap "
        f'["x:DkimSignature/set", {{"destroy": [{listed}]}}, "0"]'
    )
    return Problem(lives[0].resource.address, summary, hint, Severity.WARNING)


def _holds(signature: Signature, held: Resource | None) -> bool:
    """Whether the server holds the wanted key already, and only the stage differs."""
    if not isinstance(held, Signature) or held.algorithm != signature.algorithm:
        return False
    return not isinstance(signature.public_key, str) or signature.public_key == held.public_key


# ---------------------------------------------------------------------------------------------------------- writing
def _writes(change: Change, creation: str, reading: Reading) -> Iterator[Write]:
    after, before = change.after, change.before
    if isinstance(after, Signature) and before is not None and "algorithm" not in change.fields:
        if patch := _patch(after, change.fields, reading.reveal):
            yield Write("DkimSignature", "update", before.id, patch, (change,))
        return
    if isinstance(after, Signature):
        body = {
            "@type": _TYPES[after.algorithm],
            "domainId": reading.ids.the_domain(after.domain),
            "selector": after.selector,
            "privateKey": _private(after, reading.reveal),
            "stage": _stage(after),
        }
        yield Write("DkimSignature", "create", creation, body, (change,))
    for key in before.detail if before else ():
        yield Write("DkimSignature", "destroy", key, changes=(change,), last=after is not None)


def _patch(after: Signature, changed: Collection[str], reveal: Reveal) -> dict[str, Any]:
    patch: dict[str, Any] = {}
    if "public_key" in changed:
        patch["privateKey"] = _private(after, reveal)  # replaced in place; publicKey follows (observed.md, 0.16.18)
    if "signs" in changed:
        patch["stage"] = _stage(after)
    return patch


def _stage(signature: Signature) -> str:
    return "active" if signature.signs else "pending"


def _private(signature: Signature, reveal: Reveal) -> dict[str, str]:
    return {"@type": "Text", "secret": _pem(signature, reveal)}


def _pem(signature: Signature, reveal: Reveal) -> str:
    """Return the private key to write; one that nobody gives is made here, as only the server has to know it.

    Raises ValueError when it is not the declared one, `SecretUnreadable` when it can't be read.
    """
    if reveal is unsaid:
        return ""
    declared = signature.public_key if isinstance(signature.public_key, str) else None
    if signature.private_key is None:
        if declared:
            raise ValueError("the server does not hold the key of the declared public_key, and private_key is missing")
        return dkim.generate(signature.algorithm)
    try:
        pem = dkim.private_pem(signature.algorithm, reveal(signature.private_key))
    except ValueError as error:
        raise ValueError(f"private_key {signature.private_key} {error}") from None
    half = dkim.public_half(signature.algorithm, pem)
    if signature.algorithm == "rsa" and (bits := dkim.rsa_bits(half)) < _RSA_BITS:
        raise ValueError(
            f"private_key {signature.private_key} has {bits} bits, and the server takes no less than {_RSA_BITS}"
        )
    if declared and half != declared:
        raise ValueError("private_key is not the private half of the declared public_key")
    return pem
