"""Settings and signatures of Stalwart up to 0.15: from flat keys to resources, and from changes to keys. Pure."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from reconciler import keys as dkim
from reconciler.desired.objects import place
from reconciler.desired.stalwart import (
    ALLOWED_IP,
    DEFAULT_RATES,
    LISTENER,
    LOCAL_KEYS,
    SIGNATURE,
    ban_rate,
    in_config_file,
    is_secret,
    raw_key,
)
from reconciler.plan import Change, differences
from reconciler.problem import Problem, SecretUnreadable, Severity
from reconciler.reconcile import Report, Reveal
from reconciler.resources import (
    UNKNOWN,
    UNMANAGED,
    AllowedIp,
    Different,
    Listener,
    Live,
    Resource,
    Same,
    SecretRef,
    SecretText,
    Setting,
    Signature,
    Special,
    Unreadable,
)

Keys = Mapping[str, str]

PENDING = "reconciler.pending"
"""Names what we have stored and not yet put in force, in the server itself, so that a run that was killed between
writing and reloading is seen by the next one. It is gone after every reload without errors."""

SIGN_RULE = "auth.dkim.sign"
_PREFIXES = ("signature", "server.listener", "server.allowed-ip", SIGN_RULE)
_HEADERS = ("From", "To", "Date", "Subject", "Message-ID")  # as the server's own keys sign (rest-0.15.md, section 3)
_SIGNATURE_PARTS = (
    *("algorithm", "canonicalization", "domain", "private-key", "report", "selector"),
    *(f"headers.{index}" for index in range(len(_HEADERS))),
)
USUAL_OPTIONS: Keys = {
    "canonicalization": "relaxed/relaxed",
    "report": "false",
    **{f"headers.{index}": header for index, header in enumerate(_HEADERS)},
}
"""How the server's own keys sign, and ours."""
_ALGORITHMS = {"rsa-sha256": "rsa", "ed25519-sha256": "ed25519"}
_MACRO = re.compile(r"%\{(env|file|cfg)?:?[^}]*\}%")
_SIGNATURE_FIELDS = re.compile(r"signature\.(.+)\.(algorithm|domain|selector|private-key)")


def query(resources: Iterable[Resource]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return prefixes and single keys that hold what is live of our kinds, in one request."""
    raw = {raw_key(item) for item in resources if isinstance(item, Setting) and place(item) is None}
    return _PREFIXES, tuple(sorted({PENDING, SIGN_RULE, "server.hostname", *raw}))


class Reading:
    """Settings of one server, compared with the resources that are wanted."""

    def __init__(self, stored: Keys, wanted: Sequence[Resource]) -> None:
        """Leave out what is stored and not in force: to us it isn't there yet."""
        waiting = frozenset(pending(stored))
        self.keys = {key: value for key, value in stored.items() if key not in waiting}
        self._leaving = waiting - stored.keys()  # removed, and in force until a reload
        self._wanted = wanted

    def live(self, reveal: Reveal, report: Report) -> Iterator[Live]:
        """Yield signatures, listeners and allowed addresses as far as there are any, and the wanted words."""
        signatures = list(self._signatures(report))
        yield from signatures
        self._unusable(signatures, reveal, report)
        for setting in self._of(Setting):
            if place(setting) is not None:
                continue  # while the generation is not known, what only 0.16 has is asked for, too
            yield Live(self._setting(setting, reveal, report), id=raw_key(setting))
        yield from self._allowed()
        yield from self._listeners()
        self._shadow(report)

    def _of(self, kind: type[Any]) -> list[Any]:
        return [item for item in self._wanted if isinstance(item, kind)]

    # --------------------------------------------------------------------------------------------- signatures
    def _signatures(self, report: Report) -> Iterator[Live]:
        custom = any(key == SIGN_RULE or key.startswith(f"{SIGN_RULE}.") for key in self.keys)
        if custom and self._of(Signature):
            summary = "auth.dkim.sign is not the server's default, so which keys sign can't be told"
            hint = "`settings: {auth.dkim.sign: null}` puts the default back: the ids rsa-DOMAIN and ed25519-DOMAIN"
            report(Problem("dkim", summary, hint, Severity.WARNING))
        for name in sorted(_signature_ids(self.keys)):
            signature = self._signature(name, report, custom=custom)
            if signature is not None:
                yield Live(signature, id=name)
        yield from self._still_signing()

    def _unusable(self, live: Sequence[Live], reveal: Reveal, report: Report) -> None:
        """Tell of the keys to be written what stands in the way, before anything is written."""
        for signature in self._of(Signature):
            own = [item for item in live if item.resource.address == signature.address]
            if signature.public_key is UNKNOWN or any(not differences(signature, item.resource) for item in own):
                continue
            held = self.keys.get(f"{SIGNATURE}{own[0].id}.private-key") if own else None
            try:
                _pem(signature, held, reveal)
            except (ValueError, SecretUnreadable) as error:
                report(replace(unusable(signature.address, error), scope=signature.address))

    def _still_signing(self) -> Iterator[Live]:
        """Yield the keys whose removal was stored and never put in force: of them only the address is left."""
        wanted = {item.address for item in self._of(Signature)}
        for address in sorted(self._leaving - wanted):
            kind, _, rest = address.partition("/")
            if kind == Signature.kind:
                domain, _, selector = rest.partition("/")
                yield Live(Signature(domain, selector, "", UNMANAGED, UNMANAGED))

    def _signature(self, name: str, report: Report, *, custom: bool) -> Signature | None:
        values = {part: self.keys.get(f"{SIGNATURE}{name}.{part}", "") for part in ("domain", "selector", "algorithm")}
        algorithm = _ALGORITHMS.get(values["algorithm"])
        where = f"dkim/{values['domain']}/{values['selector']}"
        if algorithm is None or not values["domain"] or not values["selector"]:
            summary = f"the signature {name} on the server lacks its algorithm, domain or selector, which spoils others"
            report(Problem(where, summary, f"clear the settings below signature.{name}.", Severity.WARNING))
            return None
        signs: bool | Special = UNMANAGED if custom else name == signing_id(algorithm, values["domain"])
        public = self._public_half(name, algorithm, where, report)
        return Signature(values["domain"], values["selector"], algorithm, public, signs)

    def _public_half(self, name: str, algorithm: str, where: str, report: Report) -> str | Special:
        """Derive it from the private key; a key that can't be read is a problem, and is never shown."""
        pem = self.keys.get(f"{SIGNATURE}{name}.private-key", "")
        if _MACRO.fullmatch(pem.strip()):
            summary = f"the private key of {name} is a macro, which the server does not resolve in its database"
            report(Problem(where, summary, "give the key itself as private_key", Severity.WARNING))
            return UNMANAGED
        try:
            return dkim.public_half(algorithm, pem)
        except ValueError as error:
            report(Problem(where, f"the private key of {name} on the server {error}", "give it as private_key"))
            return ""

    # --------------------------------------------------------------------------------------------- words
    def _setting(self, wanted: Setting, reveal: Reveal, report: Report) -> Setting:
        stored = self.keys.get(raw_key(wanted))
        if stored is None and raw_key(wanted) in self._leaving:
            return Setting(wanted.word, "(in force until a reload)")
        if wanted.word in DEFAULT_RATES:
            return Setting(wanted.word, _rate(wanted, stored))
        if isinstance(wanted.value, SecretRef | SecretText):
            return Setting(wanted.word, _secret(wanted, wanted.value, stored, reveal, report))
        if stored is None:
            return Setting(wanted.word, None)
        same = wanted.value is not None and text_of(wanted.value) == stored
        if is_secret(raw_key(wanted)) and not same:
            return Setting(wanted.word, Different())  # never shown, whatever is wanted in its place
        return Setting(wanted.word, wanted.value if same else stored)

    def _shadow(self, report: Report) -> None:
        """`server.hostname`, where it is set, is used in place of the hostname that we keep (config/network.rs)."""
        shadow = self.keys.get("server.hostname")
        wanted = next((item.value for item in self._of(Setting) if item.word == "hostname"), None)
        if shadow and wanted not in (None, shadow):
            summary = f"server.hostname = {shadow!r} in config.toml is used in its place"
            hint = (
                "remove the line `server.hostname = ...` from config.toml and restart the container, or ask for "
                "DELETE /api/settings/server.hostname and then GET /api/reload"
            )
            report(Problem("stalwart/hostname", summary, hint))

    # --------------------------------------------------------------------------------------------- networks, listeners
    def _allowed(self) -> Iterator[Live]:
        wanted = {_network(item.network): item.network for item in self._of(AllowedIp)}
        for key in sorted(self.keys):
            if key.startswith(ALLOWED_IP):
                name = key.removeprefix(ALLOWED_IP)
                network = _network(name)
                yield Live(AllowedIp(wanted.get(network, network)), id=name)
        for key in sorted(self._leaving):
            if key.startswith(ALLOWED_IP) and _network(key.removeprefix(ALLOWED_IP)) not in wanted:
                yield Live(AllowedIp(key.removeprefix(ALLOWED_IP)), id=key.removeprefix(ALLOWED_IP))

    def _listeners(self) -> Iterator[Live]:
        names = {key.removeprefix(LISTENER).partition(".")[0] for key in self.keys if key.startswith(LISTENER)}
        wanted = {item.name: item for item in self._of(Listener)}
        for name in sorted(names):
            bind = tuple(self.keys[key] for key in binds(self.keys, name))
            twin = wanted.get(name)
            if twin is not None and sorted(twin.bind) == sorted(bind):
                bind = twin.bind  # their order means nothing
            base = f"{LISTENER}{name}."
            implicit = self.keys.get(f"{base}tls.implicit", "false").lower() in ("true", "1")
            yield Live(Listener(name, bind, self.keys.get(f"{base}protocol", ""), implicit, open=UNMANAGED), id=name)


def binds(stored: Keys, name: str) -> list[str]:
    """List the keys of a listener's addresses: ``bind``, or ``bind.0`` and so on."""
    pattern = re.compile(re.escape(f"{LISTENER}{name}.bind") + r"(\.\d+)?")
    return sorted(key for key in stored if pattern.fullmatch(key))


def signing_id(algorithm: str, domain: str) -> str:
    """Return the only id that signs for a domain by the server's default rule."""
    return f"{algorithm}-{domain}"


def pending(stored: Keys) -> tuple[str, ...]:
    """List the keys that are stored and not in force."""
    return tuple(item for item in stored.get(PENDING, "").split(",") if item)


def text_of(value: Any) -> str:
    """Return a value as the server stores it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _rate(wanted: Setting, stored: str | None) -> str | None:
    if stored is None:
        return None if wanted.value is None else DEFAULT_RATES[wanted.word]
    try:
        return ban_rate(stored)
    except ValueError:
        return stored


def _secret(wanted: Setting, secret: SecretRef | SecretText, stored: str | None, reveal: Reveal, report: Report) -> Any:
    try:
        value = reveal(secret)
    except SecretUnreadable as error:
        for problem in error.problems:
            report(Problem(wanted.address, f"{problem.where}: {problem.summary}", problem.hint, scope=wanted.address))
        return Unreadable("its secret can't be read")
    if stored is None:
        return None
    return Same(secret) if hmac.compare_digest(value.encode(), stored.encode()) else Different()


def _network(text: str) -> str:
    """Return a network in canonical form; the server keeps ``172.18.0.1/16`` as typed."""
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        return text


def _signature_ids(stored: Iterable[str]) -> set[str]:
    return {match[1] for key in stored if (match := _SIGNATURE_FIELDS.fullmatch(key))}


def signature_block(stored: Keys, name: str) -> dict[str, str]:
    """Return the keys of one signature. ``signature.rsa-mana.how.`` also begins the keys of ``rsa-mana.how.au``."""
    start = f"{SIGNATURE}{name}."
    longer = tuple(f"{SIGNATURE}{item}." for item in _signature_ids(stored) if item.startswith(f"{name}."))
    return {key: value for key, value in stored.items() if key.startswith(start) and not key.startswith(longer)}


def overridden(file: Keys, wanted: Iterable[Resource]) -> Iterator[tuple[Resource, str]]:
    """Yield what can't be as wanted, and the key: one of the database that stands in config.toml always wins."""
    own = [value for key, value in file.items() if key.startswith("config.local-keys.")]
    patterns = (*own, "config.local-keys.*") if own else LOCAL_KEYS
    for resource in wanted:
        for key in _keys_of(resource):
            if key in file and not in_config_file(key, patterns) and not _means(file[key], resource):
                yield resource, key


def _keys_of(resource: Resource) -> tuple[str, ...]:
    if isinstance(resource, Setting):
        return (raw_key(resource),)
    if isinstance(resource, Signature) and resource.signs:
        return (f"{SIGNATURE}{signing_id(resource.algorithm, resource.domain)}.private-key",)
    return ()


def _means(text: str, resource: Resource) -> bool:
    """Whether a value of the file is the wanted one all the same."""
    if isinstance(resource, Signature):
        try:
            return dkim.public_half(resource.algorithm, text) == resource.public_key
        except ValueError:
            return False
    return isinstance(resource, Setting) and text_of(resource.value) == text


# ---------------------------------------------------------------------------------------------------------- writing
@dataclass(frozen=True, slots=True)
class Edit:
    """What one change does to the keys: those of ``drop`` are removed, then ``put`` is written.

    Only whole keys are named: clearing a prefix, even one with a final dot, can take a neighbour along. ``make`` is a
    signature that the server makes itself: id, algorithm, domain, selector.
    """

    change: Change
    drop: tuple[str, ...] = ()
    put: Keys = field(default_factory=dict)
    make: tuple[str, str, str, str] | None = None

    @property
    def touched(self) -> frozenset[str]:
        """Everything that is not as before afterwards."""
        made = (f"{SIGNATURE}{self.make[0]}.{part}" for part in _SIGNATURE_PARTS) if self.make else ()
        return frozenset((*self.drop, *self.put, *made))

    @property
    def noted(self) -> tuple[str, ...]:
        """What is noted until it is in force: the keys, and the address of a key of which nothing else is left."""
        gone = (self.change.address,) if isinstance(self.change.resource, Signature) and self.change.deletes else ()
        return (*sorted(self.touched), *gone)

    @property
    def written(self) -> frozenset[str]:
        """Everything that is there afterwards because of it."""
        return self.touched - (set(self.drop) - self.put.keys())

    @property
    def local(self) -> bool:
        """Whether it is written to ``config.toml``."""
        return any(in_config_file(item) for item in self.touched)

    def operations(self) -> Iterator[dict[str, Any]]:
        """Yield it as the server takes it."""
        if self.drop:
            yield {"type": "delete", "keys": list(self.drop)}
        if self.put:
            yield insert(self.put)

    def undo(self, before: Keys) -> Edit:
        """Return the edit that puts back what was there before."""
        was = {key: before[key] for key in self.touched if key in before}
        return Edit(self.change, tuple(sorted(self.touched - was.keys())), was)

    def unlike(self, now: Keys, written: Collection[str]) -> list[str]:
        """List the keys that the server reads otherwise than this edit wants; ``written`` are those of all edits."""
        made = self.touched - self.put.keys() - set(self.drop)
        kept = [key for key in self.drop if key in now and key not in written and not self._makes(key)]
        missing = [key for key in made if key.endswith(".private-key") and key not in now]
        return [*kept, *missing, *(key for key, value in self.put.items() if now.get(key) != value)]

    def _makes(self, key: str) -> bool:
        return self.make is not None and key.startswith(f"{SIGNATURE}{self.make[0]}.")


def insert(values: Keys) -> dict[str, Any]:
    """Return the operation that writes keys. ``assert_empty`` is mandatory, and values are texts."""
    return {"type": "insert", "prefix": None, "values": [list(item) for item in values.items()], "assert_empty": False}


def unusable(address: str, error: ValueError | SecretUnreadable) -> Problem:
    """Put into a problem of this address why a value can't be written."""
    if isinstance(error, SecretUnreadable):
        problem = error.problems[0]
        return replace(problem, summary=f"{problem.where}: {problem.summary}", where=address)
    return Problem(address, str(error), "correct it and run apply again")


def edit(change: Change, before: Keys, reveal: Reveal, leaving: frozenset[str] = frozenset()) -> Edit:
    """Turn a change of settings or signatures into an edit of keys.

    ``before`` is what is stored, ``leaving`` the signature ids that changes of the same run move or remove. Raises
    ValueError when it can't be done, `SecretUnreadable` when a secret can't be read.
    """
    match change.resource:
        case Signature():
            return _edit_signature(change, before, reveal, leaving)
        case Listener() as listener:
            return _edit_listener(change, listener, before)
        case AllowedIp() as allowed:
            name = change.before.id if change.before else _bare(allowed.network)
            key = f"{ALLOWED_IP}{name}"
            return Edit(change, drop=(key,)) if change.after is None else Edit(change, put={key: ""})
        case Setting() as setting:
            return _edit_setting(change, setting, reveal)
    raise AssertionError(change.address)


def _bare(network: str) -> str:
    return network.removesuffix("/32") if ":" not in network else network.removesuffix("/128")


def _edit_setting(change: Change, setting: Setting, reveal: Reveal) -> Edit:
    key = raw_key(setting)
    value = setting.value
    if change.after is None or value is None:
        return Edit(change, drop=(key,))
    if isinstance(value, SecretRef | SecretText):
        return Edit(change, put={key: reveal(value)})
    if setting.word in DEFAULT_RATES and ban_rate(value) == "off":
        return Edit(change, put={key: "false"})
    return Edit(change, put={key: text_of(value)})


def _edit_listener(change: Change, listener: Listener, before: Keys) -> Edit:
    base = f"{LISTENER}{listener.name}."
    if change.after is None:
        return Edit(change, drop=tuple(key for key in before if key.startswith(base)))
    single = len(listener.bind) == 1
    put = {f"{base}bind" if single else f"{base}bind.{index}": bind for index, bind in enumerate(listener.bind)}
    put[f"{base}protocol"] = listener.protocol
    if listener.tls_implicit or f"{base}tls.implicit" in before:
        put[f"{base}tls.implicit"] = text_of(listener.tls_implicit)
    return Edit(change, tuple(key for key in binds(before, listener.name) if key not in put), put)


def _edit_signature(change: Change, before: Keys, reveal: Reveal, leaving: frozenset[str]) -> Edit:
    old = change.before.id if change.before else None
    if not isinstance(change.after, Signature):
        return Edit(change, drop=tuple(_blocks_of(change.resource, before)))
    signature = change.after
    name = _id_of(signature, old)
    drop = tuple(dict.fromkeys(key for item in (name, old) if item for key in signature_block(before, item)))
    put = {} if name == old or name in leaving else _moved_aside(name, before, signature.selector)
    pem = _pem(signature, before.get(f"{SIGNATURE}{old}.private-key") if old else None, reveal)
    if pem is None:
        return Edit(change, drop, put, (name, signature.algorithm, signature.domain, signature.selector))
    return Edit(change, drop, put | _signature_keys(name, signature, pem))


def _blocks_of(resource: Resource, before: Keys) -> Iterator[str]:
    """Yield the keys of every signature that is this one. Its id may belong to the key that took over by now."""
    for name in sorted(_signature_ids(before)):
        block = signature_block(before, name)
        selector, domain = (block.get(f"{SIGNATURE}{name}.{part}") for part in ("selector", "domain"))
        if isinstance(resource, Signature) and (domain, selector) == (resource.domain, resource.selector):
            yield from block


def _id_of(signature: Signature, old: str | None) -> str:
    """Return the id to store a signature under: only rsa-DOMAIN and ed25519-DOMAIN sign."""
    signing = signing_id(signature.algorithm, signature.domain)
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
    block = signature_block(before, name)
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


def _signature_keys(name: str, signature: Signature, pem: str) -> dict[str, str]:
    """Return every key the server writes itself: one without its algorithm would spoil its neighbour."""
    values = {
        "algorithm": f"{signature.algorithm}-sha256",
        "domain": signature.domain,
        "private-key": pem,
        "selector": signature.selector,
        **USUAL_OPTIONS,
    }
    return {f"{SIGNATURE}{name}.{part}": values[part] for part in _SIGNATURE_PARTS}
