"""DKIM keys of Stalwart up to 0.15: blocks of keys, of which those sign whose ids the rule names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from reconciler import keys as dkim
from reconciler.address import Address
from reconciler.desired.raw_keys import SIGNATURE, list_of, raw_key
from reconciler.names import key_name
from reconciler.problem import Problem, SecretUnreadable, Severity
from reconciler.resources import UNKNOWN, UNMANAGED, Live, Resource, Setting, Signature, Special
from reconciler.target import Change, Reveal
from reconciler.targets.stalwart.rest.kind import Edit, Import, KeyKind, Keys, Reading, Stored
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
_DEFAULT = "['rsa-' + sender_domain, 'ed25519-' + sender_domain]"  # for local domains (config/smtp/auth.rs)
_LOCAL = re.compile(r"is_local_domain\([^()]*, *sender_domain *\)")
_EQUAL = re.compile(r"sender_domain *==? *['\"]([^'\"]*)['\"]")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_PRIVATE = re.compile(r"signature\.(.+)\.private-key")
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
        wanted, rule = reading.of(Signature), _rule_after(reading.keys, [(item, ()) for item in reading.of(Setting)])
        if wanted and any(_named(rule, item.domain) is None for item in wanted):
            summary = f"the rule {_RULE} can't be read here, so which keys sign can't be told"
            reading.report(Problem("dkim", summary, _default_hint(rule), Severity.WARNING))
        found: dict[str, tuple[str, Signature]] = {}
        read = [(name, item) for name in _all_ids(reading.keys) if (item := _signature(name, reading, rule))]
        for name, signature in sorted(read, key=lambda it: not it[1].signs):  # of two of a selector the one that signs
            found.setdefault(signature.address, (name, signature))
            yield Live(signature, id=name)
        yield from _still_signing(reading)
        for signature in wanted:
            _report_unusable(signature, found.get(signature.address), reading)
            try:
                _id_of(signature, found.get(signature.address, ("",))[0], rule, reading.keys)
            except ValueError as error:
                problem = Problem(signature.address, str(error), _default_hint(rule), scope=signature.address)
                reading.report(problem)

    # ---------------------------------------------------------------------------------------------------------- writing
    def edit(self, change: Change, before: Stored, reveal: Reveal, others: Sequence[Change]) -> Edit:
        """Write all of its keys under the id that signs, or does not; a key that loses the id is kept under another."""
        old = change.before.id if change.before else None
        signature = change.after
        if not isinstance(signature, Signature):
            # Of a removal that is not in force yet the address is all that is left: it is noted.
            return Edit(change, tuple(_blocks_of(change.resource, before)), also=(change.address,))
        settings = [
            (it.resource, it.before.detail if it.before else ()) for it in others if isinstance(it.resource, Setting)
        ]
        name = _id_of(signature, old, _rule_after(before, settings), before)
        drop = tuple(dict.fromkeys(key for item in (name, old) if item for key in _block(before, item)))
        put = {} if name == old else _moved_aside(name, before, signature.selector)
        if put and any(it.before and it.before.id == name for it in others if isinstance(it.resource, Signature)):
            put = {}  # its own change says what becomes of it
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

    def means(self, text: str, resource: Signature, live: Resource | None) -> bool:
        """Whether a private key is the one that is wanted; of a macro by what the server shows."""
        if is_macro(text):
            return isinstance(live, Signature) and live.public_key in (resource.public_key, UNMANAGED)
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
            if not signature.signs:
                hint = f"{_RULE} names other keys; their records in DNS are imported as they are"
                note(signature.address, f"the server does not sign with it, by its id {item.id}", hint)
                continue
            if not isinstance(signature.public_key, str) or not signature.public_key:
                note(signature.address, "its key can't be read", "give the key as `private_key` in dkim.yaml")
                continue
            if strange := sorted(_strange_options(taken.keys, item.id)):
                hint = "after a loss it signs as the server's own keys do"
                note(signature.address, f"its options {', '.join(strange)} can't be declared", hint)
            private = taken.keys[f"{SIGNATURE}{item.id}.private-key"]
            if is_macro(private):
                hint = "with config.toml it is lost: give the key it leads to as `private_key`"
                note(signature.address, f"its private key is {private}, which only the server reads", hint)
            else:
                taken.private_keys[signature.address] = private
            yield item


def _signing_id(algorithm: str, domain: str) -> str:
    """Return the only id that signs for a domain by the server's default rule."""
    return f"{algorithm}-{domain}"


def _default_hint(rule: Keys) -> str:
    """Say how the server's default rule comes back: a list goes entry by entry."""
    keys = [key for key in sorted(rule) if key == _RULE or key.startswith(f"{_RULE}.")]
    cleared = ", ".join(f"{key}: null" for key in keys)
    return f"`settings: {{{cleared}}}` puts the default back: the ids rsa-DOMAIN and ed25519-DOMAIN"


def _rule_after(stored: Stored, settings: Iterable[tuple[Any, Any]]) -> Keys:
    """Return the rule's keys as they are once raw settings are written, each with the keys that go with it."""
    keys = {key: stored[key] for key in stored.below(_RULE) if _is_rule(key)}
    raw = ((it, gone) for it, gone in settings if it.word.startswith("settings/"))
    told = [(raw_key(it), it.value, gone) for it, gone in raw if _is_rule(raw_key(it))]
    if any(list_of(name) and value is not None for name, value, _ in told) and not any(it[2] for it in told):
        wanted = {name for name, _, _ in told}
        keys = {key: value for key, value in keys.items() if not list_of(key) or key in wanted}
    for name, value, gone in told:
        for key in (name, *(gone or ())):
            keys.pop(key, None)
        if isinstance(value, str):
            keys[name] = value
    return keys


def _is_rule(key: str) -> bool:
    return key == _RULE or list_of(key) == _RULE


def _named(rule: Keys, domain: str) -> frozenset[str] | None:
    """Return the ids that a sender's domain is signed with, by the rule that is live; None where it can't be read.

    A rule is one value, or numbered branches (0.15: expr/if_block.rs); one whose condition can't be read may hold.
    """
    branches = sorted({key.rpartition(".")[0] for key in rule if list_of(key) == _RULE and not key[-1].isdigit()})
    told = [("", rule[_RULE])] if _RULE in rule else []
    if not told:
        parts = [{word: rule.get(f"{base}.{word}", "") for word in ("if", "then", "else")} for base in branches]
        told = [(it["if"], it["then"] or it["else"]) for it in parts]
    found: set[str] = set()
    for condition, value in told or [("", _DEFAULT)]:
        holds = _holds(condition, domain)
        ids = _written_ids(value, domain) if holds is not False else ()
        if ids is None:
            return None
        found |= set(ids)
        if holds:
            break
    return frozenset(found)


def _holds(condition: str, domain: str) -> bool | None:
    """Whether a branch is taken for a sender's domain; None where that can't be told."""
    if not condition or _LOCAL.fullmatch(condition.strip()):
        return True
    equal = _EQUAL.fullmatch(condition.strip())
    return equal[1] == domain if equal else None


def _written_ids(value: str, domain: str) -> list[str] | None:
    """Read ``['rsa-' + sender_domain, 'mine']``: the ids for a domain, none for ``false``; None for anything else."""
    text = value.strip().removeprefix("[").removesuffix("]").strip()
    if text in ("", "false"):
        return []
    found = []
    for item in text.split(","):
        words = [word.strip() for word in item.split("+")]
        if not all(word == "sender_domain" or _QUOTED.fullmatch(word) for word in words):
            return None
        found.append("".join(domain if word == "sender_domain" else word[1:-1] for word in words))
    return found


def _all_ids(stored: Stored) -> list[str]:
    return sorted(_ids(stored.below(SIGNATURE)))


def _ids(stored: Iterable[str]) -> set[str]:
    return {match[1] for key in stored if (match := _FIELDS.fullmatch(key))}


def _block(stored: Stored, name: str) -> dict[str, str]:
    """Return the keys of one signature. ``signature.rsa-mana.how.`` also begins the keys of ``rsa-mana.how.au``."""
    found = stored.below(f"{SIGNATURE}{name}.")
    longer = tuple(f"{SIGNATURE}{item}." for item in _ids(found) if item.startswith(f"{name}."))
    return {key: stored[key] for key in found if not key.startswith(longer)}


def _signature(name: str, reading: Reading, rule: Keys) -> Signature | None:
    domain, selector, algorithm = (
        reading.keys.get(f"{SIGNATURE}{name}.{part}", "") for part in ("domain", "selector", "algorithm")
    )
    known, domain = _ALGORITHMS.get(algorithm), domain.lower()  # the server signs with it as it stands: DNS has no case
    where = f"dkim/{domain}/{selector}"
    if known is None or not domain or not selector:
        summary = f"the signature {name} on the server lacks its algorithm, domain or selector, which spoils others"
        hint = f"clear the settings below signature.{name}."
        reading.report(Problem(where, summary, hint, Severity.WARNING))
        return None
    named = _named(rule, domain)
    signs: bool | Special = UNMANAGED if named is None else name in named
    private = f"{SIGNATURE}{name}.private-key"
    if is_macro(reading.keys.get(private, "")):
        shown = _shown_half(known, reading.shown.get(key_name(selector, domain), ""))
        signs = signs if _told_of_macro(name, where, reading, known=shown is not UNMANAGED) else False
        return Signature(domain, selector, known, shown, signs)
    return Signature(domain, selector, known, _public_half(name, known, where, reading), signs)


def is_macro(text: str) -> bool:
    """Whether a value leads to a file or a variable of the server's, which it reads by itself."""
    return _MACRO.fullmatch(text.strip()) is not None


def domains_of_macros(stored: Keys) -> set[str]:
    """Name the domains of which the server has a key that is to be found elsewhere."""
    found = (match[1] for key, text in stored.items() if (match := _PRIVATE.fullmatch(key)) and is_macro(text))
    return {domain for name in found if (domain := stored.get(f"{SIGNATURE}{name}.domain", ""))}


def _shown_half(algorithm: str, record: str) -> str | Special:
    """Read what the server would publish of a key; it shows no RSA key that is PKCS#8 (observed.md)."""
    try:
        return dkim.public_key(algorithm, dkim.read(record).tag("p"))
    except (ValueError, IndexError):
        return UNMANAGED


def _told_of_macro(name: str, where: str, reading: Reading, *, known: bool) -> bool:
    """Tell what has to be known of a key that leads elsewhere; return whether the server may sign with it."""
    key = f"{SIGNATURE}{name}.private-key"
    if reading.file is not None and key not in reading.file:
        summary = f"the private key of {name} is a macro in the database, where the server resolves none: it can't sign"
        reading.report(Problem(where, summary, "give the key itself as private_key", Severity.WARNING))
        return False
    if reading.file is None or not known:
        summary = (
            f"the private key of {name} is a macro: it signs where that stands in config.toml, not in the database"
        )
        summary += "" if known else ", and its public half is not shown"
        hint = "see that it stands in config.toml: then this one signs; else give the key itself as private_key"
        reading.report(Problem(where, summary, hint, Severity.WARNING))
    return True


def _public_half(name: str, algorithm: str, where: str, reading: Reading) -> str | Special:
    """Derive it from the private key; a key that can't be read is a problem, and is never shown."""
    pem = reading.keys.get(f"{SIGNATURE}{name}.private-key", "")
    try:
        return dkim.public_half(algorithm, pem)
    except ValueError as error:
        summary = f"the private key of {name} on the server {error}"
        reading.report(Problem(where, summary, "give it as private_key"))
        return ""


def _still_signing(reading: Reading) -> Iterator[Live]:
    """Yield the keys whose removal was stored and never put in force: of them only the address is left."""
    for address in sorted(reading.waiting - {item.address for item in reading.of(Signature)}):
        found = Address.parse(address)
        if found.kind == Signature.kind and len(found.parts) == len(Signature.identity):
            domain, selector = found.parts
            yield Live(Signature(domain, selector, "", UNMANAGED, UNMANAGED))


def _report_unusable(wanted: Signature, found: tuple[str, Signature] | None, reading: Reading) -> None:
    """Tell of a key to be written what stands in the way, before anything is written."""
    name, live = found or ("", None)
    if wanted.public_key is UNKNOWN or wanted.held or (live is not None and not _to_be_written(wanted, live)):
        return
    try:
        _pem(wanted, reading.keys.get(f"{SIGNATURE}{name}.private-key"), reading.reveal)
    except (ValueError, SecretUnreadable) as error:
        reading.report(replace(unusable(wanted.address, error), scope=wanted.address))


def _to_be_written(wanted: Signature, live: Signature) -> bool:
    same_key = wanted.algorithm == live.algorithm and live.public_key in (wanted.public_key, UNMANAGED)
    return not same_key or live.signs not in (wanted.signs, UNMANAGED)


def _blocks_of(resource: Resource, before: Stored) -> Iterator[str]:
    """Yield the keys of every signature that is this one. Its id may belong to the key that took over by now."""
    for name in _all_ids(before):
        block = _block(before, name)
        selector, domain = (block.get(f"{SIGNATURE}{name}.{part}") for part in ("selector", "domain"))
        told = ((domain or "").lower(), (selector or "").lower())
        if isinstance(resource, Signature) and told == (resource.domain, resource.selector):
            yield from block


def _id_of(signature: Signature, old: str | None, rule: Keys, stored: Keys) -> str:
    """Return the id to store a signature under: one that the rule names where it signs, and none of these else.

    Raises ValueError where the rule names no key that could be this one.
    """
    usual, named = _signing_id(signature.algorithm, signature.domain), _named(rule, signature.domain)
    signing = {usual} if named is None else named
    if not signature.signs:
        return old if old and old not in signing else f"{usual}-{signature.selector}"
    if old and old in signing:
        return old
    if usual in signing:
        return usual
    found = (name for name in signing if _fits(name, signature, stored))
    fitting = sorted((f"{SIGNATURE}{name}.algorithm" in stored, name) for name in found)
    if not fitting:
        raise ValueError(
            f"the rule {_RULE} names no {signature.algorithm} key for {signature.domain}: it would not sign"
        )
    return fitting[0][1]


def _fits(name: str, signature: Signature, stored: Keys) -> bool:
    """Whether an id that the rule names can hold a key: by what is stored there, else by what it is called."""
    algorithm, domain = (stored.get(f"{SIGNATURE}{name}.{part}") for part in ("algorithm", "domain"))
    if algorithm is not None:
        return (_ALGORITHMS.get(algorithm), (domain or "").lower()) == (signature.algorithm, signature.domain)
    other = "rsa" if signature.algorithm == "ed25519" else "ed25519"
    return other not in name


def _moved_aside(name: str, before: Stored, newcomer: str) -> dict[str, str]:
    """Keep a key that loses the signing id under one that does not sign: it may be the only copy.

    A block of the same selector is the newcomer's own, stored by a run that ended before its reload.
    """
    start = f"{SIGNATURE}{name}."
    selector = before.get(f"{start}selector")
    if selector is None or selector.lower() in ("", newcomer) or f"{start}private-key" not in before:
        return {}
    block = _block(before, name)
    return {f"{SIGNATURE}{name}-{selector}.{key.removeprefix(start)}": value for key, value in block.items()}


def _pem(signature: Signature, held: str | None, reveal: Reveal) -> str | None:
    """Return the private key to write; None when the server is to make one."""
    pem = None if held is not None and is_macro(held) else held
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


def _strange_options(stored: Stored, name: str) -> Iterator[str]:
    """Yield the options of a key that another one, made by the server or by us, would not have."""
    for key, value in _block(stored, name).items():
        part = key.removeprefix(f"{SIGNATURE}{name}.")
        if part not in _OWN and _USUAL.get(part) != value:
            yield part
