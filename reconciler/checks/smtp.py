"""Whether the mail server takes mail from the services: by what it said in one conversation as each of them has it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from reconciler import url
from reconciler.checks.check import Check, Remedy, Unread, Verdict, error, ok, skip, unknown, warn, worst
from reconciler.checks.evidence import Ban, Blocked, Certificate, Conversation, Evidence

_EVENT = re.compile(r"\((?P<event>security\.[a-z-]*ban(?:ned)?|security\.ip-blocked)\)(?P<rest>.*)")
_ADDRESS = re.compile(r'\b(?:remoteIp|ip)\s*=\s*"?(?P<ip>[0-9a-fA-F.:]+)')
_REASON = re.compile(r'\breason\s*=\s*"(?P<reason>[^"]{1,120})"')


@dataclass(frozen=True, slots=True)
class Talk:
    """What a check of this room looks at: a conversation, bans by the server's log and by its API, and when it is."""

    item: Conversation
    bans: tuple[Ban, ...] | Unread
    blocked: tuple[Blocked, ...] | Unread | None
    now: datetime
    soon: timedelta
    host: str
    generation: str


def talks(evidence: Evidence) -> tuple[Talk, ...] | Unread | None:
    """Take the conversations."""
    if evidence.conversations is None or isinstance(evidence.conversations, Unread):
        return evidence.conversations
    container, names = evidence.container, evidence.names
    log = container.log if container is not None and not isinstance(container, Unread) else Unread("no log")
    found = log if isinstance(log, Unread) else bans(log)
    host = names.host if names is not None and not isinstance(names, Unread) else ""
    return tuple(
        Talk(item, found, evidence.blocked, evidence.now, evidence.soon, host, evidence.generation)
        for item in evidence.conversations
    )


def bans(lines: tuple[str, ...]) -> tuple[Ban, ...]:
    """Read which addresses the server does not talk to, and why, out of its log; the last word on each address."""
    found: dict[str, Ban] = {}
    for line in lines:
        event = _EVENT.search(line)
        if event is None:
            continue
        ip, reason = _ADDRESS.search(event["rest"]), _REASON.search(event["rest"])
        ban = Ban(event["event"], ip["ip"] if ip else "", reason["reason"] if reason else "")
        before = found.get(ban.address)
        # What banned it says more than that it is banned.
        if before is None or ban.event != "security.ip-blocked":
            found[ban.address] = ban
    return tuple(found.values())


def _each(judge: Callable[[Talk], Verdict], fine: str) -> Callable[[tuple[Talk, ...]], Verdict]:
    """Judge every conversation by itself; the worst speaks."""

    def judged(found: tuple[Talk, ...]) -> Verdict:
        return worst(map(judge, found), fine)

    return judged


def _of(item: Conversation) -> str:
    return f"{item.where}{f' (for {_listed(item.services)})' if item.services else ''}"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def _reachable(talk: Talk) -> Verdict:
    item = talk.item
    if item.closed:
        text = "start the mail server; see whether a listener is declared for this port, and whether it is published"
        return error(f"nobody answers at {_of(item)}: {item.closed}", remedy=Remedy(text))
    return ok(f"{_of(item)} takes connections", item.door)


def _banned(talk: Talk) -> Verdict:
    item = talk.item
    if item.closed:
        return unknown(f"{item.where} takes no connection")
    if item.banner:
        return ok(f"{item.where} greets: {item.banner}")
    if item.later:
        said = f"{item.where} ended a connection without a word, and greeted the next one: its rate limit"
        return warn(
            said, cause="more than 5 connections a second from one address", remedy=Remedy("connect more slowly")
        )
    known = () if isinstance(talk.bans, Unread) else talk.bans
    seen = tuple(f"log: {ban.event} {ban.address} {ban.reason}".rstrip() for ban in known)
    why = next((_WHY[ban.event] for ban in known if ban.event in _WHY), "")
    return error(
        f"{_of(item)} ends every connection without a greeting: it has banned the address",
        *seen,
        cause=why or "the server counts the address as an attacker; its log says since when",
        remedy=Remedy(_UNBAN[talk.generation]),
    )


_WHY = {
    "security.scan-ban": (
        "a client spoke TLS at once on the port for STARTTLS (or another protocol): thirty times is a scan"
    ),
    "security.authentication-ban": "a client tried a wrong password too often",
    "security.abuse-ban": "a client asked for too many unknown recipients, or was cut off too often",
    "security.loiter-ban": "a client opened connections and said nothing",
}
_UNBAN = {
    "rest": (
        "move the service to port 465, or declare its network under stalwart.allowed_ips and apply; then lift the ban: "
        'POST /api/settings [{"type":"delete","keys":["server.blocked-ip.ADDRESS"]}] and GET '
        "/api/reload/server.blocked-ip; a restart does not lift it"
    ),
    "jmap": (
        "move the service to port 465, or declare its network under stalwart.allowed_ips and apply; then lift the ban: "
        "x:BlockedIp/query for the address, x:BlockedIp/set that destroys it, x:Action/set with ReloadBlockedIps; "
        "where the next connection is ended, too, restart the container"
    ),
}


def _named(talk: Talk) -> Verdict:
    item = talk.item
    if not item.name:
        return unknown(f"{item.where} said no name")
    if not talk.host or not _is_own(item):
        return skip(f"{item.where} calls itself {item.name}")
    if item.name.lower().rstrip(".") == talk.host:
        return ok(f"the server calls itself {item.name}")
    say = warn if "." in item.name else error
    said = f"the server calls itself {item.name}, and stalwart.hostname is {talk.host}"
    return say(
        said,
        remedy=Remedy("apply; from 0.16 the name is in force after a restart", "reconciler apply", "stalwart/hostname"),
    )


def _is_own(item: Conversation) -> bool:
    """Whether it is our own server: a provider's has a name of its own."""
    return bool(item.account)


def _starttls(talk: Talk) -> Verdict:
    item = talk.item
    if not item.name:
        return unknown(f"{item.where} said nothing that could be judged")
    if item.mode == "none":
        return skip(f"{item.where}: the directory asks for no TLS")
    if item.mode == "implicit" or item.starttls:
        return ok(f"{item.where} offers {'TLS' if item.mode == 'implicit' else 'STARTTLS'}")
    text = "give the listener `tls_implicit: true` and declare port 465, or give the server a certificate"
    return error(f"{_of(item)} offers no STARTTLS: a password would go in clear", remedy=Remedy(text))


def _tls(talk: Talk) -> Verdict:
    item = talk.item
    if item.tls:
        return ok(f"{item.where}: {item.tls}")
    if item.mode == "none":
        return skip(f"{item.where}: the directory asks for no TLS")
    if not item.tls_failure:
        return unknown(f"{item.where}: no TLS was begun")
    text = "465 begins with TLS, 587 with STARTTLS: does the declared port fit its listener?"
    return error(f"{_of(item)}: TLS fails: {item.tls_failure}", remedy=Remedy(text))


def _certificate(talk: Talk) -> Verdict:
    item, shown = talk.item, talk.item.certificate
    if item.mode == "none":
        return skip(f"{item.where}: the directory asks for no TLS")
    if shown is None:
        return unknown(f"{item.where} showed no certificate")
    return _ended(talk, shown) or _trusted(item, shown)


def _ended(talk: Talk, shown: Certificate) -> Verdict | None:
    """Say that a certificate has ended, or will soon."""
    item, day = talk.item, f"{shown.expires:%Y-%m-%d}"
    renew = Remedy("let the server get one by ACME, or give it one; then restart it")
    if shown.expires <= talk.now:
        say = error if item.verified else warn
        return say(f"{_of(item)}: the certificate ended on {day}", _shown(shown), remedy=renew)
    if shown.expires <= talk.now + talk.soon and not shown.refused:
        return warn(f"{_of(item)}: the certificate ends on {day}", _shown(shown), remedy=renew)
    return None


def _trusted(item: Conversation, shown: Certificate) -> Verdict:
    if shown.refused:
        text = "give the server a certificate for this name, or set verify_tls: false for the provider"
        said = f"{_of(item)}: the certificate is not trusted: {shown.refused}"
        return error(said, _shown(shown), remedy=Remedy(text))
    if not item.verified:
        return ok(f"{item.where}: {_shown(shown)}; the service does not look at it")
    return ok(f"{item.where}: {_shown(shown)}")


def _shown(shown: Certificate) -> str:
    return f"it is for {', '.join(shown.names) or 'no name'}, until {shown.expires:%Y-%m-%d}"


def _mechanisms(talk: Talk) -> Verdict:
    item = talk.item
    if item.anonymous:
        return skip(f"{item.where} is used without a login")
    if not item.tls and item.mode != "none":
        return unknown(f"{item.where}: no TLS was begun")
    if {"PLAIN", "LOGIN"} & set(item.mechanisms):
        return ok(f"{item.where} offers {_listed(item.mechanisms)}")
    offered = f"only {_listed(item.mechanisms)}" if item.mechanisms else "no AUTH"
    return error(f"{_of(item)} offers {offered}: nobody can log in there", remedy=Remedy("is it the submission port?"))


def _login(talk: Talk) -> Verdict:
    item = talk.item
    if item.anonymous:
        return skip(f"{item.where} is used without a login")
    if item.login is None:
        return unknown(f"{item.where}: {item.untried or 'no login was tried'}")
    code, text = item.login
    said = f"{code} {text}"
    if code == 235:  # noqa: PLR2004 (RFC 4954)
        return ok(f"{item.where} takes the login of {_listed(item.services) or item.account}")
    if 400 <= code < 500:  # noqa: PLR2004 (RFC 5321 section 4.2.1)
        return warn(f"{_of(item)} can't judge the login now: {said}", cause="its directory or store is in trouble")
    cause, remedy = _why_refused(talk, code, text)
    return error(f"{_of(item)} refuses the login: {said}", cause=cause, remedy=remedy)


def _why_refused(talk: Talk, code: int, text: str) -> tuple[str, Remedy]:
    item = talk.item
    apply = Remedy("see `reconciler plan`, then apply", "reconciler apply", f"account/{item.account}")
    if code == 534 or "mfa" in text.lower():  # noqa: PLR2004 (RFC 4954: too weak)
        return "the account asks for a second factor", Remedy("give the service an app password")
    if "5.7.1" in text or "not authorized" in text.lower():
        return "the account may not send: it lacks the role `user`", apply
    if item.account and talk.generation == "rest":
        said = "up to 0.15 the login is the account's name, not its address; or the account or its password is another"
        return said, apply
    if item.account:
        return "the account is gone, or its password is another than the service has", apply
    return "user or password is wrong, or the provider knows no such sender", Remedy("check the provider's credentials")


def _sender(talk: Talk) -> Verdict:
    item = talk.item
    if item.sending is None:
        return unknown(f"{item.where}: no sender was tried")
    code, text = item.sending
    if 200 <= code < 300:  # noqa: PLR2004
        return ok(f"{item.where} lets {item.account or _listed(item.services)} send as {item.sender}")
    said = f"{_of(item)} does not let {item.account or 'it'} send as {item.sender}: {code} {text}"
    mend = f"add {item.sender} to the aliases of {item.account}, or correct the service's From" if item.account else ""
    verify = mend or "have the sender verified at the provider, or correct the service's From"
    return error(said, remedy=Remedy(verify))


def _log_bans(found: tuple[Talk, ...]) -> Verdict:
    """Tell who is banned now, by the API, and why, by the log; of who was once only where the API does not tell."""
    if not found:
        return skip("no service sends mail")
    talk = found[0]
    if isinstance(talk.bans, Unread) and not isinstance(talk.blocked, tuple):
        return unknown("neither the server's list of bans nor its log could be read")
    logged = () if isinstance(talk.bans, Unread) else tuple(ban for ban in talk.bans if ban.event in _WHY)
    if not isinstance(talk.blocked, tuple):
        return _told_of(talk, logged, ()) if logged else ok("the log names no ban")
    ours = tuple(item for item in talk.blocked if _is_ours(item.entry))
    held = tuple(ban for ban in logged if not ban.address or any(_covers(it, ban.address) for it in talk.blocked))
    if not ours and not held:
        count = len(talk.blocked)
        return ok(f"none of ours is banned; {count:,} other{'s are' if count != 1 else ' is'}")
    return _told_of(talk, held, ours)


def _told_of(talk: Talk, logged: tuple[Ban, ...], ours: tuple[Blocked, ...]) -> Verdict:
    named = [f"log: {ban.event} {ban.address} {ban.reason}".rstrip() for ban in logged]
    named += [f"listed: {' '.join(filter(None, (it.entry, it.reason, it.since)))}" for it in ours]
    who = dict.fromkeys([*(item.entry for item in ours), *(ban.address or "an address" for ban in logged)])
    say = error if ours or any(_is_ours(ban.address) for ban in logged) else warn
    causes = (*(_WHY[ban.event] for ban in logged), *(_REASONS.get(item.reason, "") for item in ours))
    remedy = Remedy(_UNBAN[talk.generation])
    # What a person banned, who knows why, is left alone: a network, and what the server says of.
    lifts = tuple(item.entry for item in ours if _ip(item.entry) and item.reason != _BY_HAND)
    if lifts:
        text = (
            "move the service to port 465, or declare its network under stalwart.allowed_ips, and apply; then lift it"
        )
        remedy = Remedy(text, "reconciler doctor --only smtp/bans --fix", lifts=lifts)
    return say(f"the server has banned {', '.join(who)}", *named, cause=next(filter(None, causes), ""), remedy=remedy)


_BY_HAND = "manual"
_REASONS = {  # of x:BlockedIp, from 0.16
    "portScanning": _WHY["security.scan-ban"],
    "authFailure": _WHY["security.authentication-ban"],
    "rcptToFailure": _WHY["security.abuse-ban"],
    "loitering": _WHY["security.loiter-ban"],
    _BY_HAND: "a person banned it",
}


def _ip(text: str) -> url.IP | None:
    """Read an address; None for what is none, such as a network."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_ours(entry: str) -> bool:
    """Whether an entry is an address or a network of one's own: a container's, or one of the LAN."""
    try:
        return url.is_home(ipaddress.ip_network(entry, strict=False).network_address)
    except ValueError:
        return False


def _covers(item: Blocked, address: str) -> bool:
    found = _ip(address)
    try:
        network = ipaddress.ip_network(item.entry, strict=False)
    except ValueError:
        return False
    return found is not None and found.version == network.version and found in network


CHECKS = (
    Check(
        "smtp/reachable",
        "connection refused, or no answer, on 587 or 465",
        "no listener answers at this port: 0.16 opens no 587 by itself",
        "declare the listener and apply",
        "docs/stalwart-releases.md",
        talks,
        _each(_reachable, "every server that services use takes connections"),
    ),
    Check(
        "smtp/banned",
        "the connection is closed at once; security.ip-blocked in the log",
        "the server has banned the service's address",
        "lift the ban, allow the network",
        "Stalwart, auto-ban",
        talks,
        _each(_banned, "every server greets"),
    ),
    Check(
        "smtp/bans",
        "some clients are cut off",
        "the server has banned addresses of ours, by its list and its log",
        "lift the ban, allow the network",
        "Stalwart, auto-ban",
        talks,
        _log_bans,
    ),
    Check(
        "smtp/name",
        "others call our mail suspicious: the name is a container's id",
        "the server's own name is not stalwart.hostname",
        "apply",
        "RFC 5321 section 4.1.1.1",
        talks,
        _each(_named, "the server calls itself as declared"),
    ),
    Check(
        "smtp/starttls",
        "the service sends no mail, or its password in clear",
        "the server offers no STARTTLS",
        "give it a certificate, or use implicit TLS",
        "RFC 8314",
        talks,
        _each(_starttls, "every server offers TLS"),
    ),
    Check(
        "smtp/tls",
        "tls: first record does not look like a TLS handshake",
        "the port and the kind of TLS don't fit",
        "465 begins with TLS, 587 with STARTTLS",
        "RFC 8314",
        talks,
        _each(_tls, "TLS is begun everywhere"),
    ),
    Check(
        "smtp/certificate",
        "x509: certificate is not valid",
        "the certificate ended, is for another name, or is self-signed",
        "renew it, or don't have it verified inside the compose network",
        "RFC 6125",
        talks,
        _each(_certificate, "every certificate is valid where it is looked at"),
    ),
    Check(
        "smtp/auth",
        "server doesn't support AUTH",
        "it is not a submission port",
        "use 587 or 465",
        "RFC 4954",
        talks,
        _each(_mechanisms, "every server offers a login"),
    ),
    Check(
        "smtp/login",
        "535 authentication failed",
        "the login name, the account or the password is another",
        "apply",
        "RFC 4954",
        talks,
        _each(_login, "every login of a service is accepted"),
    ),
    Check(
        "smtp/sender",
        "501 5.5.4 not allowed to send from this address",
        "the service's From is none of the account's addresses",
        "add the alias, or correct From",
        "RFC 6409 section 6.1",
        talks,
        _each(_sender, "every service may send as it does"),
    ),
)
