"""Where reports are sent to: the lists of addresses of DMARC and TLS-RPT (RFC 9989, RFC 8460 section 3). Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from reconciler.dns.policies.reading import Fault
from reconciler.dns.policies.tags import Tag

_MAILBOX = re.compile(r"[^\s@<>,;:]{1,64}@([A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+)")
_URL = re.compile(r"https://[A-Za-z0-9.-]+(:\d{1,5})?(/[^\s,!]*)?")
_SIZE = re.compile(r"!\d+[kmgt]?$", re.IGNORECASE)
_MOST = 100  # addresses that are looked at


def addresses(tag: Tag) -> tuple[str, ...]:
    """Return the addresses of a list, as written."""
    return tuple(item for item in map(str.strip, tag.value.split(",")) if item)


def judge(tag: Tag, schemes: Collection[str], *, sized: bool = False) -> Iterator[Fault]:
    """Judge a list of addresses, given the schemes that receivers send to; ``sized`` where a size once stood behind."""
    for item in tag.value.split(",")[:_MOST]:
        piece = item.strip(" \t")
        at = tag.at + tag.piece.find(piece) if piece else tag.at
        if not piece:
            yield tag.fault("has a comma too many", value=",".join(addresses(tag)) or None)
            return
        yield from _address(piece, at, schemes, sized=sized)


def _address(piece: str, at: int, schemes: Collection[str], *, sized: bool) -> Iterator[Fault]:
    plain = _SIZE.sub("", piece) if sized else piece
    if plain != piece:
        cause = "ends in a size, which reports have no more (RFC 9990)"
        yield Fault(piece, cause, at=at, instead=plain, breaks=False)
        return
    scheme, colon, rest = plain.partition(":")
    known = " or ".join(f"{name}:" for name in schemes)
    if _MAILBOX.fullmatch(piece):
        yield Fault(piece, "has no mailto: before it", at=at, instead=f"mailto:{piece}")
    elif not colon or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        yield Fault(piece, f"is no address of reports, which begins with {known}", "write mailto:USER@DOMAIN", at)
    elif scheme.lower() == "mailto":
        yield from _mailbox(piece, rest, at)
    elif scheme.lower() not in schemes:
        cause = f"is of a kind that nobody sends reports to: they go to {known}"
        yield Fault(piece, cause, "write mailto:USER@DOMAIN", at, breaks="https" in schemes)
    elif not _URL.fullmatch(piece):
        yield Fault(piece, "is no URL", "write it like https://reports.example.com/v1/tlsrpt", at)


def _mailbox(piece: str, rest: str, at: int) -> Iterator[Fault]:
    """Judge what stands behind ``mailto:`` (RFC 6068): one mailbox, and perhaps a subject."""
    box, mark, more = rest.partition("?")
    tight = re.sub(r"\s+|^//", "", box).strip("<>")
    if _MAILBOX.fullmatch(box):
        return
    if _MAILBOX.fullmatch(tight):
        instead = f"mailto:{tight}{mark}{more}"
        yield Fault(piece, "is more than mailto: and an address", at=at, instead=instead)
        return
    yield Fault(piece, "names no mailbox", "write mailto:USER@DOMAIN", at)
