"""DNS records as values: what a person writes and what Cloudflare answers become equal where they mean the same.

Pure. `record` is the only way to make a `Record`; everything here is text in, text out.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any

from reconciler import keys
from reconciler.resources import UNKNOWN, UNMANAGED, Record, Special

COMMENT_LIMIT = 100  # characters, on Cloudflare's Free plan
AUTO_TTL = 1
PROXIABLE = frozenset({"A", "AAAA", "CNAME"})
Data = tuple[tuple[str, str | int], ...]


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
    (CAA, SRV, TLSA, ...) take ``data``, or ``content`` as a zone file has it. Raises ValueError, which says what is
    wrong with the value, when it makes no record of that type.
    """
    zone, type = host(zone), sys.intern(type.upper())  # noqa: A001 (the field's own name)
    name = relative(name, zone)
    pairs: Data | None = None
    if type == "URI":
        content, priority = _prioritised(type, content, _priority(priority, data))
    if type in _PARTS:
        pairs = _data(type, zone, content, data, priority)
        content = _rendered(type, dict(pairs))
        priority = priority if type == "URI" else None
    elif type == "MX":
        content, priority = _exchange(zone, content, _priority(priority, data))
    else:
        priority = None
        content = content if isinstance(content, Special) else _content(type, zone, name, content)
    if isinstance(comment, str):
        comment = comment.strip() or None
    ttl = AUTO_TTL if proxied or ttl == "auto" else int(ttl)  # Cloudflare answers 1 for whatever is proxied
    return Record(zone, type, name, content, ttl, proxied, priority, pairs, comment)


def dkim_record(zone: str, domain: str, selector: str, algorithm: str, public_key: str | Special) -> Record:
    """Derive the record that publishes a DKIM key (RFC 6376 section 3.6.1, RFC 8463 section 4).

    ``zone`` may be a parent of ``domain``; ``public_key`` is as `keys.public_key` gives it, or UNKNOWN.
    """
    content: str | Special = UNKNOWN
    if isinstance(public_key, str):
        content = f"v=DKIM1; k={algorithm}; h=sha256; p={public_key}"
    return record(zone, "TXT", f"{selector}._domainkey.{_ascii(domain)}.", content)


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


# ----------------------------------------------------------------------------------------------------------- names
def _ascii(name: str) -> str:
    """Lower-case a name, take its last dot away and put it into Punycode. Raises ValueError."""
    if name.isascii():
        plain = name.lower().removesuffix(".")
    else:
        import idna

        labels = re.split("[.\u3002\uff0e\uff61]", name.lower())  # UTS 46: these are dots too
        try:
            encoded = (label if label.isascii() else idna.encode(label, uts46=True).decode() for label in labels)
            plain = ".".join(encoded).removesuffix(".")
        except idna.IDNAError as error:
            raise ValueError(f"{name!r} is not a name: {error}") from None
    if len(plain) > 253 or not _NAME.fullmatch(plain):  # noqa: PLR2004 (RFC 1035 section 2.3.4)
        raise ValueError(f"{name!r} is not a name")
    return plain


_NAME = re.compile(r"[^\s.\"\\]{1,63}(\.[^\s.\"\\]{1,63})*")


def relative(name: str, zone: str) -> str:
    """Write a name relative to its zone, ``@`` for the zone itself. Raises ValueError for one outside of it."""
    if name in ("@", ""):
        return "@"
    plain = _ascii(name)
    if plain == zone:
        return "@"
    if plain.endswith(f".{zone}"):
        return plain[: -len(zone) - 1]
    if name.endswith("."):
        raise ValueError(f"{name!r} lies outside the zone {zone}")
    return plain


def absolute(name: str, zone: str) -> str:
    """Write a name of a record whole, without the last dot, as the API does."""
    return zone if name == "@" else f"{name}.{zone}"


@lru_cache(maxsize=1024, typed=True)  # ten thousand records share few hosts, and one zone
def host(text: Any) -> str:
    """Normalise a host that a record points to; the null target is a dot (RFC 7505, RFC 2782).

    ``False`` is how the API once wrote the null target of an SRV. Raises ValueError.
    """
    if text is False or text == ".":
        return "."
    if not isinstance(text, str):
        raise ValueError("needs a host name")  # noqa: TRY004 (bad input of a person or a server, not of a caller)
    return _ascii(text)


# --------------------------------------------------------------------------------------------------------- content
def _content(type: str, zone: str, name: str, content: str | None) -> str:
    """Normalise the content of a type that has no parts."""
    if type == "SPF":
        raise ValueError("SPF is no type any more (RFC 7208 section 3.1): write it as TXT")
    if not isinstance(content, str) or not content:
        raise ValueError(f"{type} needs a content")
    if type in ("A", "AAAA"):
        return _address(type, content)
    if type == "TXT":
        return _text(name, content)
    if type in ("CNAME", "NS", "PTR"):
        return host(zone if content == "@" else content)
    return "".join(content.split()) if type == "OPENPGPKEY" else content


_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}", re.ASCII)


def _address(type: str, text: str) -> str:
    if type == "A" and _IPV4.fullmatch(text):  # has one form only; thousands of them are read
        return text
    try:
        return str(IPv4Address(text) if type == "A" else IPv6Address(text))
    except AddressValueError:
        raise ValueError(f"{text!r} is no {'IPv4' if type == 'A' else 'IPv6'} address") from None


def _priority(priority: Any, data: Mapping[str, Any] | None) -> int | None:
    """Read a priority beside the content or, where the API is going to put it, inside the data."""
    if priority is None and data is not None:
        priority = data.get("priority")
    return None if priority is None else int(priority)


def _exchange(zone: str, content: Any, priority: int | None) -> tuple[str, int]:
    """Read an MX; a null one (RFC 7505) needs no priority."""
    target, priority = _prioritised("MX", content, 0 if content == "." and priority is None else priority)
    return host(zone if target == "@" else target), priority


def _prioritised(type: str, content: Any, priority: int | None) -> tuple[Any, int]:
    """Split the priority of an MX or a URI off: it stands beside the content, or before it as in a zone file."""
    pattern = r"(\d{1,5})\s+(\d.*)" if type == "URI" else r"(\d{1,5})\s+(\S+)"
    if isinstance(content, str) and (match := re.fullmatch(pattern, content)):
        written, content = int(match[1]), match[2]
        if priority not in (None, written):
            raise ValueError(f"{type} has two priorities, {priority} and {written}")
        priority = written
    if priority is None:
        raise ValueError(f"{type} needs a priority")
    return content, priority


# ------------------------------------------------------------------------------------------------------------- TXT
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"\s*', re.DOTALL)
_ESCAPED = re.compile(rb"\\(\d{3}|.)", re.DOTALL)
_STRING_LIMIT = 255  # bytes in one character-string, RFC 1035 section 3.3


def _text(name: str, content: str) -> str:
    text = _joined(content)
    if not text:
        raise ValueError("TXT needs a content")
    if "._domainkey" in f".{name}" or text.startswith("v=DKIM1"):
        return _dkim(text)
    return text


def _joined(content: str) -> str:
    """Decode and join character-strings; what does not begin and end with a quote, or makes no strings, is as it is.

    The API stores either form (octodns-cloudflare#134, terraform#5351).
    """
    if not (content.startswith('"') and content.endswith('"')):
        return content
    if _SIMPLE.fullmatch(content):
        return content[1:-1]
    strings, position = [], 0
    while position < len(content):
        match = _STRING.match(content, position)
        if match is None:
            return content
        strings.append(_ESCAPED.sub(_unescape, match[1].encode()))
        position = match.end()
    try:
        return b"".join(strings).decode()
    except UnicodeDecodeError:
        return content


_SIMPLE = re.compile(r'"[^"\\]*"')


def _unescape(match: re.Match[bytes]) -> bytes:
    code = match[1]
    return bytes((int(code) & 255,)) if len(code) == 3 else code  # noqa: PLR2004 (\DDD, RFC 1035 section 5.1)


def quoted(text: str) -> str:
    r"""Write a text as character-strings of at most 255 bytes: ``"..." "..."``.

    Quotes and backslashes are escaped, and as ``\DDD`` whatever is not printable ASCII: the API refuses it bare.
    """
    raw = text.encode()
    chunks = [raw[at : at + _STRING_LIMIT] for at in range(0, len(raw), _STRING_LIMIT)]
    return " ".join(f'"{"".join(map(_escape, chunk))}"' for chunk in chunks)


def _escape(byte: int) -> str:
    if byte in b'"\\':
        return f"\\{byte:c}"
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:03}"  # noqa: PLR2004 (printable ASCII)


# ------------------------------------------------------------------------------------------------------------ DKIM
_TAG = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]*)\s*=\s*(.*?)\s*", re.DOTALL)
_DEFAULTS = {"v": "DKIM1", "k": "rsa", "h": "sha256", "s": "*", "t": ""}
_WRITTEN = ("v", "k", "h", "s", "t")


@lru_cache(maxsize=1024)
def _dkim(text: str) -> str:
    """Write a key record by its meaning (RFC 6376 section 3.6.1); what can't be understood stays as it is.

    Order, white space, a last semicolon and spelt-out defaults mean nothing, nor does the wrapping of an RSA key.
    ``h=sha256`` counts as a default too: every signer uses it (RFC 8301). Other tags (``t=y``) are kept.
    """
    tags = dkim_tags(text)
    if tags is None or tags["v"] != "DKIM1" or tags["k"] not in ("rsa", "ed25519") or "p" not in tags:
        return text
    try:
        key = keys.public_key(tags["k"], tags["p"]) if tags["p"] else ""  # empty: revoked, section 3.6.1
    except ValueError:
        return text
    written = [(tag, tags.pop(tag)) for tag in _WRITTEN]
    shown = [f"{tag}={value}" for tag, value in written if tag in ("v", "k", "h") or value != _DEFAULTS[tag]]
    del tags["p"]
    return "; ".join([*shown, *(f"{tag}={value}" for tag, value in sorted(tags.items())), f"p={key}"])


def dkim_tags(text: str) -> dict[str, str] | None:
    """Split a key record's tag list, defaults filled in; None where it is none, or has a tag twice (RFC 6376 3.2)."""
    tags: dict[str, str] = {}
    for item in text.strip().removesuffix(";").split(";"):
        match = _TAG.fullmatch(item)
        if match is None or match[1] in tags:
            return None
        tags[match[1]] = match[2]
    return _DEFAULTS | tags


# ------------------------------------------------------------------------------------------------- types with parts
def _number(value: Any) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,10}", str(value)):
        raise ValueError(f"{value!r} is not a number")
    return int(value)


def _decimal(value: Any) -> str | int:
    """Read a number that may have a fraction (LOC), with or without its unit; a whole one becomes an int."""
    number = float(str(value).removesuffix("m"))
    return int(number) if number.is_integer() else repr(number)


def _hex(value: Any) -> str:
    text = "".join(str(value).split()).lower()
    if not re.fullmatch(r"[0-9a-f]+", text):
        raise ValueError(f"{value!r} is not hexadecimal")
    return text


def _base64(value: Any) -> str:
    return "".join(str(value).split())


def _word(value: Any) -> str:
    return str(value).strip()


def _lower(value: Any) -> str:
    return str(value).strip().lower()


def _upper(value: Any) -> str:
    return str(value).strip().upper()


_PARAMETER = re.compile(r'([^\s="]+)(?:=(?:"((?:[^"\\]|\\.)*)"|(\S*)))?(?:\s+|$)')


def _parameters(value: Any) -> str:
    """Normalise the parameters of an HTTPS record: their order and their quotes mean nothing (RFC 9460 section 2.1)."""
    text, found, position = str(value or "").strip(), [], 0
    while position < len(text):
        match = _PARAMETER.match(text, position)
        if match is None:
            return text
        inner = match[2] if match[2] is not None else match[3]
        found.append(match[1].lower() if inner is None else f'{match[1].lower()}="{inner}"')
        position = match.end()
    return " ".join(sorted(found))


Part = Callable[[Any], str | int]
_TLSA: dict[str, Part] = {"usage": _number, "selector": _number, "matching_type": _number, "certificate": _hex}
_SVCB: dict[str, Part] = {"priority": _number, "target": host, "value": _parameters}
# Names and order are the API's and, but for LOC's units, a zone file's.
_PARTS: dict[str, dict[str, Part]] = {
    "CAA": {"flags": _number, "tag": _lower, "value": _word},
    "CERT": {"type": _number, "key_tag": _number, "algorithm": _number, "certificate": _base64},
    "DNSKEY": {"flags": _number, "protocol": _number, "algorithm": _number, "public_key": _base64},
    "DS": {"key_tag": _number, "algorithm": _number, "digest_type": _number, "digest": _hex},
    "HTTPS": _SVCB,
    "LOC": {
        "lat_degrees": _number,
        "lat_minutes": _number,
        "lat_seconds": _decimal,
        "lat_direction": _upper,
        "long_degrees": _number,
        "long_minutes": _number,
        "long_seconds": _decimal,
        "long_direction": _upper,
        "altitude": _decimal,
        "size": _decimal,
        "precision_horz": _decimal,
        "precision_vert": _decimal,
    },
    "NAPTR": {
        "order": _number,
        "preference": _number,
        "flags": _upper,
        "service": _word,
        "regex": _word,
        "replacement": host,
    },
    "SMIMEA": _TLSA,
    "SRV": {"priority": _number, "weight": _number, "port": _number, "target": host},
    "SSHFP": {"algorithm": _number, "type": _number, "fingerprint": _hex},
    "SVCB": _SVCB,
    "TLSA": _TLSA,
    "URI": {"weight": _number, "target": _word},
}
_QUOTED_PARTS = {"CAA": ("value",), "NAPTR": ("flags", "service", "regex"), "URI": ("target",)}
_FRACTIONS = frozenset(name for name, part in _PARTS["LOC"].items() if part is _decimal)


def _data(type: str, zone: str, content: Any, data: Mapping[str, Any] | None, priority: Any) -> Data:
    """Read the parts of a record from its data or, where there is none, from its content; sorted by name."""
    parts = _PARTS[type]
    given: dict[str, Any] = dict(data) if data else _parsed(type, content, priority)
    if type in ("HTTPS", "SVCB"):
        given.setdefault("value", "")
    if priority is not None and given.get("priority") is None:
        given["priority"] = priority
    pairs = []
    for name, part in sorted(parts.items()):
        if given.get(name) is None:
            raise ValueError(f"{type} needs {name} in its data: {', '.join(parts)}")
        try:
            pairs.append((name, part(zone if given[name] == "@" else given[name])))
        except ValueError as error:
            raise ValueError(f"{name} of {type}: {error}") from None
    return tuple(pairs)


_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')


def _parsed(type: str, content: Any, priority: Any) -> dict[str, Any]:
    """Read content as a zone file has it; the last part takes what is left, as keys may be written with spaces."""
    if not isinstance(content, str) or not content.strip():
        raise ValueError(f"{type} needs data with {', '.join(_PARTS[type])}, or a content")
    names = list(_PARTS[type])
    if type in ("HTTPS", "SVCB"):
        return dict(zip(names, content.split(None, 2), strict=False))
    words = [re.sub(r"\\(.)", r"\1", m[1]) if m[1] is not None else m[2] for m in _WORD.finditer(content)]
    if priority is not None and len(words) == len(names) - 1 and "priority" in names:
        names.remove("priority")  # the API renders SRV without it
    if len(words) > len(names) and _PARTS[type][names[-1]] in (_hex, _base64):
        words = [*words[: len(names) - 1], "".join(words[len(names) - 1 :])]
    if len(words) != len(names):
        raise ValueError(f"{type} is written as {' '.join(names)}")
    return dict(zip(names, words, strict=True))


def _rendered(type: str, values: Mapping[str, str | int]) -> str:
    """Render parts for a person, in the order of a zone file."""
    quotes = _QUOTED_PARTS.get(type, ())
    return " ".join(f'"{values[name]}"' if name in quotes else str(values[name]) for name in _PARTS[type]).rstrip()


def wire_data(record: Record) -> dict[str, str | int | float]:
    """Return a record's data as the API takes it."""
    return {
        name: float(value) if name in _FRACTIONS and isinstance(value, str) else value
        for name, value in record.data or ()
    }


# ------------------------------------------------------------------------------------------------------------ head
_HEAD_LIMIT = 24


def head(record: Record) -> str:
    """Return the head of a record's value, which tells it from others of its name in an address.

    ``spf1`` for ``v=spf1 ...``, ``google-site-verification``, an IP address, a host: at most 24 characters out of
    letters, digits and ``._:-``.
    """
    content = record.content if isinstance(record.content, str) else ""
    parts = dict(record.data or ())
    text = str(parts.get("target") or content)
    if record.type == "CAA":
        text = f"{parts.get('tag')}:{parts.get('value')}"
    elif record.type == "TXT":
        match = re.match(r"v=([A-Za-z0-9]+)", content) or re.match(r"([A-Za-z0-9._-]+)[=:]", content)
        text = match[1] if match else content
    return re.sub(r"[^A-Za-z0-9._:-]+", "-", text).strip("-")[:_HEAD_LIMIT]
