"""DNS records as values: what a person writes and what Cloudflare answers become equal where they mean the same.

Pure. `record` is the only way to make a `Record`; everything here is text in, text out.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from reconciler.dns import text, types
from reconciler.names import host, is_host, is_plain, key_name, meant, relative
from reconciler.resources import UNKNOWN, UNMANAGED, Record, Special

NAME_LIMIT = 253  # characters, RFC 1035 section 2.3.4 without its lengths and the root
_PRIVATE = (
    *("10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
    *("::1/128", "fc00::/7", "fe80::/10"),
)
TEXT_LIMIT = 4096  # bytes of a TXT's strings, each with its length
TEXTS_LIMIT = 8192  # bytes of all TXT of one name
COMMENT_LIMIT = 100  # characters, on Cloudflare's Free plan
AUTO_TTL = 1
_ADDRESSING = ("A", "AAAA", "CNAME")
Data = tuple[tuple[str, types.Value], ...]


class InvalidRecord(ValueError):
    """What is wrong with a record, and where.

    ``place`` leads to it: ``("zone",)``, ``("name",)``, ``("priority",)``, ``("content",)``, ``("data",)`` or
    ``("data", PART)``. ``hint`` is what to write, where that is known.
    """

    def __init__(self, message: str, *place: str, hint: str = "") -> None:
        super().__init__(message)
        self.place = place
        self.hint = hint


def record(
    zone: str,
    type: str,
    name: str,
    content: str | Special | None = None,
    *,
    ttl: int | str = AUTO_TTL,
    proxied: bool = False,
    priority: int | None = None,
    data: Mapping[str, Any] | None = None,
    comment: str | Special | None = UNMANAGED,
) -> Record:
    """Make a record of what a person or the API wrote, normalised so that equal meaning is an equal value.

    ``name`` may be relative, ``@``, or whole; ``ttl`` is in seconds, ``"auto"`` or 1. Types that are made of parts
    (CAA, SRV, TLSA, ...) take ``data``, or ``content`` as a zone file has it. Raises `InvalidRecord`, which says what
    is wrong and where, when it makes no record of that type.
    """
    place, pairs = "zone", None
    try:
        zone, type = host(zone), sys.intern(type.upper())  # noqa: A001 (the field's own name)
        row, place = types.TYPES.get(type, types.OTHER), "name"
        name, place = relative(name, zone), "priority"
        if row.prioritised:
            content, priority = _prioritised(type, content, priority, data)
        if row.parts:
            pairs = _data(type, zone, content, data, priority)
            content = types.rendered(type, dict(pairs))
        elif not isinstance(content, Special):
            place = "content"
            if type == "SPF":
                raise ValueError("SPF is no type any more (RFC 7208 section 3.1): write it as TXT")  # noqa: TRY301
            if not isinstance(content, str) or not content:
                raise ValueError(f"{type} needs a content")  # noqa: TRY301
            content = row.read(zone, name, content)
    except InvalidRecord:
        raise
    except ValueError as error:
        raise InvalidRecord(str(error), place) from None
    if isinstance(comment, str):
        comment = comment.strip() or None
    ttl = AUTO_TTL if proxied or ttl == "auto" else int(ttl)  # Cloudflare answers 1 for whatever is proxied
    return Record(zone, type, name, content, ttl, proxied, priority if row.prioritised else None, pairs, comment)


def dkim_record(zone: str, domain: str, selector: str, algorithm: str, public_key: str | Special) -> Record:
    """Derive the record that publishes a DKIM key (RFC 6376 section 3.6.1, RFC 8463 section 4).

    ``zone`` may be a parent of ``domain``; ``public_key`` is as `keys.public_key` gives it, or UNKNOWN. Raises
    ValueError where the domain lies outside the zone.
    """
    content: str | Special = UNKNOWN
    if isinstance(public_key, str):
        content = f"v=DKIM1; k={algorithm}; h=sha256; p={public_key}"
    return record(zone, "TXT", f"{key_name(selector, domain)}.", content)


_BEFORE_HOST = re.compile(r"(\d{1,5})\s+(\S+)")
_BEFORE_PARTS = re.compile(r"(\d{1,5})\s+(\d.*)")


def _prioritised(type: str, content: Any, priority: Any, data: Mapping[str, Any] | None) -> tuple[Any, int]:
    """Split the priority of an MX or a URI off.

    It stands beside the content, before it as in a zone file or, where the API is going to put it, inside the data. A
    null MX (RFC 7505) needs none.
    """
    if priority is None and data is not None:
        priority = data.get("priority")
    priority = None if priority is None else int(priority)
    pattern = _BEFORE_PARTS if types.TYPES[type].parts else _BEFORE_HOST
    if isinstance(content, str) and (match := pattern.fullmatch(content)):
        written, content = int(match[1]), match[2]
        if priority not in (None, written):
            raise ValueError(f"{type} has two priorities, {priority} and {written}")
        priority = written
    if priority is None and content != ".":
        raise ValueError(f"{type} needs a priority")
    return content, priority or 0


def _data(type: str, zone: str, content: Any, data: Mapping[str, Any] | None, priority: Any) -> Data:
    """Read the parts of a record from its data or, where there is none, from its content; sorted by name."""
    row, place = types.TYPES[type], ("data",) if data else ("content",)
    try:
        given = dict(data) if data else types.parsed(type, content, priority)
    except ValueError as error:
        raise InvalidRecord(str(error), *place) from None
    for name in row.optional:
        given.setdefault(name, "")
    if priority is not None and given.get("priority") is None:
        given["priority"] = priority
    pairs = []
    for name, part in sorted(row.parts.items()):
        if given.get(name) is None:
            raise InvalidRecord(f"{type} needs {name} in its data: {', '.join(row.parts)}", *place)
        try:
            pairs.append((name, part(zone if given[name] == "@" else given[name])))
        except ValueError as error:
            raise InvalidRecord(f"{name} of {type}: {error}", *place, *([name] if data else [])) from None
    return tuple(pairs)


def check_data(record: Record) -> None:
    """Raise `InvalidRecord` where a record's name, or its data, is nothing that its type may have.

    dnspython knows the ranges, lengths and words of each type. It is imported for those that are made of parts alone:
    nobody else has to wait for it. What is live is not judged, since Cloudflare has taken it.
    """
    row = types.TYPES.get(record.type, types.OTHER)
    _check_name(record)
    _check_hosts(record, row)
    _check_parts(record, row)
    if record.type == "TXT" and (size := text.size(str(record.content))) > TEXT_LIMIT:
        hint = "name a list elsewhere (include: in SPF), or take a shorter key"
        raise InvalidRecord(f"takes {size} bytes, and Cloudflare allows {TEXT_LIMIT}", "content", hint=hint)
    if not row.parts and record.type != "OPENPGPKEY":
        return
    import dns.exception
    import dns.name
    import dns.rdata

    written = types.zone_file(record.type, dict(record.data), record.priority) if record.data else str(record.content)
    try:
        dns.rdata.from_text("IN", record.type, written, origin=dns.name.root, relativize=False)
    except (dns.exception.DNSException, ValueError, ArithmeticError) as error:
        said = str(error).removesuffix(".")
        named = [name for name, value in record.data or () if str(value) in re.findall(r"[^\s'\"]+", said)]
        if len(named) == 1:  # a message that quotes one part is about that part
            raise InvalidRecord(f"{named[0]} of {record.type}: {said}", "data", named[0]) from None
        raise InvalidRecord(f"{record.type}: {said}", "data" if record.data else "content") from None


def _check_name(record: Record) -> None:
    if len(record.host) > NAME_LIMIT:
        raise InvalidRecord(f"has {len(record.host)} characters with its zone, and {NAME_LIMIT} are allowed", "name")
    if not is_plain(record.host.removeprefix("*.")):
        raise InvalidRecord(f"{record.name!r} holds what no name at Cloudflare has", "name")
    row = types.TYPES.get(record.type, types.OTHER)
    if record.name == "@" and row.apex is not None:
        raise InvalidRecord(row.apex[0], "name", hint=row.apex[1])
    place = row.place
    if place is not None and not place[0].fullmatch(record.host):
        raise InvalidRecord(f"{record.name!r} is no name of {record.type}", "name", hint=f"write it as {place[1]}")


def _check_parts(record: Record, row: types.Type) -> None:
    """Judge what dnspython leaves open: numbers without a meaning, bounds, and what parts say together."""
    values = dict(record.data or ())
    for name, known in row.known.items():
        if (value := values.get(name)) is not None and value not in known:
            hint = f"known are {', '.join(map(str, known))}"
            raise InvalidRecord(f"{name} of {record.type}: {value} has no meaning", "data", name, hint=hint)
    for name, (least, most) in row.within.items():
        if name in values and not least <= float(values[name]) <= most:
            hint = f"from {least} to {most}"
            raise InvalidRecord(f"{name} of {record.type}: {values[name]} is out of range", "data", name, hint=hint)
    if values and (fault := row.judge(values)) is not None:
        name, summary, hint = fault
        raise InvalidRecord(f"{name} of {record.type}: {summary}", "data", name, hint=hint)


def _check_hosts(record: Record, row: types.Type) -> None:
    """Judge what a record points to, and what it can't be proxied to."""
    content = str(record.content)
    named = [(("data", name), str(value)) for name, value in record.data or () if row.parts[name] is host]
    places: list[tuple[tuple[str, ...], str]] = [*named, *([(("content",), content)] if row.points else [])]
    for place, target in places:
        if target == "." and (place != ("content",) or record.type == "MX"):
            continue
        if (kind := _address_kind(target)) is not None:
            summary = f"{target} is an address, where a name has to stand"
            raise InvalidRecord(summary, *place, hint=f"make {kind} record of it, and write that record's name here")
        if not (is_plain(target) and not _is_path(target) if row.to_name else is_host(target)):
            raise InvalidRecord(f"{target!r} is no host's name", *place, hint=_host_meant(target))
        if record.type == "CNAME" and target == record.host:
            raise InvalidRecord("is an alias of itself", *place, hint="write the host that it is to lead to")
    if record.proxied and row.divided and not row.points and _is_private(content):
        raise InvalidRecord(f"{content} is a private address, which can't be proxied", "content")


def _is_path(target: str) -> bool:
    """Whether a slash in a name is one of an address on the web, and none of a divided network (RFC 2317)."""
    return any("/" in label and not _DIVIDED.fullmatch(label) for label in target.split("."))


_DIVIDED = re.compile(r"\d{1,3}/\d{1,3}")


def _address_kind(text: str) -> str | None:
    """Return the type of record, with its article, that an address stands in; None for what is none."""
    from ipaddress import ip_address

    if not text[-1:].isdecimal() and ":" not in text:
        return None
    try:
        return "an A" if ip_address(text).version == 4 else "an AAAA"  # noqa: PLR2004 (of IP)
    except ValueError:
        return None


def _host_meant(text: str) -> str:
    if text.startswith("*"):
        return "a wildcard answers for other names and is none itself: write a whole host"
    found = meant(text)
    return f"write {found}" if found and found != text else "write a host, like mail.example.com"


def _is_private(address: str) -> bool:
    """Whether only a private network knows an address; those for documentation are proxied on purpose."""
    from ipaddress import ip_address, ip_network

    networks = map(ip_network, _PRIVATE)
    return any(ip_address(address) in network for network in networks)


def policy(record: Record) -> text.MailPolicy | None:
    """Return the policy of which a record's name may have one."""
    return types.TYPES.get(record.type, types.OTHER).once(record.name, record.content)


def excludes(record: Record, other: Record) -> bool:
    """Whether a record allows none of the other's type beside it at its name."""
    return types.TYPES.get(record.type, types.OTHER).excludes(record.name, other.type)


def alone(record: Record) -> str:
    """Return what a record says that allows no other of its type beside it at its name; mostly nothing."""
    return types.TYPES.get(record.type, types.OTHER).alone(record.content, dict(record.data or ()))


def undelegated(hosts: Mapping[str, Sequence[Record]], record: Record) -> bool:
    """Whether a record is a DS without the NS of its name, which Cloudflare asks for (octodns-cloudflare#102)."""
    return record.type == "DS" and not any(item.type == "NS" for item in hosts.get(record.host, ()))


class Hosts(dict[str, list[Record]]):
    """Full names, and all that there is at each."""

    def __init__(self, records: Iterable[Record]) -> None:
        super().__init__()
        for item in records:
            self.setdefault(item.host, []).append(item)

    @cached_property
    def existing(self) -> frozenset[str]:
        """These names and those above them, which exist by having something below (RFC 4592 section 2.2.2)."""
        return frozenset(
            ".".join(labels[at:]) for labels in (name.split(".") for name in self) for at in range(len(labels))
        )


def answering(hosts: Hosts, name: str) -> Sequence[Record]:
    """Return the records that answer for a name: its own, or those of the wildcard that stands for it (RFC 4592)."""
    if name in hosts:
        return hosts[name]
    above = name
    while above not in hosts.existing:
        _, dot, above = above.partition(".")
        if not dot:
            return ()
    return () if above == name else hosts.get(f"*.{above}", ())


def mail_host(record: Record) -> str:
    """Return the host that an MX or SRV leads a client to; empty for other records, and where it leads to none."""
    target = {"MX": record.content, "SRV": dict(record.data or ()).get("target")}.get(record.type)
    return target if isinstance(target, str) and target != "." else ""


def unreached(hosts: Hosts, record: Record) -> str:
    """Return the address that an MX leads to where only one's own network knows each of them; else nothing."""
    if record.type != "MX":
        return ""
    found = [str(item.content) for item in answering(hosts, mail_host(record)) if item.type in ("A", "AAAA")]
    return found[0] if found and all(map(_is_private, found)) else ""


def unasked(record: Record, led_to: Collection[str]) -> str:
    """Return the form of names that whoever uses a type asks for, where a record's has another; mostly nothing.

    ``led_to`` are the names that an alias leads to.
    """
    asked = types.TYPES.get(record.type, types.OTHER).asked
    return asked[1] if asked and not asked[0].match(record.name) and record.host not in led_to else ""


def leads_nowhere(hosts: Hosts, zones: Collection[str], name: str) -> bool:
    """Whether a name within one of the zones has no address there; one that is delegated or an alias may have one."""
    if not any(name == zone or name.endswith(f".{zone}") for zone in zones):
        return False
    return not is_delegated(hosts, name) and not any(item.type in _ADDRESSING for item in answering(hosts, name))


def is_delegated(hosts: Mapping[str, Sequence[Record]], name: str) -> bool:
    """Whether a name, or one above it, has name servers of its own (the zone's are in no listing)."""
    above = name
    while above:
        if any(item.type == "NS" for item in hosts.get(above, ())):
            return True
        above = above.partition(".")[2]
    return False


# ------------------------------------------------------------------------------------------------------- ownership
_MARK = re.compile(r"(?:(.*)\s)?reconciler:([a-z0-9-]{1,24})", re.DOTALL)


def owner(comment: str | None) -> tuple[str | None, str | None]:
    """Split a comment into the user's own text and the stack whose mark stands at its end, if one does."""
    match = _MARK.fullmatch(comment or "")
    if match is None:
        return comment or None, None
    return (match[1] or "").strip() or None, match[2]


def marked(text: str | None, stack: str) -> str | None:
    """Put a stack's mark behind a comment's text; None where that is longer than Cloudflare stores."""
    comment = f"{text} reconciler:{stack}" if text else f"reconciler:{stack}"
    return comment if len(comment) <= COMMENT_LIMIT else None


# ------------------------------------------------------------------------------------------------------------ head
_HEAD_LIMIT = 24


def head(record: Record) -> str:
    """Return the head of a record's value, which tells it from others of its name in an address.

    ``spf1`` for ``v=spf1 ...``, ``google-site-verification``, an IP address, a host: at most 24 characters out of
    letters, digits and ``._:-``.
    """
    content = record.content if isinstance(record.content, str) else record.follows
    parts = dict(record.data or ())
    text = str(parts.get("target") or content)
    if record.type == "CAA":
        text = f"{parts.get('tag')}:{parts.get('value')}"
    elif record.type == "TXT":
        match = re.match(r"v=([A-Za-z0-9]+)", content) or re.match(r"([A-Za-z0-9._-]+)[=:]", content)
        text = match[1] if match else content
    return re.sub(r"[^A-Za-z0-9._:-]+", "-", text).strip("-")[:_HEAD_LIMIT]
