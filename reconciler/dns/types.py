"""The types of records that Cloudflare serves: one table with all that is particular to a type. Pure.

A new type is a row of `TYPES`, and nothing else. What the parts of a type may hold is dnspython's to say (`records`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any

from reconciler.dns import text
from reconciler.names import host

Value = str | int


# ----------------------------------------------------------------------------------------- parts in their normal form
def _number(value: Any) -> int:
    if isinstance(value, bool) or not (str(value).isascii() and str(value).isdecimal()):
        raise ValueError(f"{value!r} is not a number")
    return int(value)


def _fraction(value: Any) -> Value:
    """Read a number that may have a fraction (LOC), with or without its unit; a whole one becomes an int."""
    number = float(str(value).removesuffix("m"))
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a number")
    return int(number) if number.is_integer() else repr(number)


def _hex(value: Any) -> str:
    digits = "".join(str(value).split()).lower()
    if not digits or digits.strip("0123456789abcdef"):
        raise ValueError(f"{value!r} is not hexadecimal")
    return digits


def _base64(value: Any) -> str:
    written = "".join(str(value).split())
    if not re.fullmatch(r"[A-Za-z0-9+/]+=*", written):
        raise ValueError(f"{value!r} is not base64")
    return written


def _word(value: Any) -> str:
    return str(value).strip()


def _lower(value: Any) -> str:
    return str(value).strip().lower()


def _upper(value: Any) -> str:
    return str(value).strip().upper()


_PARAMETER = re.compile(r'([^\s="]+)(?:=(?:"((?:[^"\\]|\\.)*)"|(\S*)))?(?:\s+|$)')


def _parameters(value: Any) -> str:
    """Normalise the parameters of an HTTPS record: their order and their quotes mean nothing (RFC 9460 section 2.1)."""
    written, found, position = str(value or "").strip(), [], 0
    while position < len(written):
        match = _PARAMETER.match(written, position)
        if match is None:
            return written
        inner = match[2] if match[2] is not None else match[3]
        found.append(match[1].lower() if inner is None else f'{match[1].lower()}="{inner}"')
        position = match.end()
    return " ".join(sorted(found))


# -------------------------------------------------------------------------------------- contents in their normal form
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}", re.ASCII)


def is_ipv4(text: str) -> bool:
    """Whether a text is an IPv4 address in its one form."""
    return _IPV4.fullmatch(text) is not None


def _ipv4(_zone: str, _name: str, content: str) -> str:
    if is_ipv4(content):  # has one form only; thousands of them are read
        return content
    try:
        return str(IPv4Address(content))
    except AddressValueError:
        raise ValueError(f"{content!r} is no IPv4 address") from None


def _ipv6(_zone: str, _name: str, content: str) -> str:
    try:
        if "%" in content:  # an interface of one machine (RFC 4007), which Python takes
            raise AddressValueError  # noqa: TRY301
        return str(IPv6Address(content))
    except AddressValueError:
        raise ValueError(f"{content!r} is no IPv6 address") from None


def _target(zone: str, _name: str, content: str) -> str:
    return host(zone if content == "@" else content)


# ---------------------------------------------------------------------------------------------------------- the table
def _alias(name: str, other: str) -> bool:
    """An alias stands alone (RFC 1034 section 3.6.2); that of a zone is flattened, so that mail may be beside it."""
    return name != "@" or other in ("A", "AAAA", "CNAME")


def _delegation(name: str, other: str) -> bool:
    """Whoever delegates a name below the zone has nothing else to say there, but for DS (RFC 1034 section 4.2.1)."""
    return name != "@" and other not in ("NS", "DS")


@dataclass(frozen=True, slots=True)
class Type:
    """What is particular to one type of record.

    ``parts`` lead from the names of the API's ``data``, in a zone file's order, to what brings each into its normal
    form or raises ValueError; a type without any has a content, which ``read`` normalises, given zone and name.
    ``optional`` parts may be left out, ``quoted`` ones stand in quotes in a zone file. ``prioritised`` has a priority
    beside its content or data. ``points`` says that the content is a host, ``proxiable`` that Cloudflare may answer in
    its place. ``divided`` says that another's record beside ours would split what goes there. ``excludes`` says
    whether another type can't stand at its name, ``once`` of which policy a content is, two of which can't.
    """

    parts: Mapping[str, Callable[[Any], Value]] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    quoted: tuple[str, ...] = ()
    read: Callable[[str, str, str], str] = lambda _zone, _name, content: content
    prioritised: bool = False
    points: bool = False
    proxiable: bool = False
    divided: bool = False
    excludes: Callable[[str, str], bool] = lambda _name, _other: False
    once: Callable[[str, object], text.MailPolicy | None] = lambda _name, _content: None

    @property
    def has_priority(self) -> bool:
        """Whether a priority belongs to it, beside its content or as one of its parts."""
        return self.prioritised or "priority" in self.parts


Parts = dict[str, Callable[[Any], Value]]
_AXIS: Parts = {"degrees": _number, "minutes": _number, "seconds": _fraction, "direction": _upper}
_LOC: Parts = {f"{axis}_{name}": part for axis in ("lat", "long") for name, part in _AXIS.items()}
_LOC |= dict.fromkeys(("altitude", "size", "precision_horz", "precision_vert"), _fraction)
_NAPTR: Parts = {"order": _number, "preference": _number, "flags": _upper, "service": _word, "regex": _word}
_TLSA: Parts = {"usage": _number, "selector": _number, "matching_type": _number, "certificate": _hex}
_SVCB = Type({"priority": _number, "target": host, "value": _parameters}, optional=("value",))

# Names and order of the parts are the API's and, but for LOC's units, a zone file's.
TYPES: dict[str, Type] = {
    "A": Type(read=_ipv4, proxiable=True, divided=True),
    "AAAA": Type(read=_ipv6, proxiable=True, divided=True),
    "CAA": Type({"flags": _number, "tag": _lower, "value": _word}, quoted=("value",)),
    "CERT": Type({"type": _number, "key_tag": _number, "algorithm": _number, "certificate": _base64}),
    "CNAME": Type(read=_target, points=True, proxiable=True, divided=True, excludes=_alias),
    "DNSKEY": Type({"flags": _number, "protocol": _number, "algorithm": _number, "public_key": _base64}),
    "DS": Type({"key_tag": _number, "algorithm": _number, "digest_type": _number, "digest": _hex}),
    "HTTPS": _SVCB,
    "LOC": Type(_LOC),
    "MX": Type(read=_target, prioritised=True, points=True, divided=True),
    "NAPTR": Type(_NAPTR | {"replacement": host}, quoted=("flags", "service", "regex")),
    "NS": Type(read=_target, points=True, excludes=_delegation),
    "OPENPGPKEY": Type(read=lambda _zone, _name, content: _base64(content)),
    "PTR": Type(read=_target, points=True),
    "SMIMEA": Type(_TLSA),
    "SRV": Type({"priority": _number, "weight": _number, "port": _number, "target": host}),
    "SSHFP": Type({"algorithm": _number, "type": _number, "fingerprint": _hex}),
    "SVCB": _SVCB,
    "TLSA": Type(_TLSA),
    "TXT": Type(read=text.read, once=text.policy),
    "URI": Type({"weight": _number, "target": _word}, quoted=("target",), prioritised=True),
}
OTHER = Type()
"""What is said of a type that is not in the table: live ones are shown as they are."""


# ------------------------------------------------------------------------------------------------ parts and zone files
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')


def parsed(type: str, content: Any, priority: int | None) -> dict[str, Any]:
    """Read the parts of a type from a content as a zone file has it. Raises ValueError.

    The last part takes what is left, as keys may be written with spaces; a priority that is known may be left out.
    """
    row = TYPES[type]
    if not isinstance(content, str) or not content.strip():
        raise ValueError(f"{type} needs data with {', '.join(row.parts)}, or a content")
    names = list(row.parts)
    if row is _SVCB:
        return dict(zip(names, content.split(None, 2), strict=False))
    words = [re.sub(r"\\(.)", r"\1", m[1]) if m[1] is not None else m[2] for m in _WORD.finditer(content)]
    if priority is not None and len(words) == len(names) - 1 and "priority" in names:
        names.remove("priority")  # the API renders SRV without it
    if len(words) > len(names) and row.parts[names[-1]] in (_hex, _base64):
        words = [*words[: len(names) - 1], "".join(words[len(names) - 1 :])]
    if len(words) != len(names):
        raise ValueError(f"{type} is written as {' '.join(names)}")
    return dict(zip(names, words, strict=True))


def rendered(type: str, values: Mapping[str, Value]) -> str:
    """Render parts for a person, in the order of a zone file; quotes inside of them are not escaped."""
    row = TYPES[type]
    return " ".join(f'"{values[name]}"' if name in row.quoted else str(values[name]) for name in row.parts).rstrip()


def zone_file(type: str, values: Mapping[str, Value], priority: int | None = None) -> str:
    """Write parts as a zone file has them, for whoever reads them to the letter: hosts are whole."""
    row = TYPES[type]
    words = [] if priority is None else [str(priority)]
    for name, part in row.parts.items():
        value = str(values[name])
        if name in row.quoted:
            value = text.escaped(value)
        elif part is host and value != ".":
            value += "."
        words.append(value if name in row.quoted else value.replace(";", "\\;"))
    return " ".join(words)


def wire(type: str, values: Mapping[str, Value]) -> dict[str, str | int | float]:
    """Return parts as the API takes them: numbers with a fraction as such."""
    parts = TYPES[type].parts
    return {
        name: float(value) if parts[name] is _fraction and isinstance(value, str) else value
        for name, value in values.items()
    }
