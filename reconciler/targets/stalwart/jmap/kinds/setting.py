"""The neutral words of Stalwart from 0.16: hostname, default domain, the rates of bans, and whom it never bans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from reconciler.desired.objects import SINGLETON
from reconciler.desired.raw_keys import DEFAULT_RATES, ban_rate
from reconciler.problem import Problem
from reconciler.resources import AllowedIp, Domain, Live, Resource, Setting
from reconciler.target import Change
from reconciler.targets.stalwart.jmap.api import Selection
from reconciler.targets.stalwart.jmap.batch import Unwritable, Write, bare
from reconciler.targets.stalwart.jmap.kind import Effect, Reading, ResourceKind, creation_of
from reconciler.targets.stalwart.survey import Omissions, fit

_NAMES = {"hostname": "defaultHostname", "default_domain": "defaultDomainId"}  # of x:SystemSettings
_RATES = {f"auto_ban/{word}": f"{word}BanRate" for word in ("auth", "abuse", "loiter", "scan")}  # of x:Security
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

WORDED = frozenset(
    {*(("SystemSettings", name) for name in _NAMES.values()), *(("Security", it) for it in _RATES.values())}
)
"""The properties of the server's objects that have words of their own."""

WORDS = (Setting("hostname", ""), Setting("default_domain", ""), *(Setting(it, None) for it in DEFAULT_RATES))
"""All neutral words, as an import asks for them."""


def default_domain(wanted: Iterable[Resource]) -> str:
    """Return the declared default domain, which is the one of bare names before it is in force; empty without one."""
    declared = (item.value for item in wanted if isinstance(item, Setting) and item.word == "default_domain")
    return next(declared, None) or ""


class SettingKind(ResourceKind):
    """Neutral words, each a property of a singleton."""

    resource = Setting
    in_force_by = Effect.RELOAD

    def has(self, resource: Resource) -> bool:
        """Whether it is a word, and no property of an object by the server's own name."""
        return isinstance(resource, Setting) and resource.word in {**_NAMES, **_RATES}

    def reads(self, wanted: Sequence[Resource]) -> Iterator[Selection]:
        """Name the properties of the wanted words."""
        words = {item.word for item in wanted if isinstance(item, Setting)}
        if words & _NAMES.keys():
            yield Selection("SystemSettings", singleton=True, properties=tuple(_NAMES.values()))
            yield Selection("Domain", properties=("name",))
        if rates := sorted(_RATES[word] for word in words & _RATES.keys()):
            yield Selection("Security", singleton=True, properties=tuple(rates))

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield what is live of the wanted words."""
        for setting in reading.of(Setting):
            if setting.word in _NAMES:
                yield _named(setting, reading)
            elif setting.word in _RATES:
                stored = reading.singleton("Security").get(_RATES[setting.word])
                yield Live(Setting(setting.word, _rate(setting, stored)), id=SINGLETON)

    def writes(self, changes: Sequence[Change], reading: Reading) -> Iterator[Write | Unwritable]:
        """Yield one write for the names, and one for each rate; they are merged."""
        named = []
        for change in changes:
            setting = change.resource
            if not isinstance(setting, Setting):
                continue
            if setting.word in _NAMES:
                named.append(change)
            else:
                wanted = setting.value if setting.value is not None else DEFAULT_RATES[setting.word]
                body = {_RATES[setting.word]: _rate_body(ban_rate(wanted))}
                yield Write("Security", "update", SINGLETON, body, (change,))
        yield from _named_write(named, reading) if named else ()

    def is_same(self, before: Live, now: Live | None) -> bool:
        """A singleton is always there."""
        del before, now
        return True

    def survey(self, reading: Reading, live: Sequence[Live], out: Omissions) -> Iterator[Live]:
        """Take the words that are not as a fresh server has them."""
        del reading
        return (item for item in fit(live, "jmap", out) if getattr(item.resource, "value", None))


def _names(reading: Reading) -> dict[str, str | None]:
    """Return hostname and default domain as they are stored, the domain by name; None of those never written."""
    stored = reading.singleton("SystemSettings")
    domains = {item["id"]: str(item["name"]) for item in reading.items("Domain")}
    return {
        "hostname": stored.get("defaultHostname") or None,
        "default_domain": domains.get(stored.get("defaultDomainId")),
    }


def _named(setting: Setting, reading: Reading) -> Live:
    """Return hostname or default domain; with them goes what the first write needs besides (traps.md 24)."""
    value = _names(reading)[setting.word]
    if setting.value is None and value is not None:
        summary = "can't be cleared: from 0.16 a server always has one"
        hint = "write a value, or take the line away"
        reading.report(Problem(setting.address, summary, hint, scope=setting.address))
    if setting.value and (missing := _alone(setting, reading)):
        reading.report(replace(missing, scope=setting.address))
    domains = sorted(item.name for item in reading.of(Domain))
    same = str(value).lower() == str(setting.value).lower()  # host names have no case
    return Live(
        Setting(setting.word, setting.value if same else value),
        id=SINGLETON,
        detail=default_domain(reading.wanted) or next(iter(domains), None),
    )


def _alone(setting: Setting, reading: Reading) -> Problem | None:
    """Say what is missing beside a name on a server that has neither; None where nothing is."""
    have = _names(reading)
    have |= {it.word: it.value for it in reading.of(Setting) if it.word in have and it.value}
    domain = have["default_domain"] or next((item.name for item in reading.of(Domain)), None)
    if have["hostname"] and domain:
        return None
    return _incomplete(setting.address, have["hostname"], domain)


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


def _named_write(changes: Sequence[Change], reading: Reading) -> Iterator[Write | Unwritable]:
    """Write hostname and default domain together while either was never written: the server takes no one alone."""
    have = _names(reading)
    want = {item.resource.word: item.resource.value for item in changes if isinstance(item.resource, Setting)}
    fallback = next((item.before.detail for item in changes if item.before), None)
    domain: str | None = want.get("default_domain") or have["default_domain"] or fallback
    hostname: str | None = want.get("hostname") or have["hostname"]
    found = reading.ids.domain(domain) if domain else None
    if not hostname or found is None:
        yield from (Unwritable(change, _incomplete(change.address, hostname, domain)) for change in changes)
        return
    whole = have["hostname"] is None or have["default_domain"] is None
    made = {"defaultHostname": hostname} if whole or "hostname" in want else {}
    made |= {"defaultDomainId": found} if whole or "default_domain" in want else {}
    yield Write("SystemSettings", "update", SINGLETON, made, tuple(changes))


def _incomplete(address: str, hostname: str | None, domain: str | None) -> Problem:
    if hostname and domain:
        return Problem(address, f"refers to the domain {domain}, which is not there", "run apply again")
    missing = "stalwart.hostname" if not hostname else "stalwart.default_domain"
    summary = "the server takes hostname and default domain only together, and has neither"
    return Problem(address, summary, f"declare {missing}, too")


# ---------------------------------------------------------------------------------------------------- allowed addresses
_ADDRESSES = "stalwart/allowed_ips/"
_REASON = "declared in the desired state"  # what an administrator reads beside it


class AllowedIpKind(ResourceKind):
    """Allowed networks. The server can't change one, and keeps it as it was typed (``172.18.0.1/16``)."""

    resource = AllowedIp
    objects = (Selection("AllowedIp", properties=("address",)),)
    in_force_by = Effect.RELOAD

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield all of them."""
        for item in reading.items("AllowedIp"):
            try:
                yield Live(AllowedIp(str(item.get("address"))), id=str(item["id"]))
            except ValueError:
                continue  # none that a directory could declare

    def writes(self, changes: Sequence[Change], reading: Reading) -> Iterator[Write]:
        """Create or destroy; one that is there is only to be put in force."""
        del reading
        for change in changes:
            known, resource = change.before.id if change.before else "", change.resource
            if change.deletes and known:
                yield Write("AllowedIp", "destroy", known, changes=(change,))
            elif not change.deletes and not known and isinstance(resource, AllowedIp):
                address = bare(resource.network)
                body = {"address": address, "reason": _REASON}
                yield Write("AllowedIp", "create", creation_of("AllowedIp", address), body, (change,))


def still_allowed(addresses: Iterable[str], live: Sequence[Live]) -> Iterator[Live]:
    """Yield the networks among addresses not in force that are not stored any more: the server still allows them."""
    there = {item.resource.address for item in live}
    for address in sorted(set(addresses) - there):
        if address.startswith(_ADDRESSES):
            yield Live(AllowedIp(address.removeprefix(_ADDRESSES), in_force=False))
