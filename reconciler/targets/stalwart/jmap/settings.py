"""The neutral words, allowed addresses and listeners of Stalwart from 0.16, and the server's own objects. Pure.

What is stored is in force after a reload, a listener after a restart: `effects` says which, and the end of a phase
does it once.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from reconciler.desired import objects
from reconciler.desired.stalwart import DEFAULT_RATES, ban_rate
from reconciler.plan import Change
from reconciler.problem import Problem
from reconciler.reconcile import Report, Reveal
from reconciler.resources import UNMANAGED, AllowedIp, Domain, Listener, Live, Resource, Setting, Signature
from reconciler.targets.stalwart.jmap import objects as jmap_objects
from reconciler.targets.stalwart.jmap.api import Kind, Registry
from reconciler.targets.stalwart.jmap.objects import NOT_SHOWN, Ids, Judge
from reconciler.targets.stalwart.jmap.writes import Unwritable, Write

_SINGLETON = objects.SINGLETON
_NAMES = {"hostname": "defaultHostname", "default_domain": "defaultDomainId"}  # of x:SystemSettings
_RATES = {f"auto_ban/{word}": f"{word}BanRate" for word in ("auth", "abuse", "loiter", "scan")}  # of x:Security
WORDED = frozenset(
    {*(("SystemSettings", name) for name in _NAMES.values()), *(("Security", it) for it in _RATES.values())}
)
"""The properties of the server's objects that have words of their own."""
_PROTOCOLS = {"manageSieve": "managesieve"}  # the only one that JMAP spells otherwise than our word
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LISTENER = ("name", "bind", "protocol", "tlsImplicit", "useTls")
_REASON = "declared in the desired state"  # what an administrator reads beside an allowed address


class Effect(enum.Enum):
    """What puts a change in force."""

    RELOAD = "ReloadSettings"
    CACHES = "InvalidateCaches"
    RESTART = "restart"


def effects(change: Change) -> frozenset[Effect]:
    """Say what is to be done at the end of a phase for a stored change to be in force."""
    resource = change.resource
    if isinstance(resource, Listener) or (isinstance(resource, Setting) and objects.needs_restart(resource)):
        return frozenset({Effect.RESTART})
    if isinstance(resource, Setting | AllowedIp):
        return frozenset({Effect.RELOAD})
    if isinstance(resource, Signature):  # a warm signer cache never sees a new key (traps.md 27)
        return frozenset({Effect.CACHES})
    return frozenset()


# ------------------------------------------------------------------------------------------------------------- reading
def kinds(wanted: Iterable[Resource]) -> tuple[Kind, ...]:
    """Name what has to be read for these resources, beside the domains; a kind stands once."""
    wanted = tuple(wanted)
    words = {item.word for item in wanted if isinstance(item, Setting)}
    found = [Kind("AllowedIp", properties=("address",)), Kind("NetworkListener", properties=_LISTENER)]
    if words & _NAMES.keys():
        found.append(Kind("SystemSettings", singleton=True, properties=tuple(_NAMES.values())))
    if rates := sorted(_RATES[word] for word in words & _RATES.keys()):
        found.append(Kind("Security", singleton=True, properties=tuple(rates)))
    found += jmap_objects.kinds(item for item in wanted if isinstance(item, Setting))
    merged: dict[str, Kind] = {}
    for kind in found:
        other = merged.get(kind.name, kind)
        merged[kind.name] = replace(kind, properties=tuple(dict.fromkeys((*other.properties, *kind.properties))))
    return tuple(merged.values())


def live(
    registry: Registry, wanted: Sequence[Resource], report: Report, judge: Judge = lambda *_: NOT_SHOWN
) -> Iterator[Live]:
    """Yield allowed addresses and listeners as far as there are any, and what is live of the wanted settings.

    Whether a listener answers is not known here. ``judge`` says what is known of a declared secret.
    """
    settings = [item for item in wanted if isinstance(item, Setting)]
    for setting in settings:
        if setting.word in _NAMES:
            yield from _named(setting, registry, wanted, report)
        elif setting.word in _RATES:
            stored = _singleton(registry, "Security").get(_RATES[setting.word])
            yield Live(Setting(setting.word, _rate(setting, stored)), id=_SINGLETON)
    yield from jmap_objects.Reading(registry).live(settings, report, judge)
    yield from _allowed(registry)
    yield from _listeners(registry, [item for item in wanted if isinstance(item, Listener)])


def _singleton(registry: Registry, name: str) -> Mapping[str, Any]:
    return next(iter(registry.get(name, ())), {})


def _names(registry: Registry) -> dict[str, str | None]:
    """Return hostname and default domain as they are stored, the domain by name; None of those never written."""
    stored = _singleton(registry, "SystemSettings")
    domains = {item["id"]: str(item["name"]) for item in registry.get("Domain", ())}
    return {
        "hostname": stored.get("defaultHostname") or None,
        "default_domain": domains.get(stored.get("defaultDomainId")),
    }


def _named(setting: Setting, registry: Registry, wanted: Sequence[Resource], report: Report) -> Iterator[Live]:
    """Yield hostname or default domain; with them goes what the first write needs besides (traps.md 24)."""
    have = _names(registry)
    if setting.value is None and have[setting.word] is not None:
        summary = "can't be cleared: from 0.16 a server always has one"
        report(Problem(setting.address, summary, "write a value, or take the line away", scope=setting.address))
    words = {item.word: item.value for item in wanted if isinstance(item, Setting)}
    domains = sorted(item.name for item in wanted if isinstance(item, Domain))
    value = have[setting.word]
    same = str(value).lower() == str(setting.value).lower()  # host names have no case
    yield Live(
        Setting(setting.word, setting.value if same else value),
        id=_SINGLETON,
        detail=words.get("default_domain") or next(iter(domains), None),
    )


def _rate(wanted: Setting, stored: Any) -> str | None:
    """Return a ban rate as the directory has it: ``off``, ``30/1d``, or None for the server's default."""
    live_rate = _rate_text(stored)
    want = DEFAULT_RATES[wanted.word] if wanted.value is None else ban_rate(wanted.value)
    same = _rate_body(want) == _rate_body(live_rate)
    value: str | None = wanted.value
    return value if same else live_rate


def _rate_text(stored: Any) -> str:
    if not isinstance(stored, Mapping):
        return "off"
    period = int(stored.get("period") or 0)
    unit = next(unit for unit, size in sorted(_UNITS.items(), key=lambda it: -it[1]) if period % size == 0)
    return f"{stored.get('count')}/{period // _UNITS[unit]}{unit}"


def _rate_body(rate: str) -> dict[str, int] | None:
    """Return a rate as the server takes it: null is off, and a count of 0 is refused (observed.md, 0.16.18)."""
    if rate == "off":
        return None
    count, _, period = rate.partition("/")
    digits = period.rstrip("mshd")
    return {"count": int(count), "period": int(digits) * _UNITS[period.removeprefix(digits)]}


def _allowed(registry: Registry) -> Iterator[Live]:
    """Yield the allowed addresses; the server keeps them as typed (``172.18.0.1/16``)."""
    for item in registry.get("AllowedIp", ()):
        try:
            yield Live(AllowedIp(str(item.get("address"))), id=str(item["id"]))
        except ValueError:
            continue  # none that a directory could declare


def _listeners(registry: Registry, wanted: Sequence[Listener]) -> Iterator[Live]:
    twins = {item.name: item for item in wanted}
    for item in registry.get("NetworkListener", ()):
        name, bind = str(item.get("name")), tuple(item.get("bind") or ())
        twin = twins.get(name)
        if twin is not None and {*map(_socket, twin.bind)} == {*map(_socket, bind)}:
            bind = twin.bind  # [0::0]:587 is [::]:587
        protocol = str(item.get("protocol"))
        implicit = bool(item.get("tlsImplicit")) and item.get("useTls", True) is not False
        yield Live(
            Listener(name, bind, _PROTOCOLS.get(protocol, protocol), implicit, open=UNMANAGED), id=str(item["id"])
        )


def _socket(bind: str) -> str:
    host, _, port = bind.rpartition(":")
    try:
        return f"{ipaddress.ip_address(host.strip('[]'))} {port}"
    except ValueError:
        return bind


# ------------------------------------------------------------------------------------------------------------- writing
def writes(changes: Sequence[Change], registry: Registry, ids: Ids, reveal: Reveal) -> Iterator[Write | Unwritable]:
    """Turn changes of settings, allowed addresses and listeners into writes, one for each object.

    ``registry`` is what `kinds` had read. A restart that is due writes nothing.
    """
    named, raw = [], []
    for change in changes:
        resource = change.resource
        if isinstance(resource, AllowedIp):
            yield from filter(None, (_allowed_write(change, resource),))
        elif isinstance(resource, Listener):
            yield from () if change.restarts else (_listener_write(change, resource),)
        elif isinstance(resource, Setting) and resource.word in _NAMES:
            named.append(change)
        elif isinstance(resource, Setting) and resource.word in _RATES:
            wanted = resource.value if resource.value is not None else DEFAULT_RATES[resource.word]
            made = {_RATES[resource.word]: _rate_body(ban_rate(wanted))}
            yield Write("Security", "update", _SINGLETON, made, (change,))
        elif isinstance(resource, Setting) and objects.place(resource) is not None:
            raw.append(change)
    yield from _named_write(named, registry, ids) if named else ()
    yield from jmap_objects.writes(raw, registry, ids, reveal)


def _allowed_write(change: Change, allowed: AllowedIp) -> Write | None:
    known = change.before.id if change.before else ""
    if change.after is None:
        return Write("AllowedIp", "destroy", known, changes=(change,)) if known else None
    if known:
        return None  # it is there, and only to be put in force
    address = jmap_objects.bare(allowed.network)
    creation = "ip-" + "".join(char if char.isalnum() else "-" for char in address)
    return Write("AllowedIp", "create", creation, {"address": address, "reason": _REASON}, (change,))


def _listener_write(change: Change, listener: Listener) -> Write:
    known = change.before.id if change.before else ""
    if change.after is None:
        return Write("NetworkListener", "destroy", known, changes=(change,))
    spelled = {ours: theirs for theirs, ours in _PROTOCOLS.items()}
    made: dict[str, Any] = {
        "bind": dict.fromkeys(listener.bind, True),
        "protocol": spelled.get(listener.protocol, listener.protocol),
        "tlsImplicit": listener.tls_implicit,
    }
    made |= {"useTls": True} if listener.tls_implicit else {}
    if known:
        return Write("NetworkListener", "update", known, made, (change,))
    creation = "listener-" + "".join(char if char.isalnum() else "-" for char in listener.name)
    return Write("NetworkListener", "create", creation, {"name": listener.name, **made}, (change,))


def _named_write(changes: Sequence[Change], registry: Registry, ids: Ids) -> Iterator[Write | Unwritable]:
    """Write hostname and default domain together while either was never written: the server takes no one alone."""
    have = _names(registry)
    want = {item.resource.word: item.resource.value for item in changes if isinstance(item.resource, Setting)}
    fallback = next((item.before.detail for item in changes if item.before), None)
    domain: str | None = want.get("default_domain") or have["default_domain"] or fallback
    hostname: str | None = want.get("hostname") or have["hostname"]
    try:
        found = ids.domain(domain) if domain else None
    except ValueError:
        found = None
    if not hostname or found is None:
        yield from (Unwritable(change, _incomplete(change, hostname, domain)) for change in changes)
        return
    whole = have["hostname"] is None or have["default_domain"] is None
    made = {"defaultHostname": hostname} if whole or "hostname" in want else {}
    made |= {"defaultDomainId": found} if whole or "default_domain" in want else {}
    yield Write("SystemSettings", "update", _SINGLETON, made, tuple(changes))


def _incomplete(change: Change, hostname: str | None, domain: str | None) -> Problem:
    if hostname and domain:
        return Problem(change.address, f"refers to the domain {domain}, which is not there", "run apply again")
    missing = "stalwart.hostname" if not hostname else "stalwart.default_domain"
    summary = "the server takes hostname and default domain only together, and has neither"
    return Problem(change.address, summary, f"declare {missing}, too")
