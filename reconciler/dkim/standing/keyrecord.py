"""One TXT value read as a key record (RFC 6376 section 3.6.1), and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reconciler import keys
from reconciler.dkim.standing.verdict import Mismatch
from reconciler.problem import Severity

_LONGEST = 40  # characters of a tag that is quoted: what DNS holds may be of any length


@dataclass(frozen=True, slots=True)
class Defect:
    """What is wrong with what a name server shows: a sentence that one server's name may stand before."""

    kind: Mismatch
    what: str
    hint: str = ""  # empty: to publish the right record
    severity: Severity = Severity.ERROR


@dataclass(slots=True)
class Reading:
    """One TXT value read as a key record (RFC 6376 section 3.6.1), and what is wrong with it."""

    key: str | None = None
    defects: list[Defect] = field(default_factory=list)

    def add(self, kind: Mismatch, what: str, hint: str = "", severity: Severity = Severity.ERROR) -> None:
        """Take note of a defect."""
        self.defects.append(Defect(kind, what, hint, severity))


def read(value: str, algorithm: str) -> Reading:
    """Read a TXT value, its strings joined, that is to be a key of an algorithm. Raises nothing: DNS holds anything."""
    reading = Reading()
    parts = (item.partition("=") for item in value.split(";") if item.strip())
    pairs = [(name.strip(), text.strip()) for name, _, text in parts]
    tags = dict(reversed(pairs))  # of a doubled tag the first
    public = re.sub(r"\s+", "", tags.get("p", ""))
    if _is_doubled(pairs, public):
        reading.add(Mismatch.DOUBLED, "the record holds its value twice: it was pasted two times")
    elif tags.get("v", "DKIM1") != "DKIM1" or "p" not in tags or not all(map(_TAG.fullmatch, tags)):
        reading.add(Mismatch.NO_KEY_RECORD, "what stands at the name is no DKIM key record")
    elif not public:
        reading.add(Mismatch.REVOKED, "the key is revoked (`p=` is empty)")
    else:
        _read_tags(reading, tags, algorithm)
        _read_key(reading, tags.get("k", "rsa"), public)
    return reading


def _is_doubled(pairs: Sequence[tuple[str, str]], public: str) -> bool:
    """Whether one value was pasted twice: with its tags, behind its own ``p=``, or base64 behind base64."""
    names = [name for name, _ in pairs]
    middle = len(public) // 2
    twice = middle >= _CHUNK and public[:middle] == public[middle:]
    return names.count("p") > 1 or names.count("v") > 1 or bool(_PASTED.search(public)) or twice


_CHUNK = 16  # characters of base64 that do not repeat by chance
_PASTED = re.compile(rf"p=[A-Za-z0-9+/]{{{_CHUNK}}}|v=DKIM1")
_TAG = re.compile(r"[A-Za-z][A-Za-z0-9_]*")  # RFC 6376 section 3.2


def _read_tags(reading: Reading, tags: Mapping[str, str], algorithm: str) -> None:
    words = {name: {word.strip() for word in tags.get(name, "").split(":") if word.strip()} for name in "hst"}
    declared = tags.get("k", "rsa")
    if declared != algorithm:
        reading.add(
            Mismatch.WRONG_ALGORITHM, f"the record says k={declared[:_LONGEST]}, and it is a key for {algorithm}"
        )
    if words["h"] and "sha256" not in words["h"]:
        reading.add(Mismatch.HASH_EXCLUDED, f"h={tags['h'][:_LONGEST]} forbids sha256, which mail is signed with")
    if words["s"] and not words["s"] & {"*", "email"}:
        reading.add(Mismatch.MAIL_EXCLUDED, f"s={tags['s'][:_LONGEST]} says that it is no key for mail")
    if "y" in words["t"]:
        what = "t=y says that signing is being tested: receivers may treat the mail as unsigned"
        reading.add(Mismatch.TESTING, what, severity=Severity.WARNING)


def _read_key(reading: Reading, algorithm: str, public: str) -> None:
    try:
        reading.key = keys.public_key(algorithm, public)
    except (ValueError, IndexError) as error:
        reason = error if isinstance(error, ValueError) else "is cut short"
        if not any(item.kind is Mismatch.WRONG_ALGORITHM for item in reading.defects):
            reading.add(Mismatch.DAMAGED, f"the key in `p=` is damaged: it {reason}")
