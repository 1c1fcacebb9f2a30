"""A fake of Cloudflare's v4 DNS API: zones, records, the atomic batch, tokens, and what the API refuses.

Nothing of the real API could be recorded, so this follows what its users have reported: the codes and texts are those
people meet in practice. Where nobody wrote a code down the fake answers `_UNRECORDED`: a client must live on the text.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import idna

from reconciler.simulator.wire import Reply, Request

_BASE = "/client/v4"
_UNRECORDED = 1000
_PROXIABLE = frozenset({"A", "AAAA", "CNAME"})
_SETTINGS = frozenset({"flatten_cname", "ipv4_only", "ipv6_only"})
_INPUTS = ("name", "type", "content", "data", "priority", "ttl", "proxied", "comment", "tags", "settings")
_VERBS = ("deletes", "patches", "puts", "posts")  # the order of a batch, whatever the order sent
NAME_SERVERS = ("ada.ns.cloudflare.com", "bob.ns.cloudflare.com")
_WINDOW = 300.0  # seconds a rate is counted over, and everything is refused for when it is exceeded

T = TypeVar("T")
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Token:
    """What an API token may do: on which zones (``None``: all), and ``"read"``, ``"edit"`` or ``"none"`` of their DNS.

    ``status`` is ``active``, ``disabled`` or ``expired``; ``elsewhere`` is a token that is bound to other addresses
    than the client's.
    """

    zones: frozenset[str] | None = None
    dns: str = "edit"
    status: str = "active"
    elsewhere: bool = False

    def sees(self, zone: str) -> bool:
        """Say whether the token covers a zone at all."""
        return self.zones is None or zone in self.zones


@dataclass(frozen=True, slots=True)
class _Plan:
    batch: int
    records: int
    comment: int
    tags: int


_PLANS = {"free": _Plan(200, 200, 100, 0), "paid": _Plan(3500, 3500, 500, 20)}


class Refusal(Exception):
    """What the API answers in place of a result."""

    def __init__(self, status: int, code: int, message: str, chain: Iterable[tuple[int, str]] = ()) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.chain = [{"code": code, "message": message} for code, message in chain]

    def errors(self, *, wrapped: bool) -> list[Record]:
        """Render as the envelope's ``errors``; the API has begun to leave out the wrapping ``1004``."""
        if self.chain and self.code == 1004 and not wrapped:
            return self.chain[:1]
        return [{"code": self.code, "message": self.message} | ({"error_chain": self.chain} if self.chain else {})]


def _invalid(code: int, message: str) -> Refusal:
    """Make the refusal of a record: the useful text is in the chain, the error itself says nothing."""
    return Refusal(400, 1004, "DNS Validation Error", [(code, message)])


def _malformed() -> Refusal:
    return Refusal(400, 9207, "Request body is invalid.")


# --------------------------------------------------------------------------------------------------------- names
_LABEL = re.compile(r"[a-z0-9_/-]{1,63}")


def _ascii(name: str) -> str:
    """Lower-case a name and put it into Punycode; raises ValueError where that makes no host name."""
    labels = name.lower().split(".")
    labels = [label if label.isascii() else idna.encode(label, uts46=True).decode() for label in labels]
    body = labels[1:] if labels[0] == "*" else labels
    if not all(_LABEL.fullmatch(label) for label in body) or len(".".join(labels)) > 253:
        raise ValueError(name)
    return ".".join(labels)


def _fqdn(name: Any, zone: str) -> str:
    """Complete a record's name: it may come relative, as ``@``, or whole, with or without the last dot."""
    try:
        plain = zone if name == "@" else _ascii(name.removesuffix("."))
    except (ValueError, AttributeError):  # idna's errors are ValueErrors
        raise _invalid(9000, "DNS name is invalid.") from None
    if plain == zone or plain.endswith(f".{zone}"):
        return plain
    return f"{plain}.{zone}"


def _target(content: Any, zone: str, code: int, kind: str) -> str:
    """Complete a host name that a record points to: it comes back in lower case without the last dot."""
    try:
        return zone if content == "@" else _ascii(content.removesuffix(".").replace("*", "?"))  # no wildcards here
    except (ValueError, AttributeError):
        raise _invalid(code, f"Content for {kind} record is invalid.") from None


# ----------------------------------------------------------------------------------------------------------- TXT
_WIRE = 4096
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"(?:\s+|$)')
_ESCAPE = re.compile(r"\\(\d{3}|.)")


def _strings(content: str) -> list[bytes] | None:
    """Decode quoted character-strings (RFC 1035, 5.1); ``None`` where the text is not made of them."""
    strings, position = [], 0
    while position < len(content):
        match = _QUOTED.match(content, position)
        if match is None:
            return None
        strings.append(_ESCAPE.sub(_unescape, match[1]).encode("latin-1", "replace"))
        position = match.end()
    return strings or None


def _unescape(match: re.Match[str]) -> str:
    return chr(int(match[1]) & 255) if len(match[1]) == 3 else match[1]


def _quote(text: bytes) -> str:
    plain = "".join(chr(byte) if 32 <= byte < 127 else f"\\{byte:03}" for byte in text.replace(b"\\", b"\\\\"))
    return '"' + plain.replace('"', '\\"') + '"'


def _text(content: Any) -> str:
    """Store a TXT as it was sent, quoted or not; only a quoted string above 255 bytes is split (RFC 1035, 3.3)."""
    strings = _strings(content) if isinstance(content, str) else None
    served = character_strings(content) if isinstance(content, str) else []
    if sum(len(string) + -(-len(string) // 255) for string in served) > _WIRE:  # manage.get.gov#5244
        raise _invalid(9015, "Record content exceeds the allowed length of 4096 wire format bytes.")
    if not isinstance(content, str) or not content.strip() or (strings is not None and not any(strings)):
        raise _invalid(_UNRECORDED, "Content for TXT record must not be empty.")
    if re.search(r"[^ -~]", content):
        raise _invalid(9051, "Invalid TXT record. Record may only contain printable ASCII!")
    if strings is None or all(len(string) <= 255 for string in strings):
        return content
    chunks = [string[at : at + 255] for string in strings for at in range(0, max(len(string), 1), 255)]
    return " ".join(_quote(chunk) for chunk in chunks)


def character_strings(content: str) -> list[bytes]:
    """Return what a name server answers for a TXT, however it is stored: strings of 255 bytes at most."""
    text = content.encode()
    return _strings(content) or [text[at : at + 255] for at in range(0, len(text), 255)]


def _served(content: str) -> bytes:
    """Return a TXT's value: its strings are joined without anything between them (RFC 7208, 3.3)."""
    return b"".join(character_strings(content))


# ---------------------------------------------------------------------------------------------------------- data
# The parts that a type is written through, and the rendered content that comes back with them.
_TLSA = ("usage:int selector:int matching_type:int certificate:str", "{usage} {selector} {matching_type} {certificate}")
_SVCB = ("priority:int target:str value:text", "{priority} {target} {value}")
_LOC_PARTS = (
    "lat_degrees:int lat_minutes:int lat_seconds:float lat_direction:str long_degrees:int long_minutes:int "
    "long_seconds:float long_direction:str altitude:float size:float precision_horz:float precision_vert:float"
)
_LOC_SHAPE = (
    "{lat_degrees} {lat_minutes} {lat_seconds:.3f} {lat_direction} {long_degrees} {long_minutes} {long_seconds:.3f} "
    "{long_direction} {altitude:.2f}m {size:.2f}m {precision_horz:.2f}m {precision_vert:.2f}m"
)
_NAPTR = (
    "order:int preference:int flags:text service:text regex:text replacement:str",
    '{order} {preference} "{flags}" "{service}" "{regex}" {replacement}',
)
_CERT = ("type:int key_tag:int algorithm:int certificate:str", "{type} {key_tag} {algorithm} {certificate}")
_DNSKEY = ("flags:int protocol:int algorithm:int public_key:str", "{flags} {protocol} {algorithm} {public_key}")
_DS = ("key_tag:int algorithm:int digest_type:int digest:str", "{key_tag} {algorithm} {digest_type} {digest}")
_DATA: dict[str, tuple[list[tuple[str, str]], str]] = {
    kind: ([(part.partition(":")[0], part.partition(":")[2]) for part in parts.split()], shape)
    for kind, (parts, shape) in {
        "CAA": ("flags:flags tag:str value:text", '{flags} {tag} "{value}"'),
        "CERT": _CERT,
        "DNSKEY": _DNSKEY,
        "DS": _DS,
        "HTTPS": _SVCB,
        "LOC": (_LOC_PARTS, _LOC_SHAPE),
        "NAPTR": _NAPTR,
        "SMIMEA": _TLSA,
        "SRV": ("priority:int weight:int port:int target:host", "{priority} {weight} {port} {target}"),
        "SSHFP": ("algorithm:int type:int fingerprint:str", "{algorithm} {type} {fingerprint}"),
        "SVCB": _SVCB,
        "TLSA": _TLSA,
        "URI": ("weight:int target:str", '{weight} "{target}"'),
    }.items()
}


def _part(name: str, form: str, value: Any, zone: str) -> Any:
    """Read one part of a record's data in its form."""
    if value is None or (value == "" and form != "text"):
        raise _invalid(9101, f"{name} is a required data field.")
    if form in ("str", "text"):
        if not isinstance(value, str):
            raise _invalid(9101, f"{name} is not a valid data field.")
        return value.strip()
    if form == "host":
        if isinstance(value, str) and re.fullmatch(r"[0-9.]*[0-9]|.*:.*", value):
            raise _invalid(9101, f"{name} is not a valid hostname.")
        return "." if value == "." else _target(value, zone, 9101, "SRV")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not -100_000 <= number <= 42_849_672.95 or (form == "int" and not _u16(number)):
        raise _invalid(9101, f"{name} is not a valid data field.")
    if form == "flags":  # CAA's come back as they went in: as a number or as a string
        return value
    return int(number) if number.is_integer() else number


def _u16(number: float) -> bool:
    return number.is_integer() and 0 <= number <= 65535


def _data(kind: str, data: Any, zone: str) -> tuple[Record, str]:
    """Read a record's data and render its content; parts that a type does not have (SRV's old name) are dropped."""
    parts, shape = _DATA[kind]
    sent = data if isinstance(data, dict) else {}
    read = {name: _part(name, form, sent.get(name), zone) for name, form in parts}
    return read, shape.format(**read).rstrip()


# ------------------------------------------------------------------------------------------------------- records
_TYPES = frozenset({"A", "AAAA", "CNAME", "MX", "NS", "OPENPGPKEY", "PTR", "TXT", *_DATA})
_CONTENT_CODES = {"A": 9005, "AAAA": 9006, "CNAME": 9007, "MX": 9009}


def _content(kind: str, content: Any, name: str, zone: str) -> str:
    """Read the content of a type that has no data."""
    code = _CONTENT_CODES.get(kind, _UNRECORDED)
    if kind in ("A", "AAAA"):
        try:
            return str((ipaddress.IPv4Address if kind == "A" else ipaddress.IPv6Address)(str(content)))
        except ValueError:
            raise _invalid(code, f"Content for {kind} record must be a valid IP address.") from None
    if kind == "TXT":
        return _text(content)
    if kind == "OPENPGPKEY":
        if not isinstance(content, str) or not re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", content):
            raise _invalid(code, "Content for OPENPGPKEY record must be Base64.")
        return content
    if kind == "MX" and content == ".":  # a null MX, RFC 7505
        return "."
    target = _target(content, zone, code, kind)
    if kind == "CNAME" and target == name:
        raise _invalid(9039, "CNAME content cannot reference itself.")
    return target


def _priority(kind: str, body: Mapping[str, Any]) -> int:
    """Read the priority of an MX or a URI from its data or, as it was until now, from beside it; 0 counts as sent."""
    data = body.get("data")
    value = data.get("priority") if isinstance(data, dict) else None
    value = body.get("priority") if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 65535:
        raise _invalid(_UNRECORDED, f"priority is a required field of {kind} records, from 0 to 65535.")
    return value


_FORMS = {
    "type": str,
    "ttl": int,
    "proxied": bool,
    "comment": str,
    "tags": list,
    "settings": dict,
    "data": dict,
}


def _shape(body: Mapping[str, Any], zone: str) -> Record:
    """Bring what was sent into the form in which it is stored and comes back; raises `Refusal`."""
    if any(body.get(key) is not None and not isinstance(body[key], form) for key, form in _FORMS.items()):
        raise _malformed()
    if not all(isinstance(tag, str) for tag in body.get("tags") or ()):
        raise _malformed()
    kind = body.get("type")
    if kind not in _TYPES:  # SPF among them: RFC 7208 gave up the type, a TXT is wanted
        raise _invalid(_UNRECORDED, f"DNS record type {kind!s:.20} is not supported.")
    name = _fqdn(body.get("name"), zone)
    if kind == "SRV" and not re.match(r"_[^.]+\._[^.]+\.", name):  # octodns#185, cloudflare-php#67
        raise _invalid(9150, "The name of an SRV record must be of the form _service._proto.name.")
    record: Record = {"name": name, "type": kind}
    if kind in _DATA:
        record["data"], record["content"] = _data(kind, body.get("data"), zone)
    else:
        record["content"] = _content(kind, body.get("content"), name, zone)
    if kind in ("MX", "URI"):
        record["priority"] = _priority(kind, body)
    elif kind == "SRV":
        record["priority"] = record["data"]["priority"]
    proxied = bool(body.get("proxied"))
    record["proxiable"] = kind in _PROXIABLE and not _private(record["content"])
    record["proxied"] = proxied
    record["ttl"] = 1 if proxied else body.get("ttl", 1)
    record["comment"] = body.get("comment") or None
    record["tags"] = list(body.get("tags") or ())
    settings = {key: value for key, value in (body.get("settings") or {}).items() if value and key in _SETTINGS}
    if proxied:
        settings.pop("flatten_cname", None)  # ignored without a word
    if settings or proxied or kind != "CNAME":
        record["settings"] = settings
    return record


# Not `is_private`: people proxy 192.0.2.1 on purpose, for a name that has no server.
_PRIVATE = [
    *map(ipaddress.ip_network, ("10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")),
    *map(ipaddress.ip_network, ("::1/128", "fc00::/7", "fe80::/10")),
]


def _private(content: str) -> bool:
    try:
        address = ipaddress.ip_address(content)
    except ValueError:
        return False
    return any(address in network for network in _PRIVATE)


def _check(record: Record, ttl: Any, plan: _Plan) -> None:
    """Refuse attributes that the API refuses. ``ttl`` is the one sent, which is checked even where it has no effect."""
    if ttl is None or isinstance(ttl, bool) or not (ttl == 1 or 60 <= ttl <= 86400):
        raise _invalid(9021, "Invalid TTL. Must be between 60 and 86400 seconds, or 1 for Automatic.")
    if record["proxied"]:
        _check_proxied(record)
    comment = record["comment"]
    if comment is not None and len(comment) > plan.comment:
        raise _invalid(9313, f"DNS record comment is longer than the maximum of {plan.comment} characters.")
    if comment is not None and re.search(r"[\x00-\x1f\x7f]", comment):
        raise _invalid(_UNRECORDED, "DNS record comment must not contain newlines.")
    tags = record["tags"]
    if len(tags) > plan.tags:
        raise _invalid(9300, f"DNS record has {len(tags)} tags, exceeding the quota of {plan.tags}.")
    for tag in tags:
        name, _, value = tag.partition(":")
        if not 1 <= len(name) <= 32 or len(value) > 100 or name.startswith("cf-"):
            raise _invalid(_UNRECORDED, "DNS record tag is invalid.")


def _check_proxied(record: Record) -> None:
    if record["type"] not in _PROXIABLE:
        raise _invalid(9004, "This kind of record cannot be proxied")
    if not record["proxiable"]:
        raise _invalid(9041, "This DNS record cannot be proxied - click the cloud icon to turn it gray to proceed")
    if record["content"] in ("1.1.1.1", "1.0.0.1") or record["content"].endswith(".acm-validations.aws"):
        raise _invalid(9003, f"Target {record['content']} is not allowed for a proxied record.")


def _identity(record: Record) -> tuple[Any, ...]:
    """Tell two records of a name apart: TTL, comment and the way a TXT is quoted do not count."""
    content = _served(record["content"]) if record["type"] == "TXT" else record["content"]
    return (record["type"], content, record.get("priority"))


def _unquoted(record: Record) -> bool:
    return record["type"] == "TXT" and _strings(record["content"]) is None


# --------------------------------------------------------------------------------------------------------- zones
class _Zone:
    """The records of a zone, with the bytes of each as they are sent: a page is put together by joining them."""

    def __init__(self, name: str, account: str = "simulator", status: str = "active", type: str = "full") -> None:
        self.name, self.account, self.status, self.type = name, account, status, type
        seed = name if account == "simulator" else f"{name} {account}"
        self.id = hashlib.blake2b(seed.encode(), digest_size=16).hexdigest()
        self.created = _now()
        self.priority_in_data = False
        self.restore({})

    @property
    def account_id(self) -> str:
        """The id of its account."""
        if self.account == "simulator":
            return "1" * 32
        return hashlib.blake2b(self.account.encode(), digest_size=16).hexdigest()

    def restore(self, records: dict[str, Record]) -> None:
        """Go back to an earlier set of records."""
        self.records = records
        self.wire = {id_: self._rendered(record) for id_, record in records.items()}
        self.names: dict[str, dict[str, Record]] = {}
        for id_, record in records.items():
            self.names.setdefault(record["name"], {})[id_] = record
        self._sorted: list[Record] | None = None

    def _rendered(self, record: Record) -> bytes:
        """Write a record as it is sent; where ``priority_in_data``, as the API is going to have MX and URI alone."""
        if self.priority_in_data and record["type"] in ("MX", "URI"):
            data = record.get("data") or {"target": record["content"]}
            record = {name: value for name, value in record.items() if name != "priority"}
            record |= {"data": {"priority": self.records[record["id"]]["priority"], **data}}
        return json.dumps(record, separators=(",", ":")).encode()

    def put(self, record: Record) -> Record:
        """Store a record in place of the one with its id, if there is one."""
        if record["id"] in self.records:
            self.drop(record["id"])
        self.records[record["id"]] = record
        self.wire[record["id"]] = self._rendered(record)
        self.names.setdefault(record["name"], {})[record["id"]] = record
        self._sorted = None
        return record

    def drop(self, record_id: str) -> Record:
        """Forget a record."""
        record = self.records.pop(record_id)
        del self.wire[record_id], self.names[record["name"]][record_id]
        self._sorted = None
        return record

    def find(self, record_id: Any) -> Record:
        """Return a record that may be written."""
        record = self.records.get(record_id) if isinstance(record_id, str) else None
        if record is None:
            raise Refusal(404, 81044, "Record does not exist.")
        return record

    def writable(self, record_id: Any) -> Record:
        """Return a record unless it is one of Cloudflare's own (Email Routing's)."""
        record = self.find(record_id)
        if record["meta"].get("read_only"):
            raise Refusal(400, _UNRECORDED, "This record is read only: it is managed by Cloudflare.")
        return record

    def listing(self) -> list[Record]:
        """Return all records in the order in which they are listed unless another is asked for."""
        if self._sorted is None:
            self._sorted = sorted(self.records.values(), key=lambda record: (record["type"], record["name"]))
        return self._sorted

    def admit(self, record: Record, quota: int) -> None:
        """Refuse a record that can't stand beside the others of its name, or that is one too many."""
        record_id, kind, name = record["id"], record["type"], record["name"]
        beside = [other for other_id, other in self.names.get(name, {}).items() if other_id != record_id]
        types = {other["type"] for other in beside}
        if kind == "CNAME" and types & _PROXIABLE:
            raise Refusal(400, 81053, "An A, AAAA, or CNAME record with that host already exists.")
        if kind in _PROXIABLE and "CNAME" in types:
            raise Refusal(400, 81054, "A CNAME record with that host already exists.")
        if name != self.name:
            _admit_delegation(kind, types)
        if any(_identity(other) == _identity(record) for other in beside if other["type"] == kind):
            raise Refusal(400, 81058, "An identical record already exists.")
        texts = [_served(other["content"]) for other in (record, *beside) if other["type"] == "TXT"]
        if kind == "TXT" and sum(map(len, texts)) > 8192:
            raise Refusal(
                400, 83011, "Combined content length of records with this name and type exceeds 8192 characters."
            )
        if record_id not in self.records and len(self.records) >= quota:
            raise Refusal(400, 81045, "Record quota exceeded.")

    def release(self, record: Record) -> None:
        """Refuse to take the last NS from under a DS."""
        types = [other["type"] for other in self.names[record["name"]].values()]
        if record["type"] == "NS" and types.count("NS") == 1 and "DS" in types:
            raise Refusal(400, _UNRECORDED, "A DS record needs an NS record of the same name: delete it first.")


def _admit_delegation(kind: str, types: set[str]) -> None:
    """Below the zone itself an NS stands alone, but for DS, which needs it."""
    if kind == "DS" and "NS" not in types:
        raise Refusal(400, _UNRECORDED, "A DS record needs an NS record of the same name: create it first.")
    if kind not in ("NS", "DS") and "NS" in types:
        raise Refusal(400, 81056, "NS records with that host already exist.")
    if kind == "NS" and types - {"NS", "DS"}:
        raise Refusal(400, 81056, "Records other than NS with that host already exist.")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


# ------------------------------------------------------------------------------------------------------- listing
_TESTS: dict[str, Callable[[str, str], bool]] = {
    "exact": lambda text, wanted: text == wanted,
    "contains": lambda text, wanted: wanted in text,
    "startswith": lambda text, wanted: text.startswith(wanted),
    "endswith": lambda text, wanted: text.endswith(wanted),
}


def _filter(key: str, wanted: str) -> Callable[[Record], bool] | None:
    """Make a filter of one parameter; letters' case never counts. ``None`` where the parameter is not a filter."""
    field, _, test = key.partition(".")
    test, wanted = test or "exact", wanted.lower()
    if key == "search":
        return lambda record: any(wanted in str(record[name] or "").lower() for name in ("name", "content", "comment"))
    if key == "proxied":
        return lambda record: record["proxied"] is (wanted == "true")
    if field == "comment" and test in ("present", "absent"):
        return lambda record: (record["comment"] is not None) is (test == "present")
    if field == "tag" and test in ("present", "absent"):
        return lambda record: any(tag.lower().split(":")[0] == wanted for tag in record["tags"]) is (test == "present")
    if field not in ("name", "type", "content", "comment", "tag") or test not in _TESTS:
        return None
    if field == "tag":
        return lambda record: any(_TESTS[test](tag.lower(), wanted) for tag in record["tags"])
    return lambda record: _TESTS[test](str(record[field] or "").lower(), wanted)


def _select(zone: _Zone, request: Request) -> Sequence[Record]:
    """Return the records that a listing asks for, in the order that it asks for."""
    records: Sequence[Record] = zone.listing()
    tests = [test for key, values in request.query.items() for value in values if (test := _filter(key, value))]
    if tests:
        match = any if request.first("match") == "any" else all
        records = [record for record in records if match(test(record) for test in tests)]
    order, descending = request.first("order"), request.first("direction") == "desc"
    if order in ("type", "name", "content", "ttl", "proxied"):
        return sorted(records, key=lambda record: record[order], reverse=descending)
    return records[::-1] if descending else records


def _number(request: Request, name: str, default: int) -> int:
    text = request.first(name) or str(default)
    if not re.fullmatch(r"\d{1,9}(\.0)?", text) or float(text) < 1:
        raise Refusal(400, _UNRECORDED, f"Invalid {name}: must be a number from 1.")
    return int(float(text))


def _page(items: Sequence[T], request: Request, default: int, most: int) -> tuple[Sequence[T], Record]:
    """Cut a page out of a listing; ``per_page`` above the most is cut down to it, as ``result_info`` tells."""
    page, size = _number(request, "page", 1), min(_number(request, "per_page", default), most)
    cut = items[(page - 1) * size : page * size]
    return cut, {
        "page": page,
        "per_page": size,
        "count": len(cut),
        "total_count": len(items),
        "total_pages": -(-len(items) // size),
    }


# ----------------------------------------------------------------------------------------------------------- API
class Cloudflare:
    """Cloudflare's API for some zones: call it with a `wire.Request`, it answers a `wire.Reply`.

    ``tokens`` maps a token's value to what it may do; ``None`` lets every well-formed token do everything. ``plan``
    sets the limits of a batch, a comment and tags, and of the records of a zone unless ``quota`` does. ``rate_limit``
    is in requests for five minutes (Cloudflare's is 1,200), ``None`` is none; ``clock`` is its time in seconds.
    ``wrap_errors=False`` answers a refused record as Cloudflare announced it, without the `1004` around the cause, and
    ``priority_in_data`` a priority within the data alone.
    """

    def __init__(
        self,
        zones: Iterable[str],
        *,
        tokens: Mapping[str, Token] | None = None,
        plan: str = "free",
        quota: int | None = None,
        per_page_max: int = 5000,
        rate_limit: int | None = None,
        wrap_errors: bool = True,
        priority_in_data: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tokens = tokens
        self.plan = plan
        self.per_page_max = per_page_max
        self._limits = _PLANS[plan]
        self._quota = self._limits.records if quota is None else quota
        self._wrap_errors = wrap_errors
        self._rate = None if rate_limit is None else _Rate(rate_limit, clock)
        self._zones = {zone.name: zone for zone in (_Zone(_ascii(name)) for name in zones)}
        for zone in self._zones.values():
            zone.priority_in_data = priority_in_data
        self._serial = 0
        self._lock = threading.RLock()

    # What a test, or a person in the dashboard, does and sees. A zone is named by its name or, a twin, by its id.
    def zone_id(self, zone: str) -> str:
        """Return the id of a zone."""
        return self._zones[zone].id

    def change_zone(self, zone: str, *, status: str = "active", type: str = "full") -> None:
        """Let a zone be ``pending``, ``moved``, ...; or ``partial``, ``secondary``."""
        self._zones[zone].status, self._zones[zone].type = status, type

    def add_twin(self, name: str, account: str, *, status: str = "active", type: str = "full") -> str:
        """Add a second zone of a name, in another account, and return its id. It is in no `dump`, and never served."""
        twin = _Zone(name, account, status, type)
        self._zones[twin.id] = twin
        return twin.id

    def drop_zone(self, zone: str) -> None:
        """Remove a zone, as somebody does who moves to another host."""
        with self._lock:
            del self._zones[zone]

    def add(self, zone: str, **record: Any) -> str:
        """Make a record as somebody else would have, without limits, and return its id.

        Takes what the API takes, and ``meta`` (``{"read_only": True}`` is one of Email Routing's own). Raises `Refusal`
        where that is no record at all.
        """
        with self._lock:
            shaped = _shape(record, self._zones[zone].name) | {"meta": record.get("meta") or {}}
            return str(self._store(self._zones[zone], shaped, None)["id"])

    def edit(self, zone: str, record_id: str, **fields: Any) -> None:
        """Change fields of a record as somebody else would have, without limits."""
        with self._lock:
            old = self._zones[zone].find(record_id)
            shaped = _shape(_merge(old, fields), self._zones[zone].name) | {"meta": fields.get("meta", old["meta"])}
            self._store(self._zones[zone], shaped, old)

    def remove(self, zone: str, record_id: str) -> None:
        """Delete a record as somebody else would have."""
        with self._lock:
            self._zones[zone].drop(record_id)

    def shown(self) -> dict[str, tuple[Record, ...]]:
        """Return the records of every zone as name servers show them now; they are the stored ones, to be read only."""
        with self._lock:
            return {name: tuple(zone.records.values()) for name, zone in self._zones.items() if name == zone.name}

    def records(self, zone: str) -> list[Record]:
        """Return all records of a zone as they are stored, times included, by id: for a before and an after."""
        with self._lock:
            return deepcopy(sorted(self._zones[zone].records.values(), key=lambda record: str(record["id"])))

    def dump(self) -> Record:
        """Return the whole state as JSON: ``{"serial": n, "zones": {name: [record, ...]}}``. No token is in it."""
        with self._lock:
            names = [name for name, zone in self._zones.items() if name == zone.name]
            return {"serial": self._serial, "zones": {name: self.records(name) for name in names}}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over a state that `dump` returned."""
        with self._lock:
            self._serial = state["serial"]
            for name, records in state["zones"].items():
                zone = self._zones.setdefault(name, _Zone(name))
                zone.restore({record["id"]: record for record in deepcopy(records)})

    # Requests.
    def __call__(self, request: Request) -> Reply:
        """Answer a request; everything happens one after the other, as in one database."""
        with self._lock:
            try:
                if self._rate:
                    self._rate.count()
                reply = self._answer(request)
            except Refusal as refusal:
                reply = self._refuse(refusal)
            return reply if self._rate is None else self._rate.mark(reply)

    def _refuse(self, refusal: Refusal) -> Reply:
        errors = refusal.errors(wrapped=self._wrap_errors)
        return Reply.of({"result": None, "success": False, "errors": errors, "messages": []}, refusal.status)

    def _answer(self, request: Request) -> Reply:
        if not request.path.startswith(f"{_BASE}/"):
            raise Refusal(404, 7000, "No route for that URI")
        token = self._authenticate(request)
        match request.path.removeprefix(_BASE).split("/")[1:]:
            case ["user", "tokens", "verify"] if request.method == "GET":
                return _verified(request, token)
            case ["zones"] if request.method == "GET":
                return self._list_zones(request, token)
            case ["zones", zone_id] if request.method == "GET":
                return _result(_encode(self._describe(self._zone(token, zone_id, request))))
            case ["zones", zone_id, "pagerules"] if request.method == "GET":  # octoDNS asks for them
                self._zone(token, zone_id, request)
                return _result(b"[]")
            case ["zones", zone_id, "dns_records", *rest] if len(rest) < 2:
                zone = self._zone(token, zone_id, request)
                _permit(token, write=request.method != "GET")
                return self._dns_records(request, zone, rest)
        raise Refusal(404, 7000, "No route for that URI")

    def _authenticate(self, request: Request) -> Token:
        headers = request.headers
        if "x-auth-key" in headers or "x-auth-email" in headers:  # a token sent as the key of an account
            bad = [(6102, "Invalid format for X-Auth-Email header"), (6103, "Invalid format for X-Auth-Key header")]
            raise Refusal(400, 6003, "Invalid request headers", bad)
        if "authorization" not in headers:
            raise Refusal(400, 9106, "Missing X-Auth-Key, X-Auth-Email or Authorization headers")
        bearer = re.fullmatch(r"Bearer ([A-Za-z0-9_-]+)", headers["authorization"])
        if bearer is None:
            raise Refusal(400, 6003, "Invalid request headers", [(6111, "Invalid format for Authorization header")])
        token = Token() if self.tokens is None else self.tokens.get(bearer[1])
        if token is None or (token.status != "active" and not request.path.endswith("/user/tokens/verify")):
            raise Refusal(403, 9109, "Invalid access token")
        if token.elsewhere:
            raise Refusal(403, 9109, f"Cannot use the access token from location: {request.client}")
        return token

    def _zone(self, token: Token, zone_id: str, request: Request) -> _Zone:
        if not re.fullmatch("[0-9a-f]{32}", zone_id):  # most often a zone's name in the place of its id
            raise Refusal(404, 7003, f"Could not route to {request.path}, perhaps your object identifier is invalid?")
        zone = next((zone for zone in self._zones.values() if zone.id == zone_id), None)
        if zone is None or not token.sees(zone.name):
            raise Refusal(403, 10000, "Authentication error")
        return zone

    def _list_zones(self, request: Request, token: Token) -> Reply:
        wanted = request.first("name").lower()
        seen = [zone for zone in self._zones.values() if token.sees(zone.name) and wanted in ("", zone.name)]
        zones, info = _page(seen, request, 20, 50)
        return _result(_encode([self._describe(zone) for zone in zones]), info)

    def _describe(self, zone: _Zone) -> Record:
        plan = {"id": "0" * 32, "name": f"{self.plan.title()} Website", "legacy_id": self.plan}
        return {
            "id": zone.id,
            "name": zone.name,
            "status": zone.status,
            "paused": False,
            "type": zone.type,
            "development_mode": 0,
            "name_servers": list(NAME_SERVERS),
            "original_name_servers": None,
            "original_registrar": None,
            "original_dnshost": None,
            "created_on": zone.created,
            "modified_on": zone.created,
            "activated_on": zone.created,
            "meta": {"step": 2, "page_rule_quota": 3, "phishing_detected": False},
            "owner": {"id": None, "type": "user", "email": None},
            "account": {"id": zone.account_id, "name": zone.account},
            "permissions": ["#dns_records:read", "#zone:read"],
            "plan": plan,
        }

    def _dns_records(self, request: Request, zone: _Zone, rest: list[str]) -> Reply:
        match request.method, rest:
            case "GET", []:
                page, info = _page(_select(zone, request), request, 100, self.per_page_max)
                return _result(b"[" + b",".join([zone.wire[record["id"]] for record in page]) + b"]", info)
            case "GET", [record_id]:
                return self._one(zone, zone.find(record_id))
            case "POST", []:
                return self._one(zone, self._post(zone, _object(request)))
            case "POST", ["batch"]:
                return self._batch(zone, _object(request))
            case "PUT", [record_id]:
                return self._one(zone, self._put(zone, _object(request) | {"id": record_id}))
            case "PATCH", [record_id]:
                return self._one(zone, self._patch(zone, _object(request) | {"id": record_id}))
            case "DELETE", [record_id]:
                return _result(_encode({"id": self._delete(zone, {"id": record_id})["id"]}))
        raise Refusal(405, 10405, "Method not allowed for this authentication scheme")

    def _one(self, zone: _Zone, record: Record) -> Reply:
        return _result(zone.wire[record["id"]], warnings=_warnings([record]))

    # Writes: of one record, and of many as one.
    def _batch(self, zone: _Zone, body: Record) -> Reply:
        verbs = dict(zip(_VERBS, (self._delete, self._patch, self._put, self._post), strict=True))
        sent = {verb: body[verb] for verb in _VERBS if body.get(verb) is not None}
        if not all(
            isinstance(items, list) and all(isinstance(item, dict) for item in items) for items in sent.values()
        ):
            raise _malformed()
        if sum(map(len, sent.values())) > self._limits.batch:
            raise Refusal(400, _UNRECORDED, f"A batch is limited to {self._limits.batch} operations.")
        before = dict(zone.records)
        try:
            done = {verb: [verbs[verb](zone, item) for item in items] for verb, items in sent.items()}
        except Refusal:
            zone.restore(before)
            raise
        written = [record for verb, records in done.items() if verb != "deletes" for record in records]
        return _result(_encode({verb: done.get(verb) for verb in _VERBS}), warnings=_warnings(written))

    def _post(self, zone: _Zone, body: Record) -> Record:
        return self._write(zone, body, None)

    def _put(self, zone: _Zone, body: Record) -> Record:
        return self._write(zone, body, zone.writable(body.get("id")))

    def _patch(self, zone: _Zone, body: Record) -> Record:
        old = zone.writable(body.get("id"))
        return self._write(zone, _merge(old, body), old)

    def _delete(self, zone: _Zone, body: Record) -> Record:
        record = zone.writable(body.get("id"))
        zone.release(record)
        return zone.drop(record["id"])

    def _write(self, zone: _Zone, body: Record, old: Record | None) -> Record:
        record = _shape(body, zone.name) | {"meta": {}}
        _check(record, body.get("ttl"), self._limits)
        zone.admit(record | {"id": old["id"] if old else ""}, self._quota)
        return self._store(zone, record, old)

    def _store(self, zone: _Zone, record: Record, old: Record | None) -> Record:
        """Store a record with its id and its times."""
        now = _now()
        if old is None:
            self._serial += 1
            record_id = hashlib.blake2b(f"{zone.name} {self._serial}".encode(), digest_size=16).hexdigest()
        else:
            record_id = old["id"]
        record = {"id": record_id} | record
        record |= {"created_on": old["created_on"] if old else now, "modified_on": now}
        for name in ("comment", "tags"):
            if record[name]:
                same = old is not None and old[name] == record[name]
                record[f"{name}_modified_on"] = old[f"{name}_modified_on"] if old and same else now
        return zone.put(record)


class _Rate:
    """A count of requests in five minutes; who exceeds it waits five more, whatever he does."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self.limit, self.clock = limit, clock
        self.used, self.ends, self.blocked = 0, clock() + _WINDOW, False

    def count(self) -> None:
        """Count a request; raises `Refusal` when it is one too many."""
        now = self.clock()
        if now >= self.ends:
            self.used, self.ends, self.blocked = 0, now + _WINDOW, False
        self.used += 1
        if self.used > self.limit and not self.blocked:
            self.ends, self.blocked = now + _WINDOW, True
        if self.blocked:
            raise Refusal(429, 971, "Please wait and consider throttling your request speed")

    def mark(self, reply: Reply) -> Reply:
        """Add the headers that tell what is left."""
        left = str(math.ceil(max(0.0, self.ends - self.clock())))
        headers = {"x-ratelimit-remaining": str(max(0, self.limit - self.used)), "x-ratelimit-reset": left}
        if reply.status == 429:
            headers["retry-after"] = left
        return replace(reply, headers={**reply.headers, **headers})


def _permit(token: Token, *, write: bool) -> None:
    if token.dns != "edit" and (write or token.dns != "read"):
        raise Refusal(403, 10000, "Authentication error")


def _verified(request: Request, token: Token) -> Reply:
    """Say that a token is good. It does not tell what for."""
    token_id = hashlib.blake2b(request.headers["authorization"].encode(), digest_size=16).hexdigest()
    message = {"code": 10000, "message": f"This API Token is valid and {token.status}", "type": None}
    return _result(_encode({"id": token_id, "status": token.status}), warnings=[message])


def _merge(old: Record, patch: Mapping[str, Any]) -> Record:
    """Lay what a PATCH sends over what is there; a record that becomes another type keeps none of its content."""
    kept = {name: old[name] for name in _INPUTS if name in old}
    if patch.get("type", old["type"]) != old["type"]:
        kept = {name: value for name, value in kept.items() if name not in ("content", "data", "priority")}
    return kept | {name: value for name, value in patch.items() if name in _INPUTS}


def _object(request: Request) -> Record:
    try:
        body = request.json()
    except ValueError:
        raise _malformed() from None
    if not isinstance(body, dict):
        raise _malformed()
    return body


def _warnings(records: Iterable[Record]) -> list[Record]:
    text = "The content field of TXT records must be in quotation marks."
    return [{"code": _UNRECORDED, "message": f"{record['name']}: {text}"} for record in records if _unquoted(record)]


def _encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _result(result: bytes, info: Record | None = None, warnings: Sequence[Record] = ()) -> Reply:
    """Put a result that is JSON already into the envelope."""
    tail = {"success": True, "errors": [], "messages": list(warnings)} | ({"result_info": info} if info else {})
    return Reply(200, b'{"result":' + result + b"," + _encode(tail)[1:])
