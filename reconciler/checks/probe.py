"""Whether a mail that a service sends is taken, arrives, and is believed: by one that was sent and read back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from reconciler.checks import dns, spf
from reconciler.checks.check import Check, Remedy, Unread, Verdict, error, ok, skip, unknown, warn, worst
from reconciler.checks.evidence import Evidence, Names, Probe
from reconciler.letter import Fault, Letter, faults, results
from reconciler.traffic import LOCAL, Fate, masked, reason

NOT_ASKED = skip("no mail was sent: doctor --probe sends one")


@dataclass(frozen=True, slots=True)
class Sent:
    """What a check of this room looks at: one mail, what DNS shows, and when it is."""

    probe: Probe
    names: Names | None
    now: datetime

    @property
    def letter(self) -> Letter | None:
        """The mail as it lay in the mailbox; None where it could not be read."""
        return None if self.probe.raw is None else Letter.read(self.probe.raw)


def sent(evidence: Evidence) -> tuple[Sent, ...] | Unread | Verdict:
    """Take the mails that were sent."""
    if evidence.probes is None:
        return NOT_ASKED
    if isinstance(evidence.probes, Unread):
        return evidence.probes
    names = evidence.names if isinstance(evidence.names, Names) else None
    return tuple(Sent(probe, names, evidence.now) for probe in evidence.probes)


def _each(judge: Callable[[Sent], Verdict], fine: str) -> Callable[[tuple[Sent, ...]], Verdict]:
    """Judge every mail by itself; the worst speaks."""

    def judged(found: tuple[Sent, ...]) -> Verdict:
        return worst(map(judge, found), fine)

    return judged


def _read(judge: Callable[[Sent, Letter], Verdict]) -> Callable[[Sent], Verdict]:
    """Judge what lies in the mailbox; nothing is known of what could not be read there."""

    def judged(item: Sent) -> Verdict:
        if item.letter is None:
            return skip(f"the mail through {item.probe.where} was not read back")
        return judge(item, item.letter)

    return judged


def _of(probe: Probe) -> str:
    return f"the mail through {probe.where}" + (f" (for {', '.join(probe.services)})" if probe.services else "")


# ---------------------------------------------------------------------------------------------------------- the way
def _accepted(item: Sent) -> Verdict:
    probe = item.probe
    if probe.answer is None:
        return unknown(f"no mail was sent through {probe.where}: {probe.unsent}")
    code, text = probe.answer
    if 200 <= code < 300:  # noqa: PLR2004 (RFC 5321)
        return ok(f"{probe.where} took the mail: {code} {text}")
    said = f"{_of(probe)} is refused: {code} {text}"
    if 400 <= code < 500:  # noqa: PLR2004
        return warn(
            said, cause="it is refused for now: a limit, or the server is busy", remedy=Remedy("try again later")
        )
    return error(said, remedy=Remedy("the answer says why; a From of one's own domain and a known recipient are taken"))


def _arrived(item: Sent) -> Verdict:
    probe = item.probe
    if not probe.taken:
        return skip(f"no mail was taken at {probe.where}")
    if probe.raw is not None:
        return ok(f"{_of(probe)} arrived within {probe.waited:.1f} s")
    if not probe.mailbox:
        return _elsewhere(probe)
    if probe.unread:
        return unknown(f"the mailbox {probe.recipient} can't be read: {probe.unread}", *_told(probe))
    return _missing(probe)


def _missing(probe: Probe) -> Verdict:
    """Say why a mail that was taken is not in the mailbox, as far as our server tells."""
    said = f"{_of(probe)} was taken, and did not come to {probe.recipient} within {probe.waited:.0f} s"
    if probe.fate is None:
        cause = "our server does not know it (any more): the provider has it still, or a filter dropped it"
        text = "look at the provider's own log; see MX: `reconciler doctor --only dns`"
        return warn(said, *_told(probe), cause=cause, remedy=Remedy(text))
    why = reason(probe.fate.words)
    if probe.fate.fate is Fate.BOUNCED:
        return error(said, *_told(probe), cause=why.cause, remedy=Remedy(why.remedy))
    if probe.fate.fate in (Fate.DELIVERED, Fate.SENT):
        text = "see filters of the account (Sieve) and aliases: it may lie in another mailbox"
        return warn(
            said, *_told(probe), cause="the server has delivered it, and not to this mailbox", remedy=Remedy(text)
        )
    text = why.remedy if probe.fate.words else "see whether its queue is paused: `reconciler doctor --since 5m`"
    return warn(said, *_told(probe), cause="it waits in the server's queue", remedy=Remedy(text))


def _elsewhere(probe: Probe) -> Verdict:
    """Say what is known of a mail to a mailbox that is not ours to read."""
    look = f"look there for the subject {probe.token}: the headers say what the receiver made of SPF, DKIM and DMARC"
    if probe.fate is not None and probe.fate.fate in (Fate.BOUNCED, Fate.DEFERRED):
        say, why = error if probe.fate.fate is Fate.BOUNCED else warn, reason(probe.fate.words)
        said = f"{_of(probe)} did not get to {probe.recipient}"
        return say(said, *_told(probe), cause=why.cause, remedy=Remedy(why.remedy))
    return unknown(f"{probe.recipient} is no mailbox that can be read from here; {look}", *_told(probe))


def _told(probe: Probe) -> tuple[str, ...]:
    """Say in a line what our server tells of it."""
    if probe.fate is None:
        return (probe.untold,) if probe.untold else ()
    item = probe.fate
    where = f" by {item.host}" if item.host and item.host != LOCAL else ""
    again = f", tried again at {item.due:%H:%M:%S} UTC" if item.due else ""
    words = masked(item.words, (item.address,)) or "not tried yet"
    return (f"the server says: {item.fate}{where}{again}: {words}",)


def _spam(item: Sent, _: Letter) -> Verdict:
    if item.probe.folder == "junk":
        said = f"{_of(item.probe)} was filed as spam"
        return warn(
            said, cause="the server's own filter does not believe it", remedy=Remedy("see probe/dkim and dns/spf")
        )
    return ok(f"{_of(item.probe)} came into the inbox")


def _removed(item: Sent) -> Verdict:
    probe = item.probe
    if probe.raw is None:
        return skip("nothing was read that could be removed")
    if probe.left:
        said = f"the test mail {probe.token} is still in {probe.recipient}: {probe.left}"
        return warn(said, remedy=Remedy("delete it by hand"))
    return ok(f"the test mail was removed from {probe.recipient}")


# -------------------------------------------------------------------------------------------------------- signatures
_FAILS = {
    "no-key": ("DNS shows no key for it", "publish the key: see dns/dkim"),
    "altered": ("its text was changed after it was signed", "let nothing behind the signer touch the mail (footers)"),
    "differs": (
        "the key in DNS is another than it was signed with, or a header was changed on the way",
        "where dns/dkim is well, the server signs with a key that the directory does not know; apply, then probe again",
    ),
    "broken": ("the signature itself can't be read, or has ended", "see the server's clock and its settings of DKIM"),
}


def _dkim(item: Sent, letter: Letter) -> Verdict:
    found = item.probe.signatures
    if not found:
        said = f"{_of(item.probe)} is not signed"
        return error(
            said,
            cause="no key signs for its From, or the rule for signing names others",
            remedy=Remedy(f"make keys and declare them: `reconciler dkim generate {_domain(letter.sender)}`"),
        )
    wrong = [each for each in found if each.state not in ("valid", "unread")]
    lines = [f"{each.name} ({each.algorithm}): {each.words}" for each in found]
    if wrong:
        # One that verifies is enough for receivers: the other is told, and stops nothing.
        say = warn if any(each.state == "valid" and _aligned(each.domain, letter.sender) for each in found) else error
        cause, mend = _FAILS[wrong[0].state]
        return say(f"the signature {wrong[0].name} does not verify", *lines, cause=cause, remedy=Remedy(mend))
    if all(each.state == "unread" for each in found):
        return unknown("no name server could be asked for the keys", *lines)
    return ok(f"{len(found)} signature{'s' * (len(found) > 1)} of {_of(item.probe)} verify", *lines)


def _domain(address: str) -> str:
    return address.rpartition("@")[2]


def _aligned(domain: str, sender: str, *, strict: bool = False) -> bool:
    """Whether a domain speaks for that of ``From``: it is the same, or one lies below the other (relaxed).

    RFC 9989 takes the organisational domain, which only a walk up the tree finds: of two that have no more than that
    in common nothing is said here.
    """
    ours = _domain(sender)
    if strict or domain == ours:
        return domain == ours
    return ours.endswith(f".{domain}") or domain.endswith(f".{ours}")


def _dmarc(item: Sent, letter: Letter) -> Verdict:
    if not letter.sender:
        return skip("it has no From that could be aligned")
    probe, domain = item.probe, _domain(letter.sender)
    policy = dns.dmarc_policy(item.names, domain) if item.names else None
    strict = bool(policy and policy.adkim == "s")
    signed = [each for each in probe.signatures if each.state == "valid"]
    by_key = [each for each in signed if _aligned(each.domain, letter.sender, strict=strict)]
    if by_key:
        return ok(f"DMARC passes: {by_key[0].name} verifies and speaks for {domain}")
    envelope = _domain(probe.sender)
    strict = bool(policy and policy.aspf == "s")
    if _spf(item, envelope) == "pass" and _aligned(envelope, letter.sender, strict=strict):
        return ok(f"DMARC passes: by SPF of {envelope}, which a forwarder breaks; no signature verifies for {domain}")
    others = [f"{each.name} verifies, and speaks for {each.domain}" for each in signed]
    unread = [each for each in probe.signatures if each.state == "unread"]
    if unread and not others:
        return unknown("whether DMARC passes is not known: no name server could be asked for the keys")
    cause = f"the provider signs for {signed[0].domain}" if signed else "no signature verifies"
    text = f"let the provider sign for {domain}: its DNS records are declared under smtp.providers, `dns:`"
    said = f"DMARC fails for {letter.sender}: neither a signature nor SPF speaks for {domain}"
    return error(said, *others, cause=cause, remedy=Remedy(text))


def _spf(item: Sent, envelope: str) -> str:
    """Say what SPF makes of the envelope's sender, as far as DNS was asked; only of a mail that our server sends."""
    if item.names is None or not item.probe.account or not item.names.line.address:
        return ""
    return spf.evaluated(item.names, envelope).result


def _results(item: Sent, letter: Letter) -> Verdict:
    host = item.names.host if item.names else ""
    found = results(letter, host) if host else None
    if found is None:
        return skip("the receiving server noted no results: who logs in is believed")
    lines = tuple(f"{method}={result}" for method, result in found)
    bad = [line for line, (_, result) in zip(lines, found, strict=True) if result in ("fail", "permerror", "softfail")]
    bad.sort(key=lambda line: not line.startswith("dmarc"))  # it is what decides
    if not bad:
        return ok(f"{host} found: {', '.join(lines)}")
    say = error if any(line.startswith("dmarc") for line in bad) else warn
    said = f"{host} found {bad[0]} of {_of(item.probe)}"
    return say(said, *lines, remedy=Remedy("see probe/dkim, probe/dmarc and dns/spf, which say what is to be mended"))


# ------------------------------------------------------------------------------------------------------------- its form
def _form(part: str, fine: str, mend: str) -> Callable[[Sent, Letter], Verdict]:
    def judged(item: Sent, _: Letter) -> Verdict:
        found = [fault for fault in _faults(item) if fault.part == part]
        if not found:
            return ok(fine)
        say = error if any(fault.breaks for fault in found) else warn
        words = [fault.words for fault in sorted(found, key=lambda fault: not fault.breaks)]
        return say(f"{_of(item.probe)}: {words[0]}", *words[1:], remedy=Remedy(mend))

    return judged


def _faults(item: Sent) -> Iterator[Fault]:
    yield from faults(item.probe.raw or b"", item.now)


def _own(item: Sent) -> Verdict:
    """Judge the newest mail that a service itself sent to the mailbox: a test mail is as we write it."""
    probe = item.probe
    if probe.last is None:
        return skip(f"no mail from {probe.sender} is known in {probe.recipient}: have the service send one there first")
    found = sorted(faults(probe.last, None), key=lambda fault: not fault.breaks)
    if not found:
        return ok(f"the last mail from {probe.sender} is well-formed")
    say = error if found[0].breaks else warn
    said = f"the last mail from {probe.sender} ({', '.join(probe.services)}): {found[0].words}"
    text = "have the application mended: these parts of its mail break the RFCs that receivers hold it to"
    if any("no Message-ID" in fault.words for fault in found):
        text = "have the application mended; until then Stalwart can add one (session.data.add-headers.message-id)"
    return say(said, *(fault.words for fault in found[1:]), remedy=Remedy(text))


_SPOILT = "it left here sound: something between the service's provider and the mailbox changes mail"


CHECKS = (
    Check(
        "probe/accepted",
        "the service's log shows an SMTP error at each mail",
        "the provider refuses sender, recipient or mail",
        "do what its answer says",
        "RFC 5321 section 3.3",
        sent,
        _each(_accepted, "every provider took its mail"),
    ),
    Check(
        "probe/arrived",
        "mail is accepted, and never arrives",
        "it waits in a queue, or was dropped on the way",
        "see `reconciler doctor --since 5m`",
        "RFC 5321 section 4.5.4",
        sent,
        _each(_arrived, "every mail arrived"),
    ),
    Check(
        "probe/spam",
        "registration mails lie in the spam folder",
        "the receiving server's filter does not believe them",
        "mend SPF, DKIM and DMARC",
        "docs/doctor.md",
        sent,
        _each(_read(_spam), "every mail came into the inbox"),
    ),
    Check(
        "probe/dkim",
        "550 5.7.26, dkim=fail, though the key is published",
        "the server signs with another key, not at all, or mail is changed afterwards",
        "apply, then probe again",
        "RFC 6376, RFC 8463",
        sent,
        _each(_read(_dkim), "every signature verifies"),
    ),
    Check(
        "probe/dmarc",
        "550 5.7.26, dmarc=fail, though DKIM and SPF pass",
        "neither a signature nor SPF speaks for the domain of From",
        "let the provider sign for it",
        "RFC 9989",
        sent,
        _each(_read(_dmarc), "every mail passes DMARC"),
    ),
    Check(
        "probe/results",
        "dmarc=fail in the headers of a mail that arrived",
        "the receiving server does not believe the sender",
        "see probe/dkim, probe/dmarc and dns/spf",
        "RFC 8601",
        sent,
        _each(_read(_results), "the receiving server believes every mail"),
    ),
    Check(
        "probe/message-id",
        "Google: Messages missing a valid Message-ID",
        "a server on the way takes it out or spoils it",
        "find the hop that does, or let the server add one",
        "RFC 5322 section 3.6.4",
        sent,
        _each(_read(_form("message-id", "it has one Message-ID", _SPOILT)), "every mail has its Message-ID"),
    ),
    Check(
        "probe/headers",
        "subjects arrive as gibberish, or mail is refused as malformed",
        "header fields are missing, stand twice, or are not encoded",
        "find the hop that changes them",
        "RFC 5322 section 3.6, RFC 2047",
        sent,
        _each(_read(_form("header", "its header is well", _SPOILT)), "every header is well"),
    ),
    Check(
        "probe/lines",
        "550 5.6.11 bare LF, or 500 line too long",
        "lines end without CR, or are longer than 998 characters",
        "find the hop that changes them",
        "RFC 5322 section 2.1.1",
        sent,
        _each(_read(_form("lines", "its lines are well", _SPOILT)), "every line is well"),
    ),
    Check(
        "probe/service-mail",
        "Google: Messages missing a valid Message-ID; subjects arrive as gibberish",
        "the application writes mail that the RFCs do not allow",
        "have it mended",
        "RFC 5322 section 3.6.4, RFC 2047",
        sent,
        _each(_own, "the services write mail as the RFCs have it"),
    ),
    Check(
        "probe/removed",
        "test mails heap up in the mailbox",
        "the mailbox does not let its owner delete",
        "delete them by hand",
        "RFC 8621 section 4.6",
        sent,
        _each(_removed, "nothing was left behind"),
    ),
)
