"""Whether the mail of the last while got through: by the mail server's log and queue, and the services' own logs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from reconciler.checks.check import Check, Remedy, Unread, Verdict, error, ok, skip, unknown, warn
from reconciler.checks.evidence import Evidence
from reconciler.traffic import Fate, Message, Recipient, Traffic, masked, reason

_LATE = timedelta(hours=1)
_SHOWN = 5
NOT_ASKED = skip("no log was read: doctor --since 5m follows each mail")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a check of this room looks at: the mail, and when it is."""

    traffic: Traffic
    now: datetime


def queue(evidence: Evidence) -> Seen | Unread | None:
    """Take what waits."""
    if evidence.traffic is None or isinstance(evidence.traffic, Unread):
        return evidence.traffic
    return Seen(evidence.traffic, evidence.now)


def followed(evidence: Evidence) -> Seen | Unread | Verdict | None:
    """Take what became of mail, where that was asked for."""
    found = queue(evidence)
    return NOT_ASKED if isinstance(found, Seen) and found.traffic.since is None else found


def _of(messages: Sequence[Message], fate: Fate) -> Iterator[tuple[Message, Recipient]]:
    for message in messages:
        yield from ((message, item) for item in message.recipients if item.fate is fate)


def _words(item: Recipient) -> str:
    return masked(f"{item.address}: {item.words or 'no answer is known'}")


def _bounced(seen: Seen) -> Verdict:
    found = list(_of(seen.traffic.messages, Fate.BOUNCED))
    if not found:
        return _nothing(seen, "no mail bounced")
    # What is ours to mend speaks.
    found.sort(key=lambda pair: not reason(pair[1].words).ours)
    why = reason(found[0][1].words)
    say = error if why.ours else warn
    lines = [_words(item) for _, item in found[:_SHOWN]]
    return say(f"{_count(found, 'mail')} bounced", *lines, cause=why.cause, remedy=Remedy(why.remedy))


def _deferred(seen: Seen) -> Verdict:
    found = list(_of(seen.traffic.messages, Fate.DEFERRED))
    if not found:
        return _nothing(seen, "no mail is put off")
    found.sort(key=lambda pair: not reason(pair[1].words).ours)
    why = reason(found[0][1].words)
    lines = [_words(item) for _, item in found[:_SHOWN]]
    said = f"{_count(found, 'mail')} could not be delivered yet, and will be tried again"
    return warn(said, *lines, cause=why.cause, remedy=Remedy(why.remedy))


def _nothing(seen: Seen, fine: str) -> Verdict:
    """Say that all is well; not where the log could not be read, which alone would tell."""
    if seen.traffic.unread:
        return unknown(f"{fine} that is known", *seen.traffic.unread)
    return ok(fine)


def _count(found: Sequence[object], word: str) -> str:
    return f"{len(found):,} {word}{'s' * (len(found) > 1)}"


def _waiting(seen: Seen) -> Verdict:
    late = [
        (message, item)
        for message in seen.traffic.messages
        for item in message.recipients
        if item.fate in (Fate.QUEUED, Fate.DEFERRED) and message.when < seen.now - _LATE
    ]
    if not late:
        return ok("no mail waits for long")
    hours = int((seen.now - min(message.when for message, _ in late)).total_seconds() // 3600)
    why = reason(late[0][1].words)
    said = f"{_count(late, 'mail')} {'wait' if len(late) > 1 else 'waits'} in the queue, for up to {hours} h"
    return warn(said, *(_words(item) for _, item in late[:_SHOWN]), cause=why.cause, remedy=Remedy(why.remedy))


def _handed_in(seen: Seen) -> Verdict:
    found = seen.traffic.refusals
    if not found:
        return ok("no service's log tells of a mail that it could not hand in")
    last = found[-1]
    said = f"{last.service} could not hand in mail, {len(found):,} time{'s' * (len(found) > 1)}"
    lines = [masked(item.words) for item in found[-_SHOWN:]]
    text = "the checks of smtp/ and services/ say why: `reconciler doctor --only smtp --only services`"
    return error(said, *lines, remedy=Remedy(text))


CHECKS = (
    Check(
        "mail/handed-in",
        "the service's log shows an error at each mail",
        "the service does not reach the mail server, or is refused there",
        "see the checks of smtp/ and services/",
        "docs/doctor.md",
        followed,
        _handed_in,
    ),
    Check(
        "mail/bounced",
        "people wait for a mail that never comes",
        "the receiver's server refused it for good",
        "its answer says what to mend",
        "RFC 3463",
        followed,
        _bounced,
    ),
    Check(
        "mail/deferred",
        "mail comes hours later",
        "the receiver's server does not take it for now, or can't be reached",
        "wait, or relay",
        "RFC 5321 section 4.5.4",
        followed,
        _deferred,
    ),
    Check(
        "mail/queue",
        "mail heaps up in the server's queue",
        "a receiver is away, or the line's provider blocks port 25",
        "see why the oldest waits",
        "RFC 5321 section 4.5.4",
        queue,
        _waiting,
    ),
)
