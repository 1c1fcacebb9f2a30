"""What a domain says of TLS for its mail: MTA-STS (RFC 8461 section 3.1), and where reports go (RFC 8460). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from reconciler.dns.policies import reports, tags
from reconciler.dns.policies.reading import Fault, Reading
from reconciler.dns.policies.tags import Grammar, Tag

_STS = Grammar("v=STSv1", ("id",), extended=True, repeated=True)
_REPORTING = Grammar("v=TLSRPTv1", ("rua",), extended=True, repeated=True)
_ID = re.compile(r"[A-Za-z0-9]{1,32}")
_ID_LIMIT = 32
_EXTENSION = re.compile(r"[!-:<>-~]+")  # a value of a tag that is yet to come: no blank, = or ;


@dataclass(frozen=True, slots=True)
class Sts:
    """What tells senders that a policy is to be fetched: anew, where its id is another."""

    id: str


@dataclass(frozen=True, slots=True)
class Reporting:
    """Where reports of TLS are sent to: URIs as written."""

    rua: tuple[str, ...]


def parse_sts(text: str, _name: str = "") -> Reading[Sts]:
    """Read the record of MTA-STS."""
    listed, faults, versioned = _read(text, _STS)
    ids = [tag for tag in listed if tag.name == "id"]
    if not ids:
        faults.append(Fault("", "has no id=", "write id= with the day and time of the policy: id=20260131T120000"))
    for tag in ids:
        faults += _id(tag) if tag.value else ()
    value = Sts(ids[0].value) if versioned and ids and _ID.fullmatch(ids[0].value) else None
    return Reading(value, tuple(faults))


def _id(tag: Tag) -> Iterator[Fault]:
    if _ID.fullmatch(tag.value):
        return
    plain = re.sub(r"[^A-Za-z0-9]", "", tag.value)
    if len(plain) > _ID_LIMIT:
        cause = f"has {len(tag.value)} characters in its id, and {_ID_LIMIT} are allowed"
        yield tag.fault(cause, "write the day and time of the policy: id=20260131T120000")
    else:
        yield tag.fault("has an id of more than letters and digits", "write id=20260131T120000", plain or None)


def parse_reporting(text: str, _name: str = "") -> Reading[Reporting]:
    """Read the record of TLS-RPT, which may say several times where reports go."""
    listed, faults, versioned = _read(text, _REPORTING)
    where = [tag for tag in listed if tag.name == "rua"]
    if not where:
        faults.append(Fault("", "has no rua=, so no report is sent", "write rua=mailto:USER@DOMAIN"))
    for tag in where:
        faults += reports.judge(tag, ("mailto", "https")) if tag.value else ()
    addresses = tuple(item for tag in where for item in reports.addresses(tag))
    return Reading(Reporting(addresses) if versioned and addresses else None, tuple(faults))


def _read(text: str, grammar: Grammar) -> tuple[list[Tag], list[Fault], bool]:
    """Read what both have in common: extensions that are yet to come hold no blank and no ``=``."""
    listed, faults, versioned = tags.read(text, grammar)
    faults += tags.printed(listed)
    for tag in listed:
        if tag.name not in ("v", *grammar.known) and tag.value and not _EXTENSION.fullmatch(tag.value):
            faults.append(tag.fault("has a value with a blank or an = in it", "take it out"))
    return listed, faults, versioned
