"""The records of SMTP providers that are in use or stand by: what the YAML says, and what their APIs ask for. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.desired.presets import PRESETS, Need
from reconciler.desired.spec.smtp import Provider
from reconciler.dns.records import excludes, policy
from reconciler.dns.text import DKIM
from reconciler.problem import Problem, Severity
from reconciler.resources import Observation, Record


@dataclass(frozen=True, slots=True)
class ProviderAnswer:
    """What a provider's API says of a mail domain: the records that DNS has to show, and what is wrong.

    Where it is not ``complete``, what DNS already shows for this provider stays as it is.
    """

    records: tuple[Record, ...] = ()
    problems: tuple[Problem, ...] = ()
    complete: bool = True


@dataclass(frozen=True, slots=True)
class PublishedProvider:
    """A provider whose records should be there, and those that the YAML gives it."""

    name: str
    provider: Provider
    own: tuple[Record, ...]

    @property
    def needs(self) -> tuple[Need, ...]:
        """The kinds of records without which its mail fails DMARC; a preset's host is known without its name."""
        named = PRESETS.get(self.provider.preset or "")
        preset = named or next((item for item in PRESETS.values() if item.host == self.provider.host), None)
        return preset.needs if preset else ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the records of providers stand beside.

    ``domains`` maps each mail domain to its declared zone, ``declared`` are the records under ``dns``, ``selectors``
    the full names of declared DKIM keys, ``seen`` is what was observed at Cloudflare, once it was.
    """

    stack: str
    domains: Mapping[str, str]
    declared: Sequence[Record]
    selectors: Collection[str]
    seen: Observation | None = None


@dataclass(slots=True)
class Provided:
    """``needed`` are each provider's records, none where they are not known; ``records`` those to be published."""

    needed: dict[str, tuple[Record, ...]] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def provide(
    providers: Iterable[PublishedProvider], around: Surroundings, said: Mapping[tuple[str, str], ProviderAnswer] | None
) -> Provided:
    """Put together what the YAML says and what APIs ask for. The YAML wins where both name one place.

    ``said`` maps a provider's name and a mail domain to what its API said; None where none was asked.
    """
    made = Provided()
    asked, stay = list[tuple[str, Record]](), list[Record]()
    for item in providers:
        answers = list(_answers(item, around, said))
        told = [record for _, answer in answers for record in answer.records]
        still = [it for domain, answer in answers if not answer.complete for it in _standing(item, around, domain)]
        if item.own or item.needs:
            made.needed[item.name] = tuple(dict.fromkeys((*item.own, *told, *still)))
        made.records += item.own
        made.problems += (problem for _, answer in answers for problem in answer.problems)
        made.problems += _without_policy(item, around)
        made.problems += _unknown(item, around)
        asked += ((item.name, record) for record in told)
        stay += still
    _publish(made, around, asked, stay)
    return made


def _unknown(item: PublishedProvider, around: Surroundings) -> Iterator[Problem]:
    """Warn of a provider that stands by without the records that make its mail pass."""
    if around.seen is not None and item.provider.standby and item.needs and not item.own and not item.provider.api_key:
        hint = "give it its `api_key`, or the records it asks for as its `dns`"
        summary = "stands by, and the records that DMARC needs are not known: its mail would fail"
        yield Problem(f"smtp.providers.{item.name}", summary, hint, Severity.WARNING)


def _answers(
    item: PublishedProvider, around: Surroundings, said: Mapping[tuple[str, str], ProviderAnswer] | None
) -> Iterator[tuple[str, ProviderAnswer]]:
    if said is not None and item.provider.api_key is not None:
        yield from ((domain, said[item.name, domain]) for domain in around.domains)
    elif item.needs and not item.own:  # nothing says what it needs, so what it was given stays
        yield from ((domain, ProviderAnswer(complete=False)) for domain in around.domains)


def _standing(item: PublishedProvider, around: Surroundings, domain: str) -> Iterator[Record]:
    """Yield our records that a provider may have asked for earlier: while it can't be asked, they stay."""
    for live in around.seen.live if around.seen else ():
        record = live.resource
        if not isinstance(record, Record) or live.owner != around.stack or record.host in around.selectors:
            continue
        if any(need.fits(record, domain) for need in item.needs):
            yield record


def _publish(made: Provided, around: Surroundings, asked: Sequence[tuple[str, Record]], stay: Sequence[Record]) -> None:
    """Add what is asked for, once, and where nothing that is declared stands in its way."""
    places = {(record.zone, record.name) for record in (*(record for _, record in asked), *stay)}
    there = [it for it in (*around.declared, *made.records) if (it.zone, it.name) in places] if places else []
    for name, record in asked:
        rival = next((it.address for it in there if _excludes(it, record)), "")
        if record.host in around.selectors:
            rival = f"the DKIM key {record.host}"
        if rival:
            summary = f"asks for {record.type} {record.host} → {record.content}, and the directory has {rival} there"
            hint = "remove or rename what is declared, or take api_key away"
            made.problems.append(Problem(f"smtp.providers.{name}", summary, hint))
        elif not any(_is(it, record) for it in there):
            there.append(record)
            made.records.append(record)
    for record in stay:
        if not any(_excludes(it, record) or _is(it, record) for it in there):
            there.append(record)
            made.records.append(record)


def _is(record: Record, other: Record) -> bool:
    """Whether two records say the same, whatever their TTL and comment."""
    facts = ((it.zone, it.type, it.name, it.content, it.priority, it.data) for it in (record, other))
    return next(facts) == next(facts)


def _excludes(record: Record, other: Record) -> bool:
    """Whether another record can't stand beside this one: an alias allows none, and a DKIM key no second one."""
    if (record.zone, record.name) != (other.zone, other.name) or _is(record, other):
        return False
    return excludes(record, other) or excludes(other, record) or policy(record) is policy(other) is DKIM


def _without_policy(item: PublishedProvider, around: Surroundings) -> Iterator[Problem]:
    """Warn of domains without a DMARC record, which providers demand; it is the user's own, so none is made."""
    if not item.needs or around.seen is None or not around.seen.complete:
        return
    records = (*around.declared, *item.own, *(live.resource for live in around.seen.live))
    policies = {it.host for it in records if isinstance(it, Record) and it.type == "TXT" and it.name[:6] == "_dmarc"}
    for domain, zone in around.domains.items():
        if not policies & {f"_dmarc.{domain}", f"_dmarc.{zone}"}:  # RFC 7489 section 6.6.3: or that of the parent
            hint = 'declare it under dns: {type: TXT, name: _dmarc, content: "v=DMARC1; p=none; rua=mailto:..."}'
            summary = f"{domain} has no DMARC record, which this provider demands"
            yield Problem(f"smtp.providers.{item.name}", summary, hint, Severity.WARNING)
