"""What no single entry can tell: pure checks of a whole `Spec`, each a small function that yields findings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network

from reconciler.address import Address
from reconciler.desired import public_ip, template, words
from reconciler.desired.apps import APPS
from reconciler.desired.presets import PRESETS
from reconciler.desired.spec import Spec, references
from reconciler.desired.spec.dns import RecordEntry
from reconciler.desired.spec.mail import ADDRESSES, AccountEntry
from reconciler.desired.spec.smtp import Consumer, Provider
from reconciler.desired.yaml import Finding, Path
from reconciler.dns.policies import lint
from reconciler.dns.records import (
    COMMENT_LIMIT,
    TEXTS_LIMIT,
    Hosts,
    InvalidRecord,
    alone,
    check_data,
    excludes,
    is_delegated,
    leads_nowhere,
    mail_host,
    marked,
    policy,
    record,
    unasked,
    undelegated,
    unreached,
)
from reconciler.dns.text import MailPolicy
from reconciler.dns.types import TYPES
from reconciler.names import domain_name, key_name, mailbox, meant
from reconciler.resources import Group, Record


@dataclass(frozen=True, slots=True)
class Declared:
    """The names the files declare, those of entries among them that are wrong in themselves.

    ``mail`` are those of the mail server's kinds, by the maps they stand in.
    """

    mail: Mapping[str, Collection[str]]
    providers: Collection[str]


def contradictions(spec: Spec, declared: Declared) -> Iterator[Finding]:
    """Yield everything that does not fit together."""
    yield from _logins(spec)
    yield from _addresses_once(spec)
    yield from _conflicts(spec)
    yield from _accounts(spec, declared)
    yield from _providers(spec, declared)
    yield from _presets(spec)
    yield from _failover(spec, declared)
    yield from _words(spec)
    yield from _variables(spec)
    yield from _signatures(spec)
    yield from _records(spec)
    yield from _zones(spec)
    yield from _networks(spec)
    yield from _domains_declared(spec, declared)
    yield from _domain_aliases(spec, declared)
    yield from _lifecycle(spec, declared)


def doubts(spec: Spec) -> Iterator[Finding]:
    """Yield what is valid and most likely a slip.

    That is a text that receivers can't read as it is meant, a zone of no mail domain beside one that has no zone, a
    list's member that nobody is, and an application that can't do what is declared.
    """
    made = [(path, written, _record(zone, written)) for path, zone, written in _written(spec)]
    yield from _texts(made)
    yield from _targets(made)
    yield from _sets(made)
    declared = Declared({**spec.addressees, "domains": spec.domains}, spec.smtp.providers)
    zones = {domain_name(zone): zone for zone in spec.dns}
    homes = set(map(domain_name, {domain for domain, _ in _domains(spec, declared)}))
    bare = [name for name in homes if not any(_within(name, zone) for zone in zones)]
    homes |= {domain_name(spec.stalwart.hostname)} if spec.stalwart.hostname else set()
    for name, zone in zones.items():
        if not any(_within(home, name) for home in homes) and (hint := near(name, bare, cutoff=_SLIP)):
            yield Finding(("dns", zone), "is the zone of no mail domain that is declared", hint)
    yield from _nobodies(spec, homes)
    yield from _incapable(spec)


def _nobodies(spec: Spec, homes: Collection[str]) -> Iterator[Finding]:
    """Yield members of lists in domains that are kept here, whose address nothing that is declared has."""
    known = {mailbox(address): address for _, address in _addresses(spec)}
    caught = {domain_name(name) for name, entry in spec.domains.items() if entry.catch_all is not None}
    for name, entry in spec.lists.items():
        for index, member in enumerate(entry.members or ()):
            local, _, domain = mailbox(member).rpartition("@")
            if (
                domain not in homes
                or domain in caught
                or {mailbox(member), f"{local.partition('+')[0]}@{domain}"} & {*known}
            ):
                continue
            hint = near(member, known.values(), cutoff=_SLIP) or "declare it, unless somebody on the server has it"
            yield Finding(("lists", name, "members", index), f"nothing that is declared has the address {member}", hint)


Made = Sequence[tuple[Path, RecordEntry, Record]]
"""Entries of records with where they stand, and the records that they make."""


def _targets(made: Made) -> Iterator[Finding]:
    """Yield records that lead to no host, or stand where nobody looks, as far as the directory knows."""
    hosts = Hosts(item for _, _, item in made)
    zones = {item.zone for _, _, item in made}
    led_to = {str(item.content) for _, _, item in made if item.type == "CNAME"}
    for path, written, item in made:
        target = dict(item.data or ()).get("target") if item.data else item.content
        points = TYPES[item.type].points or item.type == "SRV"
        if points and isinstance(target, str) and target != "." and "." not in target:
            hint = f"hosts are written whole: {target}.{item.zone}"
            yield Finding(_pointing(path, written), f"leads to the top-level domain {target}", hint)
        elif leads_nowhere(hosts, zones, mail_host(item)):
            summary = f"leads to {mail_host(item)}, for which no address is declared"
            hint = "declare an A or AAAA record for it, unless it stands at Cloudflare already"
            yield Finding(_pointing(path, written), summary, hint)
        if address := unreached(hosts, item):
            summary = f"leads to {address}, which nobody outside of its own network reaches"
            yield Finding(_pointing(path, written), summary, "give the host the address that the Internet knows it by")
        if form := unasked(item, led_to):
            yield Finding((*path, "name"), "is no name that anybody asks for this type", f"write it as {form}")
        above = item.host.partition(".")[2]
        if item.type not in ("A", "AAAA") and above != item.zone and is_delegated(hosts, above):
            yield Finding((*path, "name"), "lies below a name with NS of its own, so nobody sees it", "write it there")
        if undelegated(hosts, item):
            hint = "declare them beside it, unless they stand at Cloudflare already"
            yield Finding((*path, "name"), "has no NS beside it, without which Cloudflare takes no DS", hint)
        if likeness := _like_zone(item):
            yield Finding((*path, "name"), f"is relative: it makes {item.host}", f"did you mean {likeness}?")


def _pointing(path: Path, written: RecordEntry) -> Path:
    return (*path, "data", "target") if written.data else (*path, "content")


def _like_zone(item: Record) -> str:
    """Return what a name is without what looks like its zone, mistyped, at its end."""
    from difflib import SequenceMatcher

    labels, parts = item.name.split("."), item.zone.count(".") + 1
    tail = ".".join(labels[-parts:])
    if len(labels) < parts or tail[0] == "_" or SequenceMatcher(None, tail, item.zone).ratio() < _ALIKE:
        return ""
    return ".".join(labels[:-parts]) or "@"


_ALIKE = 0.75  # of a name's end and its zone, by difflib: mana.com and mana.how


def _sets(made: Made) -> Iterator[Finding]:
    """Yield records of one name and type that can't be served as they are declared (RFC 2181 section 5.2)."""
    first: dict[tuple[str, str, str], tuple[Path, Record]] = {}
    for path, _, item in made:
        other, kept = first.setdefault((item.zone, item.name, item.type), (path, item))
        if kept.proxied != item.proxied:
            summary = "is proxied and the one at {other} is not, or the other way round: Cloudflare then proxies both"
            yield Finding((*path, "proxied"), summary, "write the same for both", other)
        elif kept.ttl != item.ttl:
            summary = "has another ttl than {other}, of the same name and type: resolvers take the shorter one for both"
            yield Finding((*path, "ttl"), summary, "write the same for both", other)


def _texts(made: Made) -> Iterator[Finding]:
    """Yield what keeps receivers from reading a policy (SPF, DMARC, a key and the like) as it is meant."""
    led_to = lint.aliases(item for _, _, item in made)
    for path, written, item in made:
        for found in lint.of_record(item, led_to):
            place = "name" if found.in_name else "content"
            summary, hint = (_unfilled(written, text) for text in (found.summary, found.hint))
            yield Finding((*path, place), summary, hint)


def _record(zone: str, written: RecordEntry) -> Record:
    """Make the record of an entry; one that follows the line has the longest address. Raises `InvalidRecord`."""
    return record(
        zone,
        written.type,
        written.name,
        public_ip.filled(written.template, public_ip.LONGEST) or written.content,
        priority=written.priority,
        data=written.data,
        ttl=written.ttl,
        proxied=written.proxied,
    )


def _unfilled(written: RecordEntry, text: str) -> str:
    return text.replace(public_ip.LONGEST, public_ip.SLOT) if public_ip.follows(written.template) else text


_SLIP = 0.85  # how alike two names of a domain are, by difflib: one letter of seven


def _within(name: str, zone: str) -> bool:
    return name == zone or name.endswith(f".{zone}")


def near(name: str, known: Iterable[str], verb: str = "did you mean", cutoff: float = 0.6) -> str:
    """Suggest the nearest known name."""
    from difflib import get_close_matches  # only mistakes ask

    found = get_close_matches(name, list(known), 1, cutoff)
    return f"{verb} {found[0]}?" if found else ""


# -------------------------------------------------------------------------------------------------------- accounts
def _logins(spec: Spec) -> Iterator[Finding]:
    """Up to 0.15 an account is found by its login alone (rest-0.15.md section 2: one name, one principal).

    From 0.16 the address is the login, so where the directory says that nothing clashes.
    """
    if spec.targets.stalwart is not None and (
        spec.targets.stalwart.generation == "jmap" or spec.targets.stalwart.release
    ):
        return
    seen: dict[str, Path] = {}
    for name, account in spec.accounts.items():
        login = _login(name, account)
        path: Path = ("accounts", name, "login") if account.login else ("accounts", name)
        if login in seen:
            hint = "give one of them a login of its own: `login: NAME`"
            yield Finding(path, f"has the login {login}, and so has {{other}}", hint, seen[login])
        seen.setdefault(login, path)


def _login(name: str, account: AccountEntry) -> str:
    return (account.login or name.partition("@")[0]).lower()


def _share_login(spec: Spec, *paths: Path) -> bool:
    names = [str(path[1]) for path in paths if path[:-1] == ("accounts",)]
    return len(names) == len(paths) and len({_login(name, spec.accounts[name]) for name in names}) == 1


def _addresses_once(spec: Spec) -> Iterator[Finding]:
    """Mail for an address goes to one account, group or list."""
    seen: dict[str, Path] = {}
    for path, address in _addresses(spec):
        other = seen.setdefault(mailbox(address), path)
        if other != path and not _share_login(spec, path, other):  # two accounts of one login are told of already
            yield Finding(path, f"{address} is also the address at {{other}}", "keep one", other)


def _addresses(spec: Spec) -> Iterator[tuple[Path, str]]:
    """Yield every address of something here and where it stands, the keys before the aliases."""
    for kind, entries in spec.addressees.items():
        yield from (((kind, name), name) for name in entries)
    for kind, entries in spec.addressees.items():
        for name, entry in entries.items():
            yield from (((kind, name, "aliases", at), alias) for at, alias in enumerate(entry.aliases or ()))


def _conflicts(spec: Spec) -> Iterator[Finding]:
    """What an entry says has to fit to who has the addresses that it names."""
    owners: dict[str, Path] = {}
    for path, address in _addresses(spec):
        owners.setdefault(mailbox(address), path)
    for kind, entries in spec.addressees.items():
        for name, entry in entries.items():
            yield from (replace(found, path=(kind, name, *found.path)) for found in entry.conflicts(owners))


def _accounts(spec: Spec, declared: Declared) -> Iterator[Finding]:
    """What refers to an account must find one, with a password."""
    named = [(path, ref.name) for path, ref in references(spec) if ref.source == "account"]
    for name, provider in spec.smtp.providers.items():
        if provider.account is not None:
            named.append((("smtp", "providers", name, "account"), provider.account))
    for path, name in named:
        account = spec.accounts.get(name)
        if path[0] == "accounts":
            yield Finding(
                path, "is the password of an account", "an account's password comes from outside: {env: NAME}"
            )
        elif name not in declared.mail["accounts"]:
            hint = near(name, declared.mail["accounts"]) or "declare it under accounts"
            yield Finding(path, f"there is no account {name}", hint, absent=True)
        elif account is not None and account.password is None:
            hint = "give the account a password: {env: NAME}"
            yield Finding(path, f"the account {name} at {{other}} has no password", hint, ("accounts", name))


def _domains_declared(spec: Spec, declared: Declared) -> Iterator[Finding]:
    """The default domain must be one that exists."""
    known = {domain_name(domain) for domain, path in _domains(spec, declared) if path[0] != "stalwart"}
    known |= {domain_name(domain) for domain in spec.dkim}
    default = spec.stalwart.default_domain
    if default is not None and known and domain_name(default) not in known:
        guess = near(default, known)
        hint = f"{guess}{' Else ' * bool(guess)}`domains: {{{default}: {{}}}}` declares one that has neither"
        yield Finding(
            ("stalwart", "default_domain"), "is the domain of no account and of no DKIM key", hint, absent=True
        )
    for field in ("domains", "dkim", "dns"):
        seen: dict[str, Path] = {}
        for domain in getattr(spec, field):
            key = domain_name(domain)
            if key in seen:
                yield Finding((field, domain), "also stands at {other}", "keep one", seen[key])
            seen.setdefault(key, (field, domain))


def _domain_aliases(spec: Spec, declared: Declared) -> Iterator[Finding]:
    """An alias of a domain is no domain of its own, and one domain's only."""
    own: dict[str, Path] = {}
    for domain, place in _domains(spec, declared):
        own.setdefault(domain_name(domain), place)
    seen: dict[str, Path] = {}
    for domain, entry in spec.domains.items():
        for index, alias in enumerate(entry.aliases or ()):
            path: Path = ("domains", domain, "aliases", index)
            name = domain_name(alias)
            if name in own:
                hint = "an alias has no addresses of its own: keep one of the two"
                yield Finding(path, f"{alias} is a domain of its own at {{other}}", hint, own[name])
            elif name in seen:
                yield Finding(path, f"{alias} is also an alias at {{other}}", "keep one", seen[name])
            seen.setdefault(name, path)


# ------------------------------------------------------------------------------------------------------------ smtp
def _providers(spec: Spec, declared: Declared) -> Iterator[Finding]:
    """Every consumer's provider must be declared."""
    chosen: list[tuple[Path, str]] = [
        (("smtp", "consumers", service, "provider"), consumer.provider)
        for service, consumer in spec.smtp.consumers.items()
        if consumer.provider is not None
    ]
    if spec.smtp.provider is not None:
        chosen.append((("smtp", "provider"), spec.smtp.provider))
    for path, name in chosen:
        if name not in declared.providers:
            hint = near(name, declared.providers) or "declare it under smtp.providers"
            yield Finding(path, f"there is no provider {name}", hint, absent=True)
    if spec.smtp.provider is None:
        yield from _orphans(spec)


def _presets(spec: Spec) -> Iterator[Finding]:
    """An API is known of some presets only, and a preset's server knows no login of ours."""
    known = ", ".join(f"preset: {name}" for name, preset in PRESETS.items() if preset.has_api)
    for name, provider in spec.smtp.providers.items():
        path: Path = ("smtp", "providers", name)
        preset = PRESETS.get(provider.preset or "")
        if provider.api_key is not None and not (preset and preset.has_api):
            hint = f"take it away, and write the records under the provider's `dns`; known are the APIs of {known}"
            yield Finding((*path, "api_key"), "is for an API that is not known", hint)
        if preset and provider.account is not None and provider.host is None:
            hint = "write the username and the password that it gave you"
            yield Finding((*path, "account"), f"is a login of this stack, which {preset.host} does not know", hint)


def _failover(spec: Spec, declared: Declared) -> Iterator[Finding]:
    """Who stands in is another provider, whose records are there before they are needed."""
    failover, path = spec.smtp.failover, ("smtp", "failover")
    if failover is None:
        return
    if spec.targets.compose is None:
        yield Finding(
            path, "switches services of the compose project, and none is declared", "add targets.compose", absent=True
        )
    if spec.smtp.provider is None:
        yield Finding(path, "stands in for smtp.provider, and none is chosen", "write smtp.provider: NAME", absent=True)
    to = spec.smtp.providers.get(failover.to)
    if failover.to not in declared.providers:
        hint = near(failover.to, declared.providers) or "declare it under smtp.providers"
        yield Finding((*path, "to"), f"there is no provider {failover.to}", hint, absent=True)
    elif failover.to == spec.smtp.provider:
        yield Finding((*path, "to"), "is the provider in use itself", "name another one, which stands by")
    elif to is not None and not to.standby:
        hint = f"write standby: true at smtp.providers.{failover.to}: its records are then published ahead"
        yield Finding((*path, "to"), f"{failover.to} does not stand by", hint)


def _orphans(spec: Spec) -> Iterator[Finding]:
    for service, consumer in spec.smtp.consumers.items():
        needing = (path for path, value in _given(service, consumer) if words.is_filled(value))
        path = ("smtp", "consumers", service, "app") if consumer.app else next(needing, None)
        if consumer.provider is None and path is not None:
            yield Finding(
                path, "is filled from a provider, and none is chosen", "write smtp.provider: NAME", absent=True
            )


def _given(service: str, consumer: Consumer) -> Iterator[tuple[Path, words.Value]]:
    """Yield what a person wrote for a consumer, with where it stands."""
    for part, given in (("env", consumer.env), ("secrets", consumer.secrets)):
        for name, value in given.items():
            if value is not None:
                yield ("smtp", "consumers", service, part, name), value


def _words(spec: Spec) -> Iterator[Finding]:
    """What a consumer is given has a value with the provider in use, and with each that may take over at once."""
    smtp = spec.smtp
    ready = [name for name, provider in smtp.providers.items() if provider.standby]
    ready += [smtp.failover.to] if smtp.failover is not None and smtp.failover.to not in ready else []
    for service, consumer in smtp.consumers.items():
        own = consumer.provider or smtp.provider
        names = dict.fromkeys([own, *(ready if own == smtp.provider else ())])
        providers = {name: smtp.providers[name] for name in names if name in smtp.providers}
        for path, value in _given(service, consumer):
            yield from _unsaid(path, value, providers)
        yield from _senders(spec, service, consumer, providers)


def _unsaid(path: Path, value: words.Value, providers: Mapping[str, Provider]) -> Iterator[Finding]:
    """Tell of the first provider with which a value can't be said, and why."""
    for name, provider in providers.items():
        terms = provider.terms
        chosen = words.choose(value, terms)
        if isinstance(chosen, words.Choice):
            word = terms.word(chosen.by)
            summary = f"has no value for the {chosen.by} {word}, which the provider {name} has"
            yield Finding(path, summary, f"add {word}: VALUE")
            return
        slots = template.slots(chosen) if isinstance(chosen, str) else frozenset()
        known = {f"{template.VALUES}{key}" for key in provider.values} | set(template.NAMES)
        known -= {"from"} if provider.sender is None else set()
        if lacking := sorted(slots - known):
            said = "from" if lacking[0] == "from" else f"values.{lacking[0].removeprefix(template.VALUES)}"
            summary = f"says {{{lacking[0]}}}, for which the provider {name} has no value"
            hint = near(lacking[0], known - set(template.NAMES)) or f"write smtp.providers.{name}.{said}: VALUE"
            yield Finding(path, summary, hint)
            return
        alone = isinstance(chosen, str) and len(template.split(chosen)) == 1
        if not terms.login and not alone and slots & {"username", "password"}:
            summary = f"holds a login, and the provider {name} has none"
            hint = "say both: {login: TEXT WITH IT, anonymous: TEXT WITHOUT}"
            yield Finding(path, summary, hint)
            return


def _senders(spec: Spec, service: str, consumer: Consumer, providers: Mapping[str, Provider]) -> Iterator[Finding]:
    """An application that one provider tells whom its mail is from keeps that where another one tells nothing."""
    brought = APPS[consumer.app].variables if consumer.app is not None else {}
    if not any(entry.needs_from and name not in consumer.env for name, entry in brought.items()):
        return
    telling = next((name for name, provider in spec.smtp.providers.items() if provider.sender is not None), None)
    for name, provider in providers.items() if telling is not None else ():
        if provider.sender is None:
            summary = f"has no `from`, so that {service} would keep the one of {telling}"
            yield Finding(("smtp", "providers", name), summary, "write from: ADDRESS", absent=True)


def _incapable(spec: Spec) -> Iterator[Finding]:
    """An application that can't be told something of its provider."""
    for service, consumer in spec.smtp.consumers.items():
        name = consumer.provider or spec.smtp.provider or ""
        provider = spec.smtp.providers.get(name)
        cannot = APPS[consumer.app].cannot if consumer.app is not None else {}
        if provider is None:
            continue
        found = {provider.terms.word(by) for by in words.CHOICES} & cannot.keys() - {words.NO_TLS}
        found -= {words.IMPLICIT} if provider.door[1] == _SMTPS else set()
        for option in sorted(found):
            summary = f"{APPS[consumer.app or ''].title} may not reach {name} ({option}): {cannot[option]}"
            yield Finding(("smtp", "consumers", service, "app"), summary, "use another provider for it, if so")


_SMTPS = 465  # RFC 8314 section 3.3


def _variables(spec: Spec) -> Iterator[Finding]:
    """A variable is set in one place only."""
    seen: dict[str, Path] = {}
    for service, consumer in spec.smtp.consumers.items():
        for variable in APPS[consumer.app].variables if consumer.app is not None else ():
            seen[f"{service}.{variable}"] = ("smtp", "consumers", service, "app")
        for variable in consumer.env:
            seen[f"{service}.{variable}"] = ("smtp", "consumers", service, "env", variable)
    for index, link in enumerate(spec.smtp.links):
        for position, end in enumerate(link.ends if link.value is not None else ()):
            path: Path = ("smtp", "links", index, "in", position)
            if end in seen:
                yield Finding(path, f"{end} is also set at {{other}}", "set it in one place", seen[end])
            seen.setdefault(end, path)


# ----------------------------------------------------------------------------------------------------- keys and DNS
def _signatures(spec: Spec) -> Iterator[Finding]:
    """A selector stands once, and one key of an algorithm signs (a second would leave the choice to chance)."""
    for domain, keys in spec.dkim.items():
        selectors: dict[str, Path] = {}
        active: dict[str, Path] = {}
        for index, key in enumerate(keys):
            path: Path = ("dkim", domain, index)
            if key.selector in selectors:
                hint = "a new key takes a new selector"
                yield Finding((*path, "selector"), "also stands at {other}", hint, selectors[key.selector])
            selectors.setdefault(key.selector, (*path, "selector"))
            if key.stage != "active":
                continue
            if key.algorithm in active:
                hint = "make one `stage: retiring`, or the new one `stage: pending`"
                summary = f"is a second active {key.algorithm} key; the first is at {{other}}"
                yield Finding(path, summary, hint, active[key.algorithm])
            active.setdefault(key.algorithm, path)


def _records(spec: Spec) -> Iterator[Finding]:
    """Every record must make sense in its zone and beside the others of its name."""
    names: defaultdict[tuple[str, str], list[tuple[Path, Record]]] = defaultdict(list)
    wrong_zones = set[Path]()
    for path, zone, written in _written(spec):
        if (finding := _relative(path, zone, written.name)) is not None:
            yield finding
            continue
        try:
            made = _record(zone, written)
            check_data(made)
        except InvalidRecord as error:
            finding = _invalid(path, written, error)
            if finding.path not in wrong_zones:  # of a zone it is said once, and not of each of its records
                yield finding
            wrong_zones |= {finding.path} if error.place == ("zone",) else set()
            continue
        if marked(written.comment, spec.stack) is None:
            room = COMMENT_LIMIT - len(f" reconciler:{spec.stack}")
            summary = f"has {len(written.comment or '')} characters; {room} fit beside our mark"
            yield Finding((*path, "comment"), summary, "make it shorter")
        names[made.zone, made.name].append((path, made))
    yield from _derived(spec, names)
    for found in names.values():
        if len(found) > 1:
            yield from _neighbours(found)


def _invalid(path: Path, written: RecordEntry, error: InvalidRecord) -> Finding:
    """Put an error where what is wrong was written."""
    match error.place:
        case ("zone",):
            return Finding(path[:-1], str(error), "write the zone as Cloudflare lists it, like example.com")
        case ("name",):
            return Finding((*path, "name"), str(error), error.hint or "write it relative to the zone, like mail or @")
        case ("priority",):
            return Finding((*path, "priority"), str(error), "write it once: priority: 10")
    hint = error.hint or _example(written, str(error))
    if error.place[0] == "data" and written.data is not None:
        place: Path = (*path, "data", *(item for item in error.place[1:] if item in written.data))
        return Finding(place, str(error), hint)
    return Finding((*path, "content"), str(error), hint)


def _example(written: RecordEntry, said: str) -> str:
    """Say what to write in place of what is no value of its type."""
    found = meant(written.content or "") if TYPES[written.type].points else ""
    parts = " ".join(TYPES[written.type].parts)
    if parts and parts in said:
        return ""
    return f"write {found}" if found else f"it is written as {parts}" if parts else _EXAMPLES.get(written.type, "")


_EXAMPLES = {"A": "like 192.0.2.1", "AAAA": "like 2001:db8::1"} | dict.fromkeys(
    (name for name, row in TYPES.items() if row.points), "write a host, like mail.example.com"
)


def _written(spec: Spec) -> Iterator[tuple[Path, str, RecordEntry]]:
    for zone, zone_records in spec.dns.items():
        for index, entry in enumerate(zone_records):
            yield ("dns", zone, index), zone, entry
    chosen = {spec.smtp.provider, *(consumer.provider for consumer in spec.smtp.consumers.values())}
    for name, provider in spec.smtp.providers.items():
        if provider.standby or name in chosen:
            for zone, zone_records in provider.dns.items():
                for index, entry in enumerate(zone_records):
                    yield ("smtp", "providers", name, "dns", zone, index), zone, entry


def _relative(path: Path, zone: str, name: str) -> Finding | None:
    lower, whole = name.lower(), zone.lower()
    if lower != whole and not lower.endswith(f".{whole}"):
        return None
    short = "@" if lower == whole else name[: -len(zone) - 1]
    return Finding((*path, "name"), "repeats the zone", f'names are relative to it: write "{short}"')


def _derived(spec: Spec, names: dict[tuple[str, str], list[tuple[Path, Record]]]) -> Iterator[Finding]:
    """The record of a declared key follows from it: beside another at its name no verifier knows which to take."""
    for domain, keys in spec.dkim.items():
        for index, key in enumerate(keys):
            published = key_name(key.selector, domain)
            for found in names.values() if key.stage != "retired" else ():
                for path, item in found:
                    if item.host == published and item.type in {"TXT", "CNAME"}:
                        summary = "is the record of the DKIM key at {other}, which publishes it"
                        yield Finding(path, summary, "remove it here", ("dkim", domain, index))


def _neighbours(found: list[tuple[Path, Record]]) -> Iterator[Finding]:
    """Tell of what stands twice at one name, and of what can't stand beside another."""
    same: dict[tuple[object, ...], Path] = {}
    policies: dict[MailPolicy, Path] = {}
    for path, item in found:
        value = (item.type, item.content, item.priority, item.data)  # whatever its TTL, and whether it is proxied
        if value in same:
            yield Finding(path, "is the same record as {other}", "keep one", same[value])
            continue
        same[value] = path
        once = policy(item)
        if once in policies:
            summary = f"is a second {once.label} record at one name; the first is {{other}}"
            yield Finding(path, summary, once.remedy, policies[once])
        elif once:
            policies[once] = path
    yield from _alone(found)
    yield from _texts_together(found)
    for path, item in found:
        excluded = [(other, it) for other, it in found if it != item and excludes(item, it)]
        for other, it in excluded:
            summary = f"stands beside the {item.type} at {{other}}, which allows no {it.type} at its name"
            yield Finding(other, summary, "keep one of them", path)
        if excluded:
            return


def _texts_together(found: list[tuple[Path, Record]]) -> Iterator[Finding]:
    """Cloudflare limits what all texts of a name take together (manage.get.gov#4672, error 83011)."""
    texts = [(path, len(str(item.content).encode())) for path, item in found if item.type == "TXT"]
    size = sum(length for _, length in texts)
    if len(texts) > 1 and size > TEXTS_LIMIT:
        summary = (
            f"the {len(texts)} TXT records of its name take {size} bytes together; Cloudflare allows {TEXTS_LIMIT}"
        )
        yield Finding(texts[-1][0], summary, "give some of them another name, or remove those that nobody asks for")


def _alone(found: list[tuple[Path, Record]]) -> Iterator[Finding]:
    """What says that there is nothing, or all of it elsewhere, stands alone among those of its type."""
    for position, (path, item) in enumerate(found):
        others = [(at, other, it) for at, (other, it) in enumerate(found) if it.type == item.type and at != position]
        if others and (said := alone(item)):
            at, other, it = others[0]
            if at < position and alone(it):
                continue  # which says so of this one
            summary = f"{said}, and the {item.type} at {{other}} says otherwise"
            yield Finding(path, summary, "keep one of them", other)


def _zones(spec: Spec) -> Iterator[Finding]:
    """Each zone is written with one token, so that it is clear which."""
    tokens, seen = spec.targets.cloudflare, dict[str, Path]()
    for index, token in enumerate(tokens):
        path: Path = ("targets", "cloudflare", index)
        if len(tokens) > 1 and not token.zones:
            yield Finding(path, "says no zones", "with several tokens each needs zones: [NAME, ...]")
        for position, zone in enumerate(token.zones or ()):
            if (name := domain_name(zone)) in seen:
                summary = f"{zone} also stands at {{other}}"
                yield Finding((*path, "zones", position), summary, "one token a zone", seen[name])
            seen.setdefault(name, (*path, "zones", position))
    for zone in spec.dns if tokens and all(token.zones for token in tokens) else ():
        if domain_name(zone) not in seen:
            yield Finding(
                ("dns", zone), "is a zone of no token", "add it to the zones of one in targets.cloudflare", absent=True
            )


# ------------------------------------------------------------------------------------------------ server, lifecycle
def _networks(spec: Spec) -> Iterator[Finding]:
    """A network stands once; a compose network needs the compose project."""
    seen: dict[str, Path] = {}
    for index, entry in enumerate(spec.stalwart.allowed_ips):
        path: Path = ("stalwart", "allowed_ips", index)
        if not isinstance(entry, str) and spec.targets.compose is None:
            yield Finding(
                path, "is a network of the compose project, and none is declared", "add targets.compose", absent=True
            )
        key = str(ip_network(entry, strict=False)) if isinstance(entry, str) else f"network {entry.network}"
        if key in seen:
            yield Finding(path, "also stands at {other}", "keep one", seen[key])
        seen.setdefault(key, path)


def _lifecycle(spec: Spec, declared: Declared) -> Iterator[Finding]:
    """What goes is not declared; what moves arrives at what is; what is taken over is declared."""
    known = _known(spec, declared)
    for index, address in enumerate(spec.removed):
        if (other := known.get(_plain(address))) is not None:
            yield Finding(("removed", index), f"{address} is declared at {{other}}", "keep one of the two", other)
        yield from _members_left(spec, index, address)
        yield from _catch_alls_left(spec, index, address)
    gone = {_plain(address) for address in spec.removed}
    onward = {_plain(move.source): move.target for move in spec.moved}
    for index, move in enumerate(spec.moved):
        if (other := known.get(_plain(move.source))) is not None:
            hint = "rename it there, too"
            yield Finding(("moved", index, "from"), f"{move.source} is still declared at {{other}}", hint, other)
        if _plain(move.target) not in known:
            further = onward.get(_plain(move.target))
            one = f"take it out where it was applied, else write one move from {move.source} to {further}"
            hint = one if further else "declare it under accounts"
            yield Finding(("moved", index, "to"), f"{move.target} is not declared", hint, absent=True)
        if {_plain(move.source), _plain(move.target)} & gone:
            yield Finding(("moved", index), "is also removed", "keep one of the two")
    yield from _moves_once(spec)
    for index, address in enumerate(spec.adopt):
        if Address.parse(address).kind in ADDRESSES and _plain(address) not in known:
            yield Finding(
                ("adopt", index), f"{address} is not declared", near(address, known) or "declare it", absent=True
            )


def _moves_once(spec: Spec) -> Iterator[Finding]:
    """A mailbox goes to one account, and an account has one: of two it would be left to chance."""
    for end in ("source", "target"):
        seen: dict[str, Path] = {}
        for index, move in enumerate(spec.moved):
            address: str = getattr(move, end)
            path: Path = ("moved", index, "from" if end == "source" else "to")
            other = seen.setdefault(_plain(address), path)
            if other != path:
                yield Finding(path, f"{address} also stands at {{other}}", "keep one", other)


def _plain(address: str) -> str:
    """Write the address of a thing as it is compared: a domain has one spelling, whatever it is written in."""
    kind, slash, name = address.partition("/")
    if kind in {"domain", "dkim"}:
        domain, *selector = name.split("/", 1)
        return "/".join((kind, domain_name(domain), *map(str.lower, selector)))
    return f"{kind}{slash}{mailbox(name)}" if kind in ADDRESSES else address.lower()


def _members_left(spec: Spec, index: int, address: str) -> Iterator[Finding]:
    """A group goes only when no declared account is in it any more."""
    gone = Address.parse(address)
    group = gone.name
    for name, account in spec.accounts.items() if gone.kind == Group.kind else ():
        for position, item in enumerate(account.groups or ()):
            if mailbox(group) in (mailbox(item), item.lower()):
                summary, hint = f"{name} belongs to {group}, as {{other}} says", "take it out there"
                yield Finding(("removed", index), summary, hint, ("accounts", name, "groups", position))


def _catch_alls_left(spec: Spec, index: int, address: str) -> Iterator[Finding]:
    """What goes gets no mail any more: a catch-all that names it would lose every mail without a word."""
    gone = Address.parse(address)
    name = gone.name
    if f"{gone.kind}s" not in spec.addressees or any(mailbox(it) == mailbox(name) for _, it in _addresses(spec)):
        return
    for domain, entry in spec.domains.items():
        if entry.catch_all is not None and mailbox(entry.catch_all) == mailbox(name):
            summary = f"{name} is the catch-all of {domain}, as {{other}} says"
            yield Finding(("removed", index), summary, "name another address there", ("domains", domain, "catch_all"))


def _domains(spec: Spec, declared: Declared) -> Iterator[tuple[str, Path]]:
    """Yield the mail domains that are kept, with the places of each."""
    yield from ((domain, ("domains", domain)) for domain in declared.mail["domains"])
    for kind in spec.addressees:
        yield from ((name.rpartition("@")[2], (kind, name)) for name in declared.mail[kind] if "@" in name)
    yield from ((address.rpartition("@")[2], path) for path, address in _addresses(spec) if "@" in address)
    for domain, keys in spec.dkim.items():
        if any(key.stage != "retired" for key in keys):
            yield domain, ("dkim", domain)
    if spec.stalwart.default_domain:
        yield spec.stalwart.default_domain, ("stalwart", "default_domain")


def _known(spec: Spec, declared: Declared) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for kind in spec.addressees:
        found |= {_plain(f"{kind.removesuffix('s')}/{name}"): (kind, name) for name in declared.mail[kind]}
    for domain, path in _domains(spec, declared):
        found.setdefault(_plain(f"domain/{domain}"), path)
    for domain, keys in spec.dkim.items():
        for index, key in enumerate(keys):
            if key.stage != "retired":
                found[_plain(f"dkim/{domain}/{key.selector}")] = ("dkim", domain, index)
    found |= {f"stalwart/listeners/{name}".lower(): ("stalwart", "listeners", name) for name in spec.stalwart.listeners}
    return found
