"""DKIM keys of Stalwart up to 0.15: blocks of keys, of which only two ids of a domain sign."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from reconciler import keys as dkim
from reconciler.desired.raw_keys import SIGNATURE
from reconciler.problem import Problem, SecretUnreadable, Severity
from reconciler.resources import UNKNOWN, UNMANAGED, Live, Resource, Signature, Special
from reconciler.target import Change, Reveal
from reconciler.targets.stalwart.rest.kind import Edit, Import, KeyKind, Keys, Reading
from reconciler.targets.stalwart.work import unusable

_RULE = "auth.dkim.sign"
_HEADERS = ("From", "To", "Date", "Subject", "Message-ID")  # as the server's own keys sign (rest-0.15.md, section 3)
_PARTS = (
    *("algorithm", "canonicalization", "domain", "private-key", "report", "selector"),
    *(f"headers.{index}" for index in range(len(_HEADERS))),
)
_USUAL: Keys = {  # how the server's own keys sign, and ours
    "canonicalization": "relaxed/relaxed",
    "report": "false",
    **{f"headers.{index}": header for index, header in enumerate(_HEADERS)},
}
_OWN = frozenset({"algorithm", "domain", "private-key", "selector"})
_ALGORITHMS = {"rsa-sha256": "rsa", "ed25519-sha256": "ed25519"}
_MACRO = re.compile(r"%\{(env|file|cfg)?:?[^}]*\}%")
_FIELDS = re.compile(r"signature\.(.+)\.(algorithm|domain|selector|private-key)")


class Signatures(KeyKind[Signature]):
    """The keys that it signs with, or keeps without signing."""

    resource, prefixes = Signature, (SIGNATURE.removesuffix("."), _RULE)

    # ---------------------------------------------------------------------------------------------------------- reading
    def single(self, wanted: Sequence[Resource]) -> Iterable[str]:
        """Name the rule, where it is one key."""
        del wanted
        return (_RULE,)

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield all of them, and report what stands in the way of those that are to be written."""
        wanted = reading.of(Signature)
        custom = any(key == _RULE or key.startswith(f"{_RULE}.") for key in reading.keys)
        if custom and wanted:
            summary = f"{_RULE} is not the server's default, so which keys sign can't be told"
            hint = f"`settings: {{{_RULE}: null}}` puts the default back: the ids rsa-DOMAIN and ed25519-DOMAIN"
            reading.report(Problem("dkim", summary, hint, Severity.WARNING))
        found: dict[str, tuple[str, Signature]] = {}
        for name in sorted(_ids(reading.keys)):
            signature = _signature(name, reading, custom=custom)
            if signature is not None:
                found.setdefault(signature.address, (name, signature))
                yield Live(signature, id=name)
        yield from _still_signing(reading)
        for signature in wanted:
            _report_unusable(signature, found.get(signature.address), reading)

    # ---------------------------------------------------------------------------------------------------------- writing
    def edit(self, change: Change, before: Keys, reveal: Reveal, others: Sequence[Change]) -> Edit:
        """Write all of its keys under the id that signs, or does not; a key that loses the id is kept under another."""
        old = change.before.id if change.before else None
        signature = change.after
        if not isinstance(signature, Signature):
            # Of a removal that is not in force yet the address is all that is left: it is noted.
            return Edit(change, tuple(_blocks_of(change.resource, before)), also=(change.address,))
        name = _id_of(signature, old)
        drop = tuple(dict.fromkeys(key for item in (name, old) if item for key in _block(before, item)))
        leaving = {item.before.id for item in others if isinstance(item.resource, Signature) and item.before}
        put = {} if name == old or name in leaving else _moved_aside(name, before, signature.selector)
        rank = 2 if signature.signs is True else 1  # a key leaves its id before another one takes it
        pem = _pem(signature, before.get(f"{SIGNATURE}{old}.private-key") if old else None, reveal)
        if pem is None:
            make = name, signature.algorithm, signature.domain, signature.selector
            made = tuple(f"{SIGNATURE}{name}.{part}" for part in _PARTS)
            return Edit(change, drop, put, make, made, rank=rank)
        return Edit(change, drop, put | _keys(name, signature, pem), rank=rank)

    def in_database(self, resource: Signature) -> Iterable[str]:
        """Name the private key of one that signs."""
        name = _signing_id(resource.algorithm, resource.domain)
        return (f"{SIGNATURE}{name}.private-key",) if resource.signs else ()

    def means(self, text: str, resource: Signature) -> bool:
        """Whether a private key is the one that is wanted."""
        try:
            return dkim.public_half(resource.algorithm, text) == resource.public_key
        except ValueError:
            return False

    # -------------------------------------------------------------------------------------------------------- importing
    def imported(self, live: Sequence[Live], taken: Import) -> Iterator[Live]:
        """Yield those that can be declared as signing, with their private keys; tell why others can't."""
        note = taken.out.note
        for item in live:
            signature = item.resource
            if not isinstance(signature, Signature):
                continue
            if item.id != _signing_id(signature.algorithm, signature.domain):
                hint = "only rsa-DOMAIN and ed25519-DOMAIN do; their records in DNS are imported as they are"
                note(signature.address, f"the server does not sign with it, or not by its id {item.id}", hint)
                continue
            if not isinstance(signature.public_key, str) or not signature.public_key:
                note(signature.address, "its key can't be read", "give the key as `private_key` in dkim.yaml")
                continue
            if strange := sorted(_strange_options(taken.keys, item.id)):
                hint = "after a loss it signs as the server's own keys do"
                note(signature.address, f"its options {', '.join(strange)} can't be declared", hint)
            taken.private_keys[signature.address] = taken.keys[f"{SIGNATURE}{item.id}.private-key"]
            yield item


def _signing_id(algorithm: str, domain: str) -> str:
    """Return the only id that signs for a domain by the server's default rule."""
    return f"{algorithm}-{domain}"


def _ids(stored: Iterable[str]) -> set[str]:
    return {match[1] for key in stored if (match := _FIELDS.fullmatch(key))}


def _block(stored: Keys, name: str) -> dict[str, str]:
    """Return the keys of one signature. ``signature.rsa-mana.how.`` also begins the keys of ``rsa-mana.how.au``."""
    start = f"{SIGNATURE}{name}."
    longer = tuple(f"{SIGNATURE}{item}." for item in _ids(stored) if item.startswith(f"{name}."))
    return {key: value for key, value in stored.items() if key.startswith(start) and not key.startswith(longer)}


def _signature(name: str, reading: Reading, *, custom: bool) -> Signature | None:
    domain, selector, algorithm = (
        reading.keys.get(f"{SIGNATURE}{name}.{part}", "") for part in ("domain", "selector", "algorithm")
    )
    known = _ALGORITHMS.get(algorithm)
    where = f"dkim/{domain}/{selector}"
    if known is None or not domain or not selector:
        summary = f"the signature {name} on the server lacks its algorithm, domain or selector, which spoils others"
        hint = f"clear the settings below signature.{name}."
        reading.report(Problem(where, summary, hint, Severity.WARNING))
        return None
    signs: bool | Special = UNMANAGED if custom else name == _signing_id(known, domain)
    return Signature(domain, selector, known, _public_half(name, known, where, reading), signs)


def _public_half(name: str, algorithm: str, where: str, reading: Reading) -> str | Special:
    """Derive it from the private key; a key that can't be read is a problem, and is never shown."""
    pem = reading.keys.get(f"{SIGNATURE}{name}.private-key", "")
    if _MACRO.fullmatch(pem.strip()):
        summary = f"the private key of {name} is a macro, which the server does not resolve in its database"
        reading.report(Problem(where, summary, "give the key itself as private_key", Severity.WARNING))
        return UNMANAGED
    try:
        return dkim.public_half(algorithm, pem)
    except ValueError as error:
        summary = f"the private key of {name} on the server {error}"
        reading.report(Problem(where, summary, "give it as private_key"))
        return ""


def _still_signing(reading: Reading) -> Iterator[Live]:
    """Yield the keys whose removal was stored and never put in force: of them only the address is left."""
    for address in sorted(reading.leaving - {item.address for item in reading.of(Signature)}):
        kind, _, rest = address.partition("/")
        if kind == Signature.kind:
            domain, _, selector = rest.partition("/")
            yield Live(Signature(domain, selector, "", UNMANAGED, UNMANAGED))


def _report_unusable(wanted: Signature, found: tuple[str, Signature] | None, reading: Reading) -> None:
    """Tell of a key to be written what stands in the way, before anything is written."""
    name, live = found or ("", None)
    if wanted.public_key is UNKNOWN or (live is not None and not _to_be_written(wanted, live)):
        return
    try:
        _pem(wanted, reading.keys.get(f"{SIGNATURE}{name}.private-key"), reading.reveal)
    except (ValueError, SecretUnreadable) as error:
        reading.report(replace(unusable(wanted.address, error), scope=wanted.address))


def _to_be_written(wanted: Signature, live: Signature) -> bool:
    same_key = wanted.algorithm == live.algorithm and live.public_key in (wanted.public_key, UNMANAGED)
    return not same_key or live.signs not in (wanted.signs, UNMANAGED)


def _blocks_of(resource: Resource, before: Keys) -> Iterator[str]:
    """Yield the keys of every signature that is this one. Its id may belong to the key that took over by now."""
    for name in sorted(_ids(before)):
        block = _block(before, name)
        selector, domain = (block.get(f"{SIGNATURE}{name}.{part}") for part in ("selector", "domain"))
        if isinstance(resource, Signature) and (domain, selector) == (resource.domain, resource.selector):
            yield from block


def _id_of(signature: Signature, old: str | None) -> str:
    """Return the id to store a signature under: only rsa-DOMAIN and ed25519-DOMAIN sign."""
    signing = _signing_id(signature.algorithm, signature.domain)
    if signature.signs:
        return signing
    return old if old and old != signing else f"{signing}-{signature.selector}"


def _moved_aside(name: str, before: Keys, newcomer: str) -> dict[str, str]:
    """Keep a key that loses the signing id under one that does not sign: it may be the only copy.

    A block of the same selector is the newcomer's own, stored by a run that ended before its reload.
    """
    start = f"{SIGNATURE}{name}."
    selector = before.get(f"{start}selector")
    if selector in (None, "", newcomer) or f"{start}private-key" not in before:
        return {}
    block = _block(before, name)
    return {f"{SIGNATURE}{name}-{selector}.{key.removeprefix(start)}": value for key, value in block.items()}


def _pem(signature: Signature, held: str | None, reveal: Reveal) -> str | None:
    """Return the private key to write; None when the server is to make one."""
    pem = held
    if signature.private_key is not None:
        try:
            pem = dkim.private_pem(signature.algorithm, reveal(signature.private_key))
        except ValueError as error:
            raise ValueError(f"private_key {signature.private_key} {error}") from None
        whose = "private_key is not the private half of the declared public_key"
    else:
        whose = "the server holds another key than the declared public_key, and private_key is not given"
    declared = signature.public_key if isinstance(signature.public_key, str) else None
    if pem is None and declared:
        raise ValueError("the server does not hold the key of the declared public_key, and private_key is not given")
    if pem is not None and declared and dkim.public_half(signature.algorithm, pem) != declared:
        raise ValueError(whose)
    return pem


def _keys(name: str, signature: Signature, pem: str) -> dict[str, str]:
    """Return every key the server writes itself: one without its algorithm would spoil its neighbour."""
    values = {
        "algorithm": f"{signature.algorithm}-sha256",
        "domain": signature.domain,
        "private-key": pem,
        "selector": signature.selector,
        **_USUAL,
    }
    return {f"{SIGNATURE}{name}.{part}": values[part] for part in _PARTS}


def _strange_options(stored: Keys, name: str) -> Iterator[str]:
    """Yield the options of a key that another one, made by the server or by us, would not have."""
    for key, value in _block(stored, name).items():
        part = key.removeprefix(f"{SIGNATURE}{name}.")
        if part not in _OWN and _USUAL.get(part) != value:
            yield part
