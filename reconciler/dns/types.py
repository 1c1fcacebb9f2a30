"""The types of records that Cloudflare serves: one table with all that is particular to a type. Pure.

A new type is a row of `TYPES`, and nothing else. What the parts of a type may hold is dnspython's to say (`records`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any

from reconciler.dns import text
from reconciler.names import host, meant

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


# ------------------------------------------------------------------------------------ what parts say together, or where
Fault = tuple[str, str, str]
"""What is wrong with the parts of a record: the part, what of it, and what to write."""

_SERVICE = re.compile(r"_[^.]+\._[^.]+(\..+)?")
_CA_TAGS = ("issue", "issuewild", "issuemail", "issuevmc", "iodef", "contactemail", "contactphone")
_CA_DOMAIN = re.compile(r"\s*(?:[a-z0-9-]+(?:\.[a-z0-9-]+)*)?\s*", re.IGNORECASE)
_CA_PARAMETER = re.compile(r"\s*[a-z0-9-]+\s*=\s*[!-:<-~]*\s*", re.IGNORECASE)


def _certification(parts: Mapping[str, Value]) -> Fault | None:
    """Judge a CAA: a tag that is registered (IANA, PKIX parameters), and its grammar (RFC 8659 sections 4.2 and 4.4).

    A certification authority takes an `issue` that breaks the grammar for one that allows nobody.
    """
    tag, value = str(parts["tag"]), str(parts["value"])
    if tag not in _CA_TAGS:
        return "tag", f"{tag!r} is no tag that authorities know", f"known are {', '.join(_CA_TAGS)}"
    if tag == "iodef":
        if not re.match(r"(mailto|https?):\S", value, re.IGNORECASE):
            return (
                "value",
                "is no address to report to",
                f"write mailto:{value}" if "@" in value else "write mailto:...",
            )
    elif tag.startswith("issue"):
        domain, mark, rest = value.partition(";")
        if not _CA_DOMAIN.fullmatch(domain):
            said = meant(domain)
            return (
                "value",
                f"{domain.strip()!r} is no authority's domain",
                f"write {said}" if said else "like ca.example",
            )
        if mark and rest.strip() and not all(map(_CA_PARAMETER.fullmatch, rest.split(";"))):
            return "value", "holds something behind the domain that is no NAME=VALUE", "like validationmethods=dns-01"
    return None


def _latitude(parts: Mapping[str, Value]) -> Fault | None:
    """Judge a LOC: no place lies beyond a pole or the date line, by minutes and seconds either (RFC 1876)."""
    for axis, most in (("lat", 90), ("long", 180)):
        beyond = float(parts[f"{axis}_minutes"]) or float(parts[f"{axis}_seconds"])
        if int(parts[f"{axis}_degrees"]) == most and beyond:
            return f"{axis}_degrees", f"goes beyond {most} degrees by minutes or seconds", f"{most} 0 0 is the end"
    return None


# ---------------------------------------------------------------------------------------------------------- the table
def _alias(name: str, other: str) -> bool:
    """An alias stands alone (RFC 1034 section 3.6.2); that of a zone is flattened, so that mail may be beside it."""
    return name != "@" or other in ("A", "AAAA", "CNAME")


def _delegation(name: str, other: str) -> bool:
    """Whoever delegates a name below the zone has nothing else to say there, but for DS (RFC 1034 section 4.2.1)."""
    return name != "@" and other not in ("NS", "DS")


def _no_mail(content: object, _parts: Mapping[str, Value]) -> str:
    return "says that no mail is taken" if content == "." else ""  # RFC 7505 section 3


def _no_service(_content: object, parts: Mapping[str, Value]) -> str:
    return "says that there is no such service" if parts.get("target") == "." else ""  # RFC 2782


def _all_elsewhere(_content: object, parts: Mapping[str, Value]) -> str:
    """With one that is an alias, whoever asks ignores all the others (RFC 9460 section 2.4.1)."""
    return "is an alias by its priority 0" if parts.get("priority") == 0 else ""


@dataclass(frozen=True, slots=True)
class Type:
    """What is particular to one type of record.

    ``parts`` lead from the names of the API's ``data``, in a zone file's order, to what brings each into its normal
    form or raises ValueError; a type without any has a content, which ``read`` normalises, given zone and name.
    ``optional`` parts may be left out, ``quoted`` ones stand in quotes in a zone file. ``prioritised`` has a priority
    beside its content or data. ``points`` says that the content is a host, ``proxiable`` that Cloudflare may answer in
    its place. ``divided`` says that another's record beside ours would split what goes there. ``excludes`` says
    whether another type can't stand at its name, ``once`` of which policy a content is, two of which can't.

    ``to_name`` says that it may point to what is no host's name (RFC 2317). ``known`` are the numbers that a registry
    gave a meaning, ``within`` the bounds of parts that dnspython does not know, ``judge`` what parts say together, and
    ``place`` is the form of names that it stands at, with an example, and ``asked`` the one by which it is looked for,
    if another one can do no harm. ``apex`` says why it can't stand at the zone
    itself, with what to do instead. ``alone`` is what one says that allows no other of its type beside it.
    """

    parts: Mapping[str, Callable[[Any], Value]] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    quoted: tuple[str, ...] = ()
    read: Callable[[str, str, str], str] = lambda _zone, _name, content: content
    prioritised: bool = False
    points: bool = False
    proxiable: bool = False
    divided: bool = False
    to_name: bool = False
    known: Mapping[str, Collection[int]] = field(default_factory=dict)
    within: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    judge: Callable[[Mapping[str, Value]], Fault | None] = lambda _parts: None
    place: tuple[re.Pattern[str], str] | None = None
    asked: tuple[re.Pattern[str], str] | None = None
    apex: tuple[str, str] | None = None
    alone: Callable[[object, Mapping[str, Value]], str] = lambda _content, _parts: ""
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
_DANE = {"usage": (0, 1, 2, 3, 255), "selector": (0, 1, 255), "matching_type": (0, 1, 2, 255)}  # RFC 7218 section 2
_SIGNING = (*range(1, 4), *range(5, 9), 10, *range(12, 18), 23, 252, 253, 254)  # IANA, DNSSEC algorithm numbers
_WIDTH = (0, 90_000_000)  # metres, RFC 1876 section 2
_LOC_BOUNDS = {
    "altitude": (-100_000, 42_849_672.95),
    "size": _WIDTH,
    "precision_horz": _WIDTH,
    "precision_vert": _WIDTH,
}
_HASHED = {  # RFC 7929 section 3, RFC 8162 section 3
    word: (re.compile(rf"[0-9a-f]{{56}}\.{word}(\.|$)|\*\.{word}"), f"HASH.{word}, the hash being of the local part")
    for word in ("_openpgpkey", "_smimecert")
}
_SVCB = Type({"priority": _number, "target": host, "value": _parameters}, optional=("value",), alone=_all_elsewhere)

# Names and order of the parts are the API's and, but for LOC's units, a zone file's.
TYPES: dict[str, Type] = {
    "A": Type(read=_ipv4, proxiable=True, divided=True),
    "AAAA": Type(read=_ipv6, proxiable=True, divided=True),
    "CAA": Type({"flags": _number, "tag": _lower, "value": _word}, quoted=("value",), judge=_certification),
    "CERT": Type({"type": _number, "key_tag": _number, "algorithm": _number, "certificate": _base64}),
    "CNAME": Type(read=_target, points=True, to_name=True, proxiable=True, divided=True, excludes=_alias),
    "DNSKEY": Type(
        {"flags": _number, "protocol": _number, "algorithm": _number, "public_key": _base64},
        known={"protocol": (3,), "algorithm": _SIGNING},
    ),
    "DS": Type(
        {"key_tag": _number, "algorithm": _number, "digest_type": _number, "digest": _hex},
        known={"algorithm": _SIGNING, "digest_type": range(1, 7)},
        apex=(
            "a zone's DS stands in the zone above it",
            "give it to the registrar of the domain",
        ),  # RFC 4035 section 2.4
    ),
    "HTTPS": _SVCB,
    "LOC": Type(_LOC, within=_LOC_BOUNDS, judge=_latitude),
    "MX": Type(read=_target, prioritised=True, points=True, divided=True, alone=_no_mail),
    "NAPTR": Type(_NAPTR | {"replacement": host}, to_name=True, quoted=("flags", "service", "regex")),
    "NS": Type(
        read=_target,
        points=True,
        excludes=_delegation,
        apex=(
            "the zone's own NS are Cloudflare's: another one is neither shown nor kept",
            "take it away; the registrar of the domain says which name servers it has",
        ),
    ),
    "OPENPGPKEY": Type(read=lambda _zone, _name, content: _base64(content), asked=_HASHED["_openpgpkey"]),
    "PTR": Type(read=_target, points=True, to_name=True),
    "SMIMEA": Type(_TLSA, known=_DANE, asked=_HASHED["_smimecert"]),
    "SRV": Type(
        {"priority": _number, "weight": _number, "port": _number, "target": host},
        place=(_SERVICE, "_SERVICE._PROTOCOL, like _imaps._tcp"),  # RFC 2782; octodns#185
        alone=_no_service,
    ),
    "SSHFP": Type(
        {"algorithm": _number, "type": _number, "fingerprint": _hex},
        known={"algorithm": (1, 2, 3, 4, 6), "type": (1, 2)},  # RFC 4255, 6594, 7479, 8709
    ),
    "SVCB": _SVCB,
    "TLSA": Type(_TLSA, known=_DANE, asked=(re.compile(r"_(\d+|\*)\._|\*"), "_PORT._PROTOCOL, like _25._tcp.mail")),
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
