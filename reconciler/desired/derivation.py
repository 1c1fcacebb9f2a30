"""From the spec to resources: `desire` is pure, and the only place where something derives from something else.

It is called before anything is observed, to say what matters, and again with what was observed: the login that a
server's generation wants, the networks of the compose project, and the key that only a server holds are known then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_network
from typing import TypeVar

from reconciler.address import Address
from reconciler.desired import objects, raw_keys, template, words
from reconciler.desired.apps import Entry
from reconciler.desired.provider_records import Provided, ProviderAnswer, PublishedProvider, Surroundings, provide
from reconciler.desired.public_ip import Line, filled, follows
from reconciler.desired.spec import Spec
from reconciler.desired.spec.dns import RecordEntry
from reconciler.desired.spec.mail import ADDRESSES, AccountEntry, AddresseeEntry, DomainEntry, Key
from reconciler.desired.spec.scalars import link_end
from reconciler.desired.spec.smtp import Provider
from reconciler.desired.spec.stalwart import NetworkEntry
from reconciler.desired.words import Choice, Value
from reconciler.dns.records import dkim_record, policy, record
from reconciler.dns.text import SPF
from reconciler.names import host, key_name
from reconciler.plan import Desired
from reconciler.problem import Problem, Severity
from reconciler.resources import (
    UNKNOWN,
    UNMANAGED,
    Account,
    AllowedIp,
    Domain,
    Group,
    Listener,
    Login,
    MailingList,
    Observation,
    Record,
    Resource,
    Secret,
    SecretPart,
    SecretRef,
    SecretText,
    Setting,
    Signature,
    Special,
    Variable,
)

T = TypeVar("T", Domain, Group, Account, MailingList)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the derivation needs to know besides the directory and the systems, gathered beforehand.

    ``halves`` maps a private key's reference and its algorithm to the public key, or to why it can't be told (see
    `private_keys`); ``asked`` maps a provider's name and a mail domain to what the provider's API says (see
    `provider_questions`), and is None where no API is asked: then only the YAML says which records providers need.
    ``line`` is the address of the line that records follow (see `follows_line`); None before it was asked for.
    """

    halves: Mapping[tuple[SecretRef, str], str | Problem] = field(default_factory=dict)
    asked: Mapping[tuple[str, str], ProviderAnswer] | None = None
    line: Line | None = None


def private_keys(spec: Spec, *, check: bool) -> Iterator[tuple[SecretRef, str]]:
    """Yield reference and algorithm of each private key whose public half has to be derived.

    ``check`` adds those whose public half the YAML says, too: whether the two belong together is told of a server's.
    """
    for entries in spec.dkim.values():
        for key in entries:
            if key.private_key is not None and key.stage != "retired" and (check or key.public_key is None):
                yield key.private_key, key.algorithm


def provider_questions(spec: Spec) -> Iterator[tuple[str, Provider, str, str]]:
    """Yield what to ask the APIs of published providers: name, provider, zone and the mail domain in it."""
    derivation = _Derivation(spec, None, Facts(), ())
    for item in derivation.published_providers():
        if item.provider.api_key is not None:
            yield from ((item.name, item.provider, zone, domain) for domain, zone in derivation.mail_zones().items())


def follows_line(spec: Spec, declared: Iterable[Record]) -> bool:
    """Whether a record that would be published follows the line's address; ``declared`` are `zone_records`."""
    own = (record for item in _Derivation(spec, None, Facts(), ()).published_providers() for record in item.own)
    return any(record.follows for record in (*declared, *own))


def desire(
    spec: Spec,
    observed: Mapping[str, Observation] | None = None,
    facts: Facts = Facts(),
    adopt: Iterable[str] = (),
    *,
    declared: Sequence[Record] | None = None,
) -> Desired:
    """Return what should be. ``declared`` are `zone_records` of this spec, for whoever has them already."""
    adopted = frozenset(map(canonical, (*spec.adopt, *adopt)))
    records = zone_records(spec) if declared is None else declared
    derivation = _Derivation(spec, observed, facts, records, adopted)
    resources = tuple(dict.fromkeys(derivation.resources()))
    return Desired(
        resources=resources,
        removed=frozenset((*map(canonical, spec.removed), *derivation.retired())),
        moved={canonical(move.source): canonical(move.target) for move in spec.moved},
        adopt=adopted,
        kept=frozenset((*(item.group for item in derivation.selectors()), *derivation.kept)),
        stays=frozenset(derivation.stays),
        notes=dict(derivation.notes(resources)),
        provided=derivation.provided().needed,
        zones=frozenset(map(host, spec.dns)),
        keyed=frozenset(map(host, spec.dkim)),
        problems=tuple(derivation.problems),
    )


def zone_records(spec: Spec) -> tuple[Record, ...]:
    """Make the records that stand under ``dns``; what follows the line's address has no content yet."""
    return tuple(_record(zone, entry) for zone, entries in spec.dns.items() for entry in entries)


def zone_of(domain: str, zones: Iterable[str]) -> str | None:
    """Name the declared zone that a domain's records belong to: the longest that it ends in."""
    fitting = (zone for zone in zones if host(domain) == host(zone) or host(domain).endswith(f".{host(zone)}"))
    return max(fitting, key=len, default=None)


@dataclass(slots=True)
class _Derivation:
    """One derivation: what goes in, and the problems found on the way."""

    spec: Spec
    observed: Mapping[str, Observation] | None
    facts: Facts
    declared: Sequence[Record]
    adopt: frozenset[str] = frozenset()
    problems: list[Problem] = field(default_factory=list)
    stays: list[str] = field(default_factory=list)  # addresses of records whose value can't be told
    kept: list[tuple[str, ...]] = field(default_factory=list)  # groups that lose nothing meanwhile
    _provided: Provided | None = None
    _mailboxes: frozenset[str] | None = None
    _keys: dict[tuple[str, str], str | Special] = field(default_factory=dict)

    @property
    def generation(self) -> str | None:
        """What the server is, as far as it was observed or the directory says so."""
        server = self.spec.targets.stalwart
        seen = (self.observed or {}).get("stalwart")
        return (seen.generation if seen else None) or (server.generation if server else None)

    def notes(self, wanted: Iterable[Resource]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield, by address, what there is to know of a change to what is wanted or live on the mail server."""
        seen = (self.observed or {}).get("stalwart")
        for resource in (*wanted, *(live.resource for live in (seen.live if seen else ()))):
            if said := raw_keys.notes(resource, self.generation):
                yield resource.address, said

    def resources(self) -> Iterator[Resource]:
        """Yield everything that should be, in the order of the kinds."""
        targets = self.spec.targets
        if targets.cloudflare:
            yield from self.records()
        if targets.stalwart:
            self.check_halves()
            yield from (self.storable(self.domain(name)) for name in self.domains())
            yield from map(self.storable, self.groups())
            yield from map(self.storable, self.accounts())
            yield from map(self.storable, self.mailing_lists())
            yield from self.signatures()
            yield from self.settings()
        if targets.compose:
            yield from self.variables()
            yield from self.linked()

    # ------------------------------------------------------------------------------------------------------- DNS
    def records(self) -> Iterator[Record]:
        """Yield the declared records, those of the published providers, and one for each published DKIM key."""
        yield from self.following(self.declared)
        yield from self.provided().records
        for zone, domain, key in self.published_keys():
            yield dkim_record(zone, domain, key.selector, key.algorithm, self.public_key(domain, key))

    def following(self, records: Iterable[Record]) -> Iterator[Record]:
        """Give what follows the line its content; before anything is observed that may be unknown."""
        line = self.facts.line or Line(why="nobody was asked")
        for item in records:
            if not item.follows:
                yield item
            elif Record.target in (self.observed or {}):
                yield from self.followed(item, line)
            else:
                yield _at(item, line.address)

    def followed(self, item: Record, line: Line) -> Iterator[Record]:
        """Yield a record with the line's address; while that can't be told, or is in dispute, as it is live."""
        lives = list(self.former(item))
        told = {_at(item, address).content for address in line.told - {line.address}}
        if line.address and not (len(lives) == 1 and lives[0].content in told):
            yield _at(item, line.address)
            return
        self.untold(item, line)
        if len(lives) == 1:
            yield replace(item, content=lives[0].content)
        elif lives:
            self.stays.append(item.address)

    def former(self, item: Record) -> Iterator[Record]:
        """Yield our live records that may be the one that follows: those that no other declared one is equal to."""
        fixed = {record.content for record in self.declared if record.group == item.group and not record.follows}
        seen = (self.observed or {}).get(Record.target)
        for live in seen.live if seen else ():
            other = live.resource
            if not isinstance(other, Record) or other.group != item.group or live.owner != self.spec.stack:
                continue
            if other.content not in fixed and (item.type != "TXT" or policy(other) is SPF):
                yield other

    def untold(self, item: Record, line: Line) -> None:
        """Say why a record stays as it is, or is not made; at its name nothing is taken away, whatever its type."""
        self.kept += ((Record.kind, item.zone, kind, item.name) for kind in (item.type, "CNAME"))
        what = "is of no use" if line.useless else "can't be told"
        why = line.why or f"not all who were asked say the same: {', '.join(sorted(line.told))}"
        severity = Severity.ERROR if line.useless else Severity.WARNING
        summary = f"stays as it is: the line's address {what}: {why}"
        self.problems.append(Problem(item.address, summary, line.hint or _AGREE, severity))

    def provided(self) -> Provided:
        """Return what the published providers need of DNS; their APIs are asked only where Cloudflare takes part."""
        if self._provided is None:
            around = Surroundings(
                self.spec.stack,
                self.mail_zones(),
                self.declared,
                {key_name(key.selector, domain) for domain, keys in self.spec.dkim.items() for key in keys},
                (self.observed or {}).get(Record.target),
            )
            self._provided = provide(self.published_providers(), around, self.facts.asked)
            self.problems += self._provided.problems
        return self._provided

    def mail_zones(self) -> dict[str, str]:
        """Map each mail domain that lies in a declared zone to that zone."""
        zones = ((domain, zone_of(domain, self.spec.dns)) for domain in self.domains())
        return {domain: host(zone) for domain, zone in zones if zone}

    def published_providers(self) -> Iterator[PublishedProvider]:
        """Yield the providers whose records should be there: those in use, and those that stand by."""
        active = {consumer.provider or self.spec.smtp.provider for consumer in self.spec.smtp.consumers.values()}
        active.add(self.spec.smtp.provider)
        for name, item in self.spec.smtp.providers.items():
            if name in active or item.standby:
                own = (_record(zone, entry) for zone, entries in item.dns.items() for entry in entries)
                yield PublishedProvider(name, item, tuple(self.following(own)))

    def published_keys(self) -> Iterator[tuple[str, str, Key]]:
        """Yield zone, domain and key of every key that DNS should show; RFC 6376 section 3.6.2.1 names the place."""
        for domain, entries in self.spec.dkim.items():
            zone = zone_of(domain, self.spec.dns)
            if zone is not None:
                yield from ((zone, domain, key) for key in entries if key.stage != "retired")

    def selectors(self) -> Iterator[Record]:
        """Yield the records that stay while their selector is declared, whether or not its key is known."""
        for zone, domain, key in self.published_keys():
            yield dkim_record(zone, domain, key.selector, key.algorithm, UNKNOWN)

    def public_key(self, domain: str, key: Key) -> str | Special:
        """Return a key's public half: as declared, of the declared private key, or of the key the server holds."""
        if key.public_key is not None:
            return key.public_key
        name = (domain, key.selector)
        if name not in self._keys:
            self._keys[name] = self._derived(domain, key) if key.private_key else self._observed_key(domain, key)
        return self._keys[name]

    def check_halves(self) -> None:
        """Tell of private keys that are not those of the declared public ones, and of those that can't be read."""
        seen = (self.observed or {}).get("stalwart")
        if seen is None:
            return
        # Once is enough of what the target tells.
        told = {item.where for item in seen.problems if item.severity is not Severity.WARNING}
        for domain, entries in self.spec.dkim.items():
            for key in entries:
                if key.private_key is None or key.public_key is None or key.stage == "retired":
                    continue
                half = self.facts.halves.get((key.private_key, key.algorithm), key.public_key)
                address = f"dkim/{host(domain)}/{key.selector}"
                if address in told:
                    continue
                if isinstance(half, Problem):
                    self.problems += _unreadable_half(address, key, half, domain, seen)
                elif half != key.public_key:
                    summary = f"private_key {key.private_key} is not the private half of public_key"
                    hint = f"name the key's own file, or correct public_key: the private key's is {half}"
                    self.problems.append(Problem(address, summary, hint, scope=address))

    def _derived(self, domain: str, key: Key) -> str | Special:
        half = self.facts.halves.get((key.private_key, key.algorithm)) if key.private_key else None
        if half is None:
            return self._observed_key(domain, key)
        if isinstance(half, str):
            return half
        address = f"dkim/{domain}/{key.selector}"
        self.problems.append(Problem(address, half.summary, _mending(half, domain), scope=address))
        self._unpublishable(domain, key, f"stays as it is: {half.summary}", Severity.WARNING)
        return UNKNOWN

    def _unpublishable(self, domain: str, key: Key, summary: str, severity: Severity = Severity.ERROR) -> None:
        """Leave the record as it is while what it should publish can't be told."""
        zone = zone_of(domain, self.spec.dns)
        if zone is not None:
            where = dkim_record(zone, domain, key.selector, key.algorithm, UNKNOWN).address
            hint = "write public_key beside private_key in the YAML: then DNS needs no secret"
            self.stays.append(where)
            self.problems.append(Problem(where, summary, hint, severity, where))

    def _observed_key(self, domain: str, key: Key) -> str | Special:
        """Return the public half of the key the server holds. One that can't be read is published as it is."""
        seen = (self.observed or {}).get("stalwart")
        for live in seen.live if seen else ():
            item = live.resource
            if isinstance(item, Signature) and (item.domain, item.selector) == (host(domain), key.selector):
                if isinstance(item.public_key, str) and item.public_key:
                    return item.public_key
                self._unpublishable(domain, key, "the key that the server holds can't be read")
                return UNMANAGED
        return UNKNOWN

    # -------------------------------------------------------------------------------------------------- Stalwart
    def domains(self) -> list[str]:
        """Name the mail domains: those of every address and key, those that are declared, and the default one.

        A key that is retired needs none: its domain may be another one's alias by now, or be removed.
        """
        spec = self.spec
        owners = spec.addressees.values()
        addresses = [name for entries in owners for name in entries if "@" in name]
        addresses += [alias for entries in owners for entry in entries.values() for alias in entry.aliases or ()]
        names = [_mailbox(address).rpartition("@")[2] for address in addresses]
        keyed = (domain for domain, keys in spec.dkim.items() if any(key.stage != "retired" for key in keys))
        names += [host(domain) for domain in (*spec.domains, *keyed)]
        if self.spec.stalwart.default_domain:
            names.append(host(self.spec.stalwart.default_domain))
        return sorted(set(names))

    def domain(self, name: str) -> Domain:
        """Return a domain; one that is adopted is taken away from the server's own upkeep."""
        made = Domain(name)
        if made.address in self.adopt:
            made = replace(made, manual=True)
        entry = next((entry for key, entry in self.spec.domains.items() if host(key) == name), DomainEntry())
        said = entry.model_fields_set
        made = replace(
            made,
            description=_description(entry),
            catch_all=entry.catch_all and _mailbox(entry.catch_all) if "catch_all" in said else UNMANAGED,
            aliases=tuple({host(alias) for alias in entry.aliases or ()}) if "aliases" in said else UNMANAGED,
            sub_addressing=entry.sub_addressing if "sub_addressing" in said else UNMANAGED,
        )
        return self.possible(made) if self.generation == "rest" else made

    def possible(self, domain: Domain) -> Domain:
        """Leave out what a server up to 0.15 can't do, and say so: it has no such field of a domain."""
        refused = {
            "aliases": domain.aliases not in (UNMANAGED, ()),
            "sub_addressing: false": domain.sub_addressing is False,
        }
        for what in (what for what, wanted in refused.items() if wanted):
            summary = f"Stalwart up to 0.15 has no {what} of one domain: that needs 0.16"
            hint = f"update the server, or take it out of domains.{domain.name}"
            self.problems.append(Problem(domain.address, summary, hint))
        usual = domain.sub_addressing or UNMANAGED  # what it does for all domains, while that is switched on
        domain = replace(domain, aliases=UNMANAGED, sub_addressing=usual)
        seen = (self.observed or {}).get("stalwart")
        if seen is None or not isinstance(domain.catch_all, str) or domain.catch_all in self.mailboxes(seen):
            return domain
        summary = f"nobody here has the address {domain.catch_all}, and a catch-all elsewhere needs Stalwart 0.16"
        hint = "name the address of an account, a group or a list here; until then the domain is kept without it"
        self.problems.append(Problem(domain.address, summary, hint))
        return replace(domain, catch_all=UNMANAGED)

    def mailboxes(self, seen: Observation) -> frozenset[str]:
        """Name every e-mail address that somebody has or is to have on the mail server."""
        if self._mailboxes is None:
            live = (address for item in seen.live for address in item.resource.mailboxes)
            owners = ((name, entry) for entries in self.spec.addressees.values() for name, entry in entries.items())
            said = (item for name, entry in owners for item in (name, *(entry.aliases or ())) if "@" in item)
            self._mailboxes = frozenset((*live, *map(_mailbox, said)))
        return self._mailboxes

    def storable(self, item: T) -> T:
        """Leave out a description that a server up to 0.15 does not take, and say so: it costs nobody his mailbox."""
        text = getattr(item, "description", None)
        size = len(text.encode()) if isinstance(text, str) else 0
        if self.generation != "rest" or size <= raw_keys.LONGEST:
            return item
        summary = f"its description has {size} bytes; up to 0.15 the server takes {raw_keys.LONGEST}"
        self.problems.append(Problem(item.address, summary, "shorten it; until then it is kept as it is, or left out"))
        return replace(item, description=UNMANAGED)

    def groups(self) -> Iterator[Group]:
        """Yield the shared mailboxes."""
        for name, entry in self.spec.groups.items():
            yield Group(_mailbox(name), _description(entry), _mailboxes(entry, "aliases"))

    def mailing_lists(self) -> Iterator[MailingList]:
        """Yield the mailing lists."""
        for name, entry in self.spec.lists.items():
            lists = (_mailboxes(entry, "aliases"), _mailboxes(entry, "members"))
            yield MailingList(_mailbox(name), _description(entry), *lists)

    def accounts(self) -> Iterator[Account]:
        """Yield the accounts; what is absent in the YAML is unmanaged."""
        for name, account in self.spec.accounts.items():
            said = account.model_fields_set
            yield Account(
                name=_mailbox(name),
                login=account_login(name, account),
                email=_mailbox(name) if "@" in name else UNMANAGED,
                description=_description(account),
                roles=account.roles,
                aliases=_mailboxes(account, "aliases"),
                groups=tuple(map(self.group, account.groups or ())) if "groups" in said else UNMANAGED,
                quota=account.quota if "quota" in said else UNMANAGED,
                password=resolve(self.spec, account.password) if account.password else UNMANAGED,
                enforce_password=account.enforce_password,
                locked=account.locked if "locked" in said else UNMANAGED,
                locale=account.locale if "locale" in said else UNMANAGED,
            )

    def group(self, name: str) -> str:
        """Name a group as its resource does: a bare name may be the local part of a declared one."""
        fitting = [key for key in self.spec.groups if "@" not in name and key.partition("@")[0].lower() == name.lower()]
        return _mailbox(fitting[0] if len(fitting) == 1 else name)

    def signatures(self) -> Iterator[Signature]:
        """Yield the keys that should sign. A pending key is only published, a retiring one not any more used."""
        for domain, entries in self.spec.dkim.items():
            for key in entries:
                if key.stage == "active":
                    public = self.public_key(domain, key)
                    name = (host(domain), key.selector, key.algorithm)
                    yield Signature(*name, public, private_key=key.private_key, since=key.since)

    def retired(self) -> Iterator[str]:
        """Yield the addresses of keys that should not sign any more, and of records that should be gone by now."""
        for domain, entries in self.spec.dkim.items():
            zone = zone_of(domain, self.spec.dns)
            for key in entries:
                if key.stage in ("retiring", "retired"):
                    yield f"dkim/{host(domain)}/{key.selector}"
                if key.stage == "retired" and zone is not None:
                    yield dkim_record(zone, domain, key.selector, key.algorithm, UNKNOWN).address

    def settings(self) -> Iterator[Resource]:
        """Yield the neutral words and, for the generation that has them, the raw keys."""
        server = self.spec.stalwart
        said = server.model_fields_set
        if "hostname" in said:
            yield Setting("hostname", server.hostname and host(server.hostname))
        if "default_domain" in said:
            yield Setting("default_domain", server.default_domain and host(server.default_domain))
        for word in sorted(server.auto_ban.model_fields_set):
            yield Setting(f"auto_ban/{word}", getattr(server.auto_ban, word))
        for entry in server.allowed_ips:
            yield from self.allowed(entry)
        for name, item in server.listeners.items():
            yield Listener(name, item.bind, item.protocol, item.tls_implicit, **item.options)
        if self.generation != "jmap":
            yield from (Setting(f"settings/{key}", value) for key, value in server.settings.items())
        if self.generation != "rest":
            yield from self.objects()

    def objects(self) -> Iterator[Setting]:
        """Yield every declared property of the server's own objects. Those of bootstrap mode are no settings."""
        for name, entries in self.spec.stalwart.objects.items():
            for entry, fields in entries.items() if name != objects.BOOTSTRAP else ():
                for field_name, value in fields.items():
                    resolved = objects.with_secrets(value, partial(resolve, self.spec))
                    yield Setting(objects.word(name, entry, field_name), resolved)

    def allowed(self, entry: str | NetworkEntry) -> Iterator[AllowedIp]:
        """Yield the network an entry names, or the subnets of the compose network it names."""
        if isinstance(entry, str):
            yield AllowedIp(entry)
            return
        if self.observed is None:
            return
        seen = self.observed.get("compose")
        subnets = seen.networks.get(entry.network, ()) if seen else ()
        if not subnets:
            known = ", ".join(sorted(seen.networks)) if seen else ""
            hint = f"the project's networks are: {known}" if known else "write the subnet itself, such as 172.18.0.0/16"
            where = f"stalwart/allowed_ips/{entry.network}"
            self.problems.append(Problem(where, f"the compose project shows no network {entry.network}", hint))
        yield from (AllowedIp(str(ip_network(subnet))) for subnet in subnets)

    # ---------------------------------------------------------------------------------------------------- compose
    def variables(self) -> Iterator[Variable]:
        """Yield every variable of every consumer, its template filled from the provider in use."""
        for service, consumer in self.spec.smtp.consumers.items():
            name = consumer.provider or self.spec.smtp.provider or ""
            provider = self.spec.smtp.providers.get(name)
            entries = consumer.entries(provider)
            needs = any(words.is_filled(entry.value) for entry in entries.values())
            logins = self.logins(service, name, provider) if provider and needs else ()
            for variable, entry in entries.items():
                yield from self.given(service, variable, entry, provider, logins)

    def given(
        self, service: str, name: str, entry: Entry, provider: Provider | None, logins: tuple[Login, ...]
    ) -> Iterator[Variable]:
        """Yield a variable as it should be. While two logins are possible, it is unknown or has two candidates."""
        value = words.choose(entry.value, provider.terms) if provider else entry.value
        assumed = words.choose(entry.assumed, provider.terms) if provider and entry.assumed is not None else None
        make = partial(
            Variable,
            service,
            name,
            clear=self.passwords(value, logins),
            assumed=assumed if isinstance(assumed, str) else None,
            by_tls=words.names_tls(entry.value),
        )
        if isinstance(value, SecretRef):
            ref = resolve(self.spec, value)
            yield make(running=ref, configured=ref)
        elif isinstance(value, Choice):
            return  # `checks` tells that it has no word for this provider
        elif not template.slots(value):
            text = _filled(value, {})
            yield make(running=text, configured=text)
        elif provider is not None and logins:
            texts = list(dict.fromkeys(_filled(value, self.said(provider, login)) for login in logins))
            login = logins[0] if len(logins) == 1 else None
            secrets = tuple(item for item in texts if not isinstance(item, str))
            known = texts[0] if len(texts) == 1 else UNKNOWN
            candidates = secrets if known is UNKNOWN else ()
            yield make(running=known, configured=known, login=login, candidates=candidates)

    def said(self, provider: Provider, login: Login) -> Mapping[str, str | SecretRef]:
        """Return what a template's slots stand for. Without a login, name and password are empty."""
        own = {f"{template.VALUES}{name}": value for name, value in provider.values.items()} | {"from": provider.sender}
        secret = {name: resolve(self.spec, value) for name, value in own.items() if isinstance(value, SecretRef)}
        plain = {name: value for name, value in own.items() if isinstance(value, str)}
        return {
            "host": login.host,
            "port": str(login.port),
            "username": login.username if isinstance(login.username, str | SecretRef) else "",
            "password": login.password or "",
            "tls": login.tls,
            "verify": "true" if login.verify_tls else "false",
            "insecure_tls": "false" if login.verify_tls else "true",
            **secret,
            **plain,
        }

    def passwords(self, value: Value, logins: Iterable[Login]) -> tuple[SecretRef, ...]:
        """Name the accounts' passwords that a value is made of: a consumer can do nothing with a hash."""
        if isinstance(value, SecretRef):
            return (resolve(self.spec, value),) if value.source == "account" else ()
        filled = "password" in words.slots(value)
        return tuple(dict.fromkeys(item.password for item in logins if filled and item.account and item.password))

    def logins(self, service: str, name: str, provider: Provider) -> tuple[Login, ...]:
        """Return the login to use; both possible ones while the server's generation is not known."""
        host, port = provider.door
        tls = provider.terms.tls
        make = partial(Login, host=host, port=port, verify_tls=provider.verify_tls, provider=name, tls=tls)
        if provider.account is None:
            if provider.username is None or provider.password is None:
                return (make(username=None, password=None),)
            named = provider.username
            named = resolve(self.spec, named) if isinstance(named, SecretRef) else named  # a token, at some of them
            return (make(username=named, password=resolve(self.spec, provider.password)),)
        account = self.spec.accounts[provider.account]
        if account.password is None:
            where = f"smtp/{service}"
            hint = f"declare accounts.{provider.account}.password, or give the provider username and password"
            self.problems.append(Problem(where, f"{provider.account} has no declared password", hint, scope=where))
            return ()
        address = _mailbox(provider.account)
        make = partial(make, password=resolve(self.spec, account.password), account=address)
        names = {"rest": account_login(provider.account, account).lower(), "jmap": address}
        if self.generation is None and self.observed is not None and len(set(names.values())) > 1:
            where = f"smtp/{service}"
            unread = "stalwart" in self.observed
            summary = "which login Stalwart wants can't be told" + (", since it could not be read" if unread else "")
            first = "mend that first" if unread else "plan without --target"
            hint = f"{first}, or write targets.stalwart.generation: rest (up to 0.15) or jmap (from 0.16)"
            self.problems.append(Problem(where, summary, hint, scope=where))
        known = [names[self.generation]] if self.generation else sorted(set(names.values()))
        return tuple(make(username=name) for name in known)

    def linked(self) -> Iterator[Variable]:
        """Yield the variables that a link gives a value; a link without one only compares (see the compose target)."""
        for link in self.spec.smtp.links:
            if link.value is None:
                continue
            ref = resolve(self.spec, link.value)
            for service, variable in map(link_end, link.ends):
                yield Variable(service, variable, ref, ref, clear=self.passwords(link.value, ()))


def provider_logins(spec: Spec, name: str, generation: str | None) -> tuple[Login, ...]:
    """Return the login at a provider; both possible ones where the server's generation decides and is not known."""
    seen = {"stalwart": Observation("stalwart", generation=generation)}
    return _Derivation(spec, seen, Facts(), ()).logins("", name, spec.smtp.providers[name])


def resolve(spec: Spec, ref: SecretRef) -> SecretRef:
    """Follow ``{account: ADDRESS}`` to the reference that this account's password is; held, where this one is."""
    account = spec.accounts.get(ref.name) if ref.source == "account" else None
    found = account.password if account is not None and account.password is not None else ref
    return replace(found, held=True) if ref.held else found


def default_domain(spec: Spec) -> str | None:
    """Return the default mail domain: the declared one, else the only one there is."""
    declared = spec.stalwart.default_domain
    if declared:
        return host(declared)
    names = _Derivation(spec, None, Facts(), ()).domains()
    return names[0] if len(names) == 1 else None


def account_login(name: str, account: AccountEntry) -> str:
    """Return what one logs in with up to 0.15: the declared login, or the local part."""
    return account.login or name.partition("@")[0]


def _mailbox(address: str) -> str:
    """Write an address as the server stores it: in lower case, its domain in Punycode, as domains are kept in DNS."""
    local, at, domain = address.rpartition("@")
    return f"{local.lower()}@{host(domain)}" if at else address.lower()


def _mailboxes(entry: AddresseeEntry, name: str) -> tuple[str, ...] | Special:
    """Return the addresses of an entry's list, each once; what is absent is unmanaged, null is none."""
    if name not in entry.model_fields_set:
        return UNMANAGED
    return tuple(dict.fromkeys(map(_mailbox, getattr(entry, name) or ())))


def _description(entry: AddresseeEntry | DomainEntry) -> str | Special | None:
    return (entry.description or None) if "description" in entry.model_fields_set else UNMANAGED


def canonical(text: str) -> str:
    """Write the address of something on the mail server as its resource has it."""
    address = Address.parse(text)
    if address.kind not in ADDRESSES or not address.parts:
        return text
    first, *more = address.parts
    more = list(map(str.lower, more)) if address.kind == Signature.kind else more
    stored = host if address.kind in (Domain.kind, Signature.kind) else _mailbox
    try:
        return str(replace(address, parts=(stored(first), *more)))
    except ValueError:
        return text  # no name that the server could have


_AGREE = "wait until they agree; a line with two ways out needs its own router's word: RECONCILER_ROUTER"


def _at(item: Record, address: str) -> Record:
    """Fill in the line's address, if there is one."""
    if not address:
        return item
    made = record(item.zone, item.type, f"{item.host}.", filled(item.follows, address))
    return replace(item, content=made.content)


def _record(zone: str, entry: RecordEntry) -> Record:
    said, template = entry.model_fields_set, entry.template
    moving = template if follows(template) else ""
    made = record(
        zone,
        entry.type,
        entry.name,
        UNKNOWN if moving else filled(template, "") or entry.content,
        ttl=entry.ttl,
        proxied=entry.proxied,
        priority=entry.priority,
        data=entry.data,
        comment=entry.comment if "comment" in said else UNMANAGED,
    )
    return replace(made, follows=moving) if moving else made


def _filled(text: str, said: Mapping[str, str | SecretRef]) -> str | Secret:
    """Fill a template; the result is secret as a whole when a secret is in it."""
    parts = [part if isinstance(part, str) else _slot(part, said[part.name]) for part in template.split(text)]
    if all(isinstance(part, str) for part in parts):
        return "".join(str(part) for part in parts)
    if len(parts) == 1 and isinstance(parts[0], SecretPart) and not parts[0].escape:
        return parts[0].ref
    return SecretText(tuple(parts))


def _slot(slot: template.Slot, value: str | SecretRef) -> str | SecretPart:
    if isinstance(value, SecretRef):
        return SecretPart(value, slot.escape)
    return template.escaped(value, slot.escape)


def _mending(half: Problem, domain: str) -> str:
    """Say what to do about a private key that can't be read, also where nothing brings it back."""
    return f"{half.hint}; if it is gone for good: reconciler dkim rotate {domain}"


def _unreadable_half(address: str, key: Key, half: Problem, domain: str, seen: Observation) -> Iterator[Problem]:
    """Say it once what it stops: a server that holds the key goes on, and another one can't be given it."""
    found = (live.resource for live in seen.live if live.resource.address == address)
    held = any(isinstance(it, Signature) and it.public_key in (key.public_key, UNMANAGED) for it in found)
    if held or key.stage != "active" or not seen.complete:
        summary = f"{half.summary}: a server that loses this key can't get it back"
        yield Problem(address, summary, _mending(half, domain), Severity.WARNING)
    else:
        yield Problem(address, half.summary, _mending(half, domain), scope=address)
