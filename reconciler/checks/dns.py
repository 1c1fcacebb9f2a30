"""Whether receivers find, reach and believe us: by what every authoritative name server and public resolvers show."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from reconciler import keys
from reconciler.checks.check import Check, Remedy, Status, Unread, Verdict, error, ok, skip, unknown, warn, worst
from reconciler.checks.evidence import Evidence, Names
from reconciler.dns import text
from reconciler.dns.policies import dmarc
from reconciler.dns.publication import Answer, Question, publication, question
from reconciler.dns.records import policy
from reconciler.resources import Record

# The networks in which a proxied name of Cloudflare resolves (cloudflare.com/ips, as of 2026-11): nothing there takes
# mail, and nothing of ours leaves from there.
PROXIES = tuple(
    map(
        ipaddress.ip_network,
        (
            "173.245.48.0/20",
            "103.21.244.0/22",
            "103.22.200.0/22",
            "103.31.4.0/22",
            "141.101.64.0/18",
            "108.162.192.0/18",
            "190.93.240.0/20",
            "188.114.96.0/20",
            "197.234.240.0/22",
            "198.41.128.0/17",
            "162.158.0.0/15",
            "104.16.0.0/13",
            "104.24.0.0/14",
            "172.64.0.0/13",
            "131.0.72.0/22",
        ),
    )
)
ROUTING = ".mx.cloudflare.net"
"""How the hosts end that Cloudflare's Email Routing puts into MX."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What one question showed: the values of every name server that answered, and who could not be asked."""

    values: tuple[tuple[str, tuple[str, ...]], ...]  # server, values
    unread: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Every value that any of them shows, once."""
        return tuple(dict.fromkeys(value for _, values in self.values for value in values))


def names(evidence: Evidence) -> Names | Unread | None:
    """Take what DNS shows."""
    return evidence.names


def shown(found: Names, host: str, type: str) -> Shown:
    """Return what the authoritative name servers show at a name."""
    answers: tuple[Answer, ...] = found.answers.get(Question(host, type), ())
    return Shown(
        tuple((item.server, item.values) for item in answers if not item.unread),
        tuple(f"{item.server}: {item.unread}" for item in answers if item.unread),
    )


def each(judge: Callable[[Names, str], Verdict], fine: str) -> Callable[[Names], Verdict]:
    """Judge every domain by itself; the worst speaks."""

    def judged(found: Names) -> Verdict:
        return worst([judge(found, domain) for domain in found.domains], fine)

    return judged


def unanswered(host: str, type: str, seen: Shown) -> Verdict | None:
    """Say that nobody could be asked, where that is so."""
    if seen.values:
        return None
    return unknown(f"no name server could be asked for {type} of {host}", *seen.unread)


# -------------------------------------------------------------------------------------------------- who is asked at all
def _answering(found: Names) -> Verdict:
    ours = [answers for asked, answers in found.answers.items() if _is_within(asked.host, found.domains)]
    silent = {item.server: item.unread for answers in ours for item in answers if item.unread}
    heard = {item.server for answers in ours for item in answers if not item.unread}
    lines = [f"{server}: {why}" for server, why in sorted(silent.items())]
    if not heard:
        return error(
            "no authoritative name server answers", *lines, cause="the zone is not delegated, or DNS is blocked"
        )
    if silent:
        return warn(f"{len(silent)} of {len(silent) + len(heard - silent.keys())} name servers did not answer", *lines)
    return ok(f"{len(heard)} authoritative name servers answer", *sorted(heard))


def _is_within(host: str, domains: Iterable[str]) -> bool:
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)


def _agreement(found: Names) -> Verdict:
    apart, heard = list[str](), False
    for asked, answers in sorted(found.answers.items()):
        if not _is_within(asked.host, found.domains):
            continue
        views = {item.server: frozenset(item.values) for item in answers if not item.unread}
        heard = heard or bool(views)
        if len(set(views.values())) > 1:
            apart.append(
                f"{asked.type} {asked.host}: " + "; ".join(f"{who} shows {len(it)}" for who, it in views.items())
            )
    if not heard:
        return unknown("no name server could be asked")
    if not apart:
        return ok("every name server of a zone shows the same")
    said = f"the name servers differ about {len(apart)} name{'s' if len(apart) > 1 else ''}"
    return warn(said, *apart, cause="a change is on its way, or one of them no longer gets the zone")


def _resolvers(found: Names) -> Verdict:
    if not any(found.resolvers.values()):
        return skip("no public resolver is asked")
    late, unread = list[str](), list[str]()
    for resolver, answers in found.resolvers.items():
        for asked, said in answers.items():
            there = frozenset(shown(found, asked.host, asked.type).all)
            unread += [f"{resolver}: {item.unread}" for item in said if item.unread]
            late += [
                f"{resolver} still shows another {asked.type} of {asked.host}"
                for item in said
                if not item.unread and there and frozenset(item.values) != there
            ]
    if late:
        cause = "they keep an old answer for as long as its TTL said; new mail is judged by it until then"
        return warn(late[0], *late[1:], cause=cause, remedy=Remedy("wait for the old TTL to pass; look again then"))
    if unread:
        return unknown("a public resolver could not be asked", *dict.fromkeys(unread))
    return ok(f"{' and '.join(found.resolvers)} show what the zone holds")


def _published(found: Names) -> Verdict:
    verdicts = []
    for item in found.declared:
        if policy(item) is text.DKIM:  # its own check
            continue
        told = publication(item, found.answers)
        if told.everywhere:
            verdicts.append(ok(""))
        elif told.missing:
            verdicts.append(error(f"{item.address}: {told.words}", remedy=_apply(item)))
        else:
            verdicts.append(unknown(f"{item.address}: {told.words}"))
    return worst(verdicts, "every record for mail that is declared is shown by every name server")


def _apply(item: Record) -> Remedy:
    return Remedy("apply, or wait until the name servers have it", "reconciler apply", item.address)


# ------------------------------------------------------------------------------------------------------- mail to us
def _mx(found: Names, domain: str) -> Verdict:
    seen = shown(found, domain, "MX")
    if verdict := unanswered(domain, "MX", seen):
        return verdict
    hosts = _hosts(seen)
    if not hosts:
        return error(f"{domain} has no MX: mail goes to its A record, or nowhere", remedy=_want(found, domain, "MX"))
    if "." in hosts:
        alone = len(hosts) == 1
        said = f"{domain} says that it takes no mail (null MX)" if alone else f"{domain} has a null MX beside others"
        return error(said, remedy=_want(found, domain, "MX"))
    literal = [host for host in hosts if re.fullmatch(r"[0-9.]+|.*:.*", host)]
    if literal:
        return error(f"the MX of {domain} is the address {literal[0]}, where a name has to stand (RFC 1035 3.3.9)")
    if found.host and found.host not in hosts and not all(host.endswith(ROUTING) for host in hosts):
        said = f"the MX of {domain} leads to {', '.join(hosts)}, and not to {found.host}"
        return warn(said, remedy=_want(found, domain, "MX"))
    return ok(f"mail for {domain} goes to {', '.join(hosts)}")


def _want(found: Names, domain: str, type: str) -> Remedy:
    """Apply the declared record; where none is, say which to declare."""
    for item in found.declared:
        if item.host == domain and item.type == type:
            return _apply(item)
    text = {"MX": f'declare `{{type: MX, name: "@", content: {found.host or "MAIL.HOST"}, priority: 10}}`'}
    return Remedy(text.get(type, f"declare the {type} record of {domain}"))


def exchanges(found: Names, domain: str) -> tuple[str, ...]:
    """Name the hosts to which the MX of a domain lead, the first choice first."""
    return tuple(item for item in _hosts(shown(found, domain, "MX")) if item != "." and not item.endswith(ROUTING))


def _hosts(seen: Shown) -> tuple[str, ...]:
    """Name where MX lead, the first choice first."""
    pairs = (value.partition(" ") for value in seen.all)
    ranked = sorted((int(number) if number.isdigit() else 0, host.rstrip(".") or ".") for number, _, host in pairs)
    return tuple(dict.fromkeys(host for _, host in ranked))


def _routing(found: Names, domain: str) -> Verdict:
    seen = shown(found, domain, "MX")
    if verdict := unanswered(domain, "MX", seen):
        return verdict
    theirs = [host for host in _hosts(seen) if host.endswith(ROUTING)]
    if not theirs:
        return ok(f"{domain}: Cloudflare's Email Routing is off")
    text = "switch Email Routing off in Cloudflare's dashboard (it locks MX and SPF), then apply"
    return error(f"mail for {domain} goes to Cloudflare's Email Routing ({theirs[0]})", remedy=Remedy(text))


def _targets(found: Names, domain: str) -> Verdict:
    """Every host of an MX has an address of its own, and is no alias (RFC 2181 section 10.3)."""
    hosts = [host for host in _hosts(shown(found, domain, "MX")) if host != "."]
    verdicts = []
    for host in hosts:
        if found.answers.get(Question(host, "A")) is None:
            continue  # another's
        alias = [item.alias for item in found.answers.get(Question(host, "A"), ()) if item.alias]
        addresses = _addresses(found, host)
        seen = shown(found, host, "A")
        if not seen.values:
            verdicts.append(unknown(f"the address of {host} could not be asked for", *seen.unread))
        elif alias:
            said = f"{host}, to which the MX of {domain} leads, is an alias of {alias[0]} (RFC 2181 section 10.3)"
            verdicts.append(warn(said, remedy=Remedy(f"give {host} an A record of its own, in place of the CNAME")))
        elif not addresses:
            verdicts.append(error(f"{host}, to which the MX of {domain} leads, has no address"))
        else:
            verdicts.append(ok(f"{host} is {', '.join(addresses)}"))
    return worst(verdicts, "every host of an MX has an address") if verdicts else skip(f"{domain} has no MX to judge")


def _addresses(found: Names, host: str) -> tuple[str, ...]:
    return (*shown(found, host, "A").all, *shown(found, host, "AAAA").all)


def _proxied(found: Names, domain: str) -> Verdict:
    verdicts = []
    for host in _hosts(shown(found, domain, "MX")):
        inside = [address for address in _addresses(found, host) if is_proxy(address)]
        if inside:
            said = f"{host} resolves to Cloudflare's proxy ({inside[0]}), which takes no mail"
            verdicts.append(error(said, remedy=Remedy(f"write `proxied: false` at the A record of {host}, and apply")))
        else:
            verdicts.append(ok(f"{host} is not proxied"))
    return worst(verdicts, "no host of an MX is behind a proxy")


def is_proxy(address: str) -> bool:
    """Whether an address is one of Cloudflare's proxies."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found.version == network.version and found in network for network in PROXIES)


# --------------------------------------------------------------------------------------------------------- our address
def _address(found: Names) -> Verdict:
    if not found.host:
        return skip("stalwart.hostname is not declared")
    seen = shown(found, found.host, "A")
    if verdict := unanswered(found.host, "A", seen):
        return verdict
    if found.line.useless:
        said = f"nobody outside can reach this line: {found.line.why or found.line.address}"
        return error(said, cause="the provider shares one address between customers (CGNAT)")
    if not found.line.address:
        return unaddressed(found)
    addresses = seen.all
    if found.line.address in addresses:
        return ok(f"{found.host} is {found.line.address}, which is this line's address")
    said = f"{found.host} is {', '.join(addresses) or 'nothing'}, and this line has {found.line.address}"
    text = f"write `content: {{public_ip: true}}` at the A record of {found.host}, so that the daemon follows the line"
    return error(said, cause="the line got another address", remedy=Remedy(text))


_LINE = "name who knows it: RECONCILER_ROUTER=URL, or RECONCILER_WHOAMI, as docs/daemon.md shows"


def unaddressed(found: Names) -> Verdict:
    """Say that the address which mail leaves from is not known; nothing is, where nobody was asked."""
    if not (found.line.address or found.line.why):
        return skip("nobody is asked which address mail leaves from, where name servers are given")
    said = f"which address mail leaves from is not known: {found.line.why or found.line.address}"
    return Verdict(Status.UNKNOWN, said, remedy=Remedy(_LINE))


def _ptr(found: Names) -> Verdict:
    address = found.line.address
    if not address or found.line.useless:
        return unaddressed(found)
    reverse = ipaddress.ip_address(address).reverse_pointer
    seen = shown(found, reverse, "PTR")
    if not seen.values:
        return unknown(f"the name of {address} could not be asked for", *seen.unread)
    hosts = tuple(value.rstrip(".") for value in seen.all)
    text = (
        f"ask the provider of the line to let the PTR of {address} lead to {found.host or 'the mail host'}; else relay"
    )
    if not hosts:
        said = f"{address} has no name (PTR): Google, Microsoft and others refuse its mail"
        return error(said, remedy=Remedy(text))
    back = [host for host in hosts if address in _addresses(found, host)]
    if not back:
        said = f"{address} is called {hosts[0]}, and that name does not lead back to it"
        return error(said, cause="the PTR is the provider's generic one, or its A record is gone", remedy=Remedy(text))
    if found.host and found.host not in back:
        return warn(f"{address} is called {back[0]}, and the server calls itself {found.host}", remedy=Remedy(text))
    return ok(f"{address} is called {back[0]}, which leads back to it")


# ------------------------------------------------------------------------------------------------------------ DKIM
def _dkim(found: Names) -> Verdict:
    verdicts = []
    for item in found.declared:
        if policy(item) is not text.DKIM:
            continue
        told = publication(item, found.answers)
        if told.everywhere:
            verdicts.append(ok(f"{item.host} is published"))
        elif told.missing:
            verdicts.append(_key_differs(found, item, told.words))
        else:
            verdicts.append(unknown(f"{item.address}: {told.words}"))
    return worst(verdicts, "every declared key is shown by every name server")


def _key_differs(found: Names, item: Record, words: str) -> Verdict:
    values = shown(found, *_asked(item)).all
    if not values:
        return error(f"the key at {item.host} is not published: {words}", remedy=_apply(item))
    if len(values) > 1:
        said = f"{len(values)} keys stand at {item.host}: which of them counts is undefined (RFC 6376 3.6.2.2)"
        return error(said, remedy=Remedy("remove the foreign one", "reconciler apply", item.address))
    read = keys.read(values[0])
    if not read.sound:
        return error(f"what stands at {item.host} is no key", remedy=_apply(item))
    if not read.tag("p"):
        return error(f"the key at {item.host} is revoked (p= is empty)", remedy=_apply(item))
    if "y" in read.words("t"):
        said = f"the key at {item.host} is marked as a test (t=y): receivers treat its mail as unsigned"
        return warn(said, remedy=_apply(item))
    return error(
        f"the key at {item.host} is another than the server signs with", *_both(values[0], item), remedy=_apply(item)
    )


def _asked(item: Record) -> tuple[str, str]:
    asked = question(item)
    return asked.host, asked.type


def _both(value: str, item: Record) -> tuple[str, ...]:
    wanted = keys.read(str(item.content)).tag("p") if isinstance(item.content, str) else ""
    return (f"shown: p={keys.read(value).tag('p')[:24]}...", f"declared: p={wanted[:24]}...")


def _signed(found: Names, domain: str) -> Verdict:
    if found.keyed is None:
        return unknown("which keys the server has could not be read")
    if domain in found.keyed:
        return ok(f"mail from {domain} is signed")
    text = f"reconciler dkim generate {domain}"
    return warn(f"no key signs mail from {domain}", remedy=Remedy("make keys and declare them", text))


def _rsa(found: Names, domain: str) -> Verdict:
    records = [
        item for item in found.declared if policy(item) is text.DKIM and item.host.endswith(f"._domainkey.{domain}")
    ]
    known = [keys.read(item.content) for item in records if isinstance(item.content, str)]
    if not known:
        return skip(f"no key of {domain} is known")
    algorithms = {read.tag("k") or "rsa" for read in known}
    if algorithms == {"ed25519"}:
        said = f"mail from {domain} is signed with Ed25519 alone: Microsoft and Yahoo can't verify it"
        return warn(said, remedy=Remedy("add an RSA key", f"reconciler dkim generate {domain} --algorithm rsa"))
    return ok(f"{domain}: {', '.join(sorted(algorithms))}")


# ------------------------------------------------------------------------------------------------------------ DMARC
def policies(found: Names, host: str, wanted: text.MailPolicy) -> tuple[Shown, tuple[str, ...]]:
    """Return the texts of one kind that stand at a name."""
    seen = shown(found, host, "TXT")
    return seen, tuple(value for value in seen.all if text.policy("@", value) is wanted)


DMARC = next(item for item in text.POLICIES if item.label == "DMARC")


def _dmarc(found: Names, domain: str) -> Verdict:
    host = f"_dmarc.{domain}"
    seen, texts = policies(found, host, DMARC)
    if verdict := unanswered(host, "TXT", seen):
        return verdict
    declare = Remedy(
        f'declare `{{type: TXT, name: _dmarc, content: "v=DMARC1; p=quarantine; rua=mailto:postmaster@{domain}"}}`'
    )
    if not texts:
        others = [value for value in seen.all if "dmarc" in value.lower()]
        if others:
            return error(f"what stands at {host} is no DMARC policy", *others[:1], remedy=declare)
        return error(f"{domain} has no DMARC policy: Google and Yahoo refuse bulk mail without one", remedy=declare)
    if len(texts) > 1:
        return error(f"{host} has {len(texts)} DMARC policies: receivers take that for none (RFC 9989)")
    read = _parsed(texts[0], host)
    broken = [fault for fault in read.faults if fault.breaks]
    if read.value is None or broken:
        named = [f"{fault.piece}: {fault.cause}" if fault.piece else fault.cause for fault in broken]
        return error(f"the DMARC policy of {domain} is not understood: {texts[0]}", *named, remedy=declare)
    return ok(f"{domain}: {texts[0]}")


_parsed = functools.lru_cache(maxsize=256)(dmarc.parse)
"""A policy's text is read once, however many checks ask about it."""


def dmarc_policy(found: Names, domain: str) -> dmarc.Dmarc | None:
    """Return the policy of a domain; None where receivers take what there is for none."""
    host = f"_dmarc.{domain}"
    texts = policies(found, host, DMARC)[1]
    return _parsed(texts[0], host).value if len(texts) == 1 else None


def _dmarc_strict(found: Names, domain: str) -> Verdict:
    read = dmarc_policy(found, domain)
    if read is None:
        return skip(f"{domain} has no DMARC policy to judge")
    if read.p == "none":
        said = f"the DMARC policy of {domain} is p=none: anybody may send in its name"
        return warn(said, remedy=Remedy("read the reports for some weeks, then write p=quarantine"))
    if read.testing:
        return warn(f"the DMARC policy of {domain} is only being tested (t=y)", remedy=Remedy("take t=y out of it"))
    return ok(f"{domain}: p={read.p}")


def _reports(found: Names, domain: str) -> Verdict:
    read = dmarc_policy(found, domain)
    if read is None:
        return skip(f"{domain} has no DMARC policy to judge")
    targets = read.rua
    if not targets:
        remedy = Remedy(f"add `rua=mailto:postmaster@{domain}` to it")
        return warn(f"nobody gets DMARC reports of {domain}", remedy=remedy)
    return worst(_receives(found, domain, targets), f"the DMARC reports of {domain} go to {', '.join(targets)}")


def _receives(found: Names, domain: str, targets: Iterable[str]) -> Iterator[Verdict]:
    for target in targets:
        scheme, _, rest = target.partition(":")
        address = rest.partition("!")[0].lower()
        if scheme.lower() != "mailto" or "@" not in address:
            yield error(
                f"{target} of the DMARC policy of {domain} is no address to report to",
                remedy=Remedy("write mailto:NAME@HOST"),
            )
            continue
        host = address.rpartition("@")[2]
        if host in found.domains:
            if found.mailboxes and address not in found.mailboxes:
                said = f"DMARC reports of {domain} go to {address}, which does not exist"
                yield error(said, remedy=Remedy(f"declare {address} as an alias of an account, and apply"))
            else:
                yield ok(f"{address} exists")
            continue
        yield _authorised(found, domain, host)


def authorisations(found: Names, domain: str) -> Iterator[str]:
    """Yield the names at which other domains agree to get the DMARC reports of a domain."""
    host = f"_dmarc.{domain}"
    for value in policies(found, host, DMARC)[1]:
        read = _parsed(value, host).value
        for target in read.rua if read else ():
            other = target.partition("!")[0].rpartition("@")[2].strip().lower().rstrip(".")
            if re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+", other) and other not in found.domains:
                yield _agreed_at(domain, other)


def _agreed_at(domain: str, other: str) -> str:
    return f"{domain}._report._dmarc.{other}"


def _authorised(found: Names, domain: str, host: str) -> Verdict:
    """Another domain has to agree to get our reports (RFC 9990 section 4)."""
    place = _agreed_at(domain, host)
    seen, texts = policies(found, place, DMARC)
    if verdict := unanswered(place, "TXT", seen):
        return verdict
    if texts:
        return ok(f"{host} takes the reports of {domain}")
    said = f"{host} has not agreed to get the DMARC reports of {domain}: nobody sends them"
    return error(said, remedy=Remedy(f'{host} has to publish TXT {place} "v=DMARC1", or take an address of your own'))


# ------------------------------------------------------------------------------------------------------- mailboxes
def _postmaster(found: Names, domain: str) -> Verdict:
    if not found.mailboxes:
        return skip("which addresses exist is not known")
    missing = [f"{name}@{domain}" for name in ("postmaster", "abuse") if f"{name}@{domain}" not in found.mailboxes]
    if missing:
        said = f"{' and '.join(missing)} {'do' if len(missing) > 1 else 'does'} not exist: others complain there"
        return warn(said, remedy=Remedy(f"declare {missing[0]} as an alias of an account, and apply"))
    return ok(f"postmaster and abuse of {domain} exist")


CHECKS = (
    Check(
        "dns/name-servers",
        "the domain resolves for some, and not for others",
        "name servers of the zone do not answer",
        "see the zone's delegation at the registrar",
        "RFC 1034",
        names,
        _answering,
    ),
    Check(
        "dns/agreement",
        "mail is judged otherwise from one receiver to the next",
        "the zone's name servers show different records",
        "wait, then look again",
        "RFC 1034",
        names,
        _agreement,
    ),
    Check(
        "dns/resolvers",
        "a record was changed, and others still see the old one",
        "public resolvers keep the old answer until its TTL ends",
        "wait",
        "RFC 1035",
        names,
        _resolvers,
    ),
    Check(
        "dns/published",
        "a declared record has no effect",
        "not every name server shows it",
        "apply",
        "RFC 1034",
        names,
        _published,
    ),
    Check(
        "dns/mx",
        "mail from outside does not arrive",
        "the domain has no MX, or one that leads elsewhere",
        "declare the MX and apply",
        "RFC 5321 section 5.1",
        names,
        each(_mx, "the MX of every domain leads to us"),
    ),
    Check(
        "dns/email-routing",
        "mail from outside does not arrive, and the MX can't be changed",
        "Cloudflare's Email Routing is on",
        "switch it off",
        "Cloudflare, Email Routing",
        names,
        each(_routing, "Cloudflare's Email Routing is off"),
    ),
    Check(
        "dns/mx-target",
        "some servers refuse to deliver to us",
        "the host of the MX is an alias, or has no address",
        "give it an A record of its own",
        "RFC 2181 section 10.3",
        names,
        each(_targets, "every host of an MX has an address of its own"),
    ),
    Check(
        "dns/proxied",
        "connection timed out at port 25",
        "the mail host is behind Cloudflare's proxy, which carries HTTP alone",
        "proxied: false",
        "Cloudflare, proxied records",
        names,
        each(_proxied, "no host of an MX is behind a proxy"),
    ),
    Check(
        "dns/address",
        "mail stopped arriving since the router was restarted",
        "the A record is not the line's address any more",
        "let the record follow the line",
        "docs/daemon.md#a-home-line",
        names,
        _address,
    ),
    Check(
        "dns/ptr",
        "550 5.7.25: no PTR record",
        "the address has no name that leads back to it",
        "ask the provider of the line, or relay",
        "RFC 1912 section 2.1",
        names,
        _ptr,
    ),
    Check(
        "dns/dkim",
        "550 5.7.26, dkim=fail or dkim=none",
        "the published key is missing, or another than the server signs with",
        "apply",
        "RFC 6376",
        names,
        _dkim,
    ),
    Check(
        "dns/dkim-signed",
        "mail is unsigned",
        "the domain has no key",
        "make one",
        "RFC 6376",
        names,
        each(_signed, "mail from every domain is signed"),
    ),
    Check(
        "dns/dkim-algorithms",
        "dkim=fail at Microsoft and Yahoo alone",
        "mail is signed with Ed25519 alone",
        "add an RSA key",
        "RFC 8463",
        names,
        each(_rsa, "keys are of kinds that receivers verify"),
    ),
    Check(
        "dns/dmarc",
        "550 5.7.26: no DMARC policy",
        "the policy is missing, stands twice, or is not understood",
        "declare one",
        "RFC 9989",
        names,
        each(_dmarc, "every domain has a DMARC policy"),
    ),
    Check(
        "dns/dmarc-policy",
        "others send in our name",
        "p=none only watches",
        "p=quarantine",
        "RFC 9989",
        names,
        each(_dmarc_strict, "every DMARC policy is enforced"),
    ),
    Check(
        "dns/dmarc-reports",
        "no report ever comes",
        "the address of the reports does not exist, or its domain has not agreed",
        "correct rua",
        "RFC 9990",
        names,
        each(_reports, "DMARC reports go to somebody"),
    ),
    Check(
        "dns/postmaster",
        "complaints never arrive",
        "postmaster or abuse does not exist",
        "declare the aliases",
        "RFC 2142, RFC 5321 section 4.5.1",
        names,
        each(_postmaster, "postmaster and abuse exist everywhere"),
    ),
)
