"""Names of zones, records and hosts: lower case, Punycode, without the last dot; and how much of a commit's is shown.

Pure, and nothing of ours below it.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any

SHOWN = 12  # characters of a commit

_NAME = re.compile(r"[^\s.\"\\]{1,63}(\.[^\s.\"\\]{1,63})*")
_DOTS = re.compile("[.\u3002\uff0e\uff61]")  # UTS 46: these are dots too
_JOINERS = "\u200c\u200d"  # they are a part of some words (RFC 5892, appendix A)
_INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})


@lru_cache(maxsize=1024, typed=True)  # ten thousand records share few hosts, and one zone
def host(text: Any) -> str:
    """Normalise a zone, or a host that a record points to; the null target is a dot (RFC 7505, RFC 2782).

    ``False`` is how the API once wrote the null target of an SRV. Raises ValueError.
    """
    if text is False or text == ".":
        return "."
    if not isinstance(text, str):
        raise ValueError("needs a host name")  # noqa: TRY004 (bad input of a person or a server, not of a caller)
    return _ascii(text)


def is_name(text: str) -> bool:
    """Whether a text can be the name of a zone or a host."""
    try:
        host(text)
    except ValueError:
        return False
    return True


_PLAIN = re.compile(r"[a-z0-9_/-]{1,63}(\.[a-z0-9_/-]{1,63})*")  # with what RFC 2317 and RFC 8552 want


def is_plain(name: str) -> bool:
    """Whether a name in its normal form holds nothing but what Cloudflare takes for one; a wildcard is none."""
    return _PLAIN.fullmatch(name) is not None


_HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


def is_host(name: str) -> bool:
    """Whether a name in its normal form can be a machine's: a top-level domain is no number (RFC 3696 section 2)."""
    return _HOST.fullmatch(name) is not None and not name.rpartition(".")[2].isdecimal()


_AROUND = re.compile(r"(?:[a-z][a-z0-9+-]*:)?(?://)?(?:[^@/]*@)?\[?([^/?#:\]\s;,]+)", re.IGNORECASE)


def meant(text: str) -> str:
    """Return the host within a URL, an e-mail address or a host with a port, as far as one is seen; else empty."""
    match = _AROUND.match(text.lstrip())
    found = match[1].rstrip(".").lower() if match else ""
    return found if "." in found and is_host(found) else ""


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


def invisible(text: str) -> str:
    """Name the first character of a text that nobody sees, such as ``ZERO WIDTH SPACE``; empty where all are seen."""
    char = next((char for char in text if char != " " and unicodedata.category(char) in _INVISIBLE), "")
    return unicodedata.name(char, f"U+{ord(char):04X}") if char else ""


def _ascii(name: str) -> str:
    """Lower-case a name, take its last dot away and put it into Punycode. Raises ValueError."""
    if name.isascii():
        plain = name.lower().removesuffix(".")
    elif any(char not in _JOINERS and unicodedata.category(char) == "Cf" for char in name):
        raise _refusal(name)  # UTS 46 would drop some of them without a word
    else:
        import idna

        try:
            labels = _DOTS.split(name.lower())
            encoded = (label if label.isascii() else idna.encode(label, uts46=True).decode() for label in labels)
            plain = ".".join(encoded).removesuffix(".")
        except idna.IDNAError as error:
            raise _refusal(name, f": {error}") from None
    if len(plain) > 253 or not _NAME.fullmatch(plain):  # noqa: PLR2004 (RFC 1035 section 2.3.4)
        raise _refusal(name)
    return plain


def _refusal(name: str, reason: str = "") -> ValueError:
    hidden = invisible(name)
    return ValueError(f"{name!r} is not a name{f': it holds the invisible character {hidden}' if hidden else reason}")


def domain_name(domain: str) -> str:
    """Return a key's domain as DNS has it. What is no name is in lower case: a server stores what it was given."""
    try:
        return host(domain)
    except ValueError:
        return domain.lower()


def mailbox(address: str) -> str:
    """Write an e-mail address as it is compared, whatever it is."""
    local, at, domain = address.rpartition("@")
    return f"{local}@{domain_name(domain)}".lower() if at else address.lower()


def key_name(selector: str, domain: str) -> str:
    """Return the full name of the record that publishes a key (RFC 6376 section 3.6.2.1)."""
    return f"{selector.lower()}._domainkey.{domain_name(domain)}"
