"""What a domain says of TLS for its mail: MTA-STS (RFC 8461 section 3.1), and where reports go (RFC 8460). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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
    found, faults, versioned = tags.read(text, _STS)
    faults += tags.printed(found)
    faults += _extensions(found, _STS)
    tag = found.get("id")
    if tag is None:
        faults.append(Fault("", "has no id=", "write id= with the day and time of the policy: id=20260131T120000"))
    elif tag.value:
        faults += _id(tag)
    value = Sts(tag.value) if versioned and tag is not None and _ID.fullmatch(tag.value) else None
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
    """Read the record of TLS-RPT."""
    found, faults, versioned = tags.read(text, _REPORTING)
    faults += tags.printed(found)
    faults += _extensions(found, _REPORTING)
    tag = found.get("rua")
    if tag is None:
        faults.append(Fault("", "has no rua=, so no report is sent", "write rua=mailto:USER@DOMAIN"))
    elif tag.value:
        faults += reports.judge(tag, ("mailto", "https"))
    value = Reporting(reports.addresses(tag)) if versioned and tag is not None and tag.value else None
    return Reading(value, tuple(faults))


def _extensions(found: Mapping[str, Tag], grammar: Grammar) -> Iterator[Fault]:
    for tag in found.values():
        if tag.name not in ("v", *grammar.known) and tag.value and not _EXTENSION.fullmatch(tag.value):
            yield tag.fault("has a value with a blank or an = in it", "take it out")
