"""What can be said of a DKIM key: how it stands, each kind of mismatch, and what is wrong with a record of it."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Iterator
from dataclasses import dataclass

from reconciler import keys
from reconciler.problem import Problem, Severity


class Signing(enum.StrEnum):
    """What the server does with a key."""

    SIGNS = "signs"
    IDLE = "does not sign"  # it has the key, under an id or a stage that does not sign
    ANOTHER = "another key"  # under this selector
    ABSENT = "no"
    UNTOLD = "can't be told"  # its rule of which keys sign is not the default
    UNREAD = "not read"


class Agrees(enum.StrEnum):
    """Whether the server and DNS agree."""

    YES = "yes"
    NO = "no"
    UNTOLD = "can't be told"


class Mismatch(enum.StrEnum):
    """What may be wrong with a key, for programs. The problem beside it says it to a person."""

    SERVER_LACKS_KEY = "server_lacks_key"
    SERVER_HAS_ANOTHER_KEY = "server_has_another_key"
    SERVER_DOES_NOT_SIGN = "server_does_not_sign"
    SERVER_SIGNS_UNDECLARED = "server_signs_undeclared"
    SERVER_SIGNS_TOO_EARLY = "server_signs_too_early"
    SERVER_STILL_SIGNS = "server_still_signs"
    SIGNING_UNTOLD = "signing_untold"
    PRIVATE_KEY_ABSENT = "private_key_absent"
    PRIVATE_KEY_UNREADABLE = "private_key_unreadable"
    PRIVATE_KEY_OF_ANOTHER = "private_key_of_another"
    NOT_PUBLISHED = "not_published"
    PARTLY_PUBLISHED = "partly_published"
    STILL_PUBLISHED = "still_published"
    ANOTHER_KEY_PUBLISHED = "another_key_published"
    SEVERAL_RECORDS = "several_records"
    NO_KEY_RECORD = "no_key_record"
    DOUBLED = "doubled"
    DAMAGED = "damaged"
    REVOKED = "revoked"
    TESTING = "testing"
    WRONG_ALGORITHM = "wrong_algorithm"
    HASH_EXCLUDED = "hash_excluded"
    MAIL_EXCLUDED = "mail_excluded"
    ALIAS = "alias"
    UNREAD = "unread"
    WEAK = "weak"
    PENDING_OVERDUE = "pending_overdue"
    RETIRING_OVERDUE = "retiring_overdue"
    OLD = "old"


@dataclass(frozen=True, slots=True)
class Finding:
    """One mismatch: its kind, and the sentence and remedy."""

    kind: Mismatch
    problem: Problem


@dataclass(frozen=True, slots=True)
class Shown:
    """What one name server has at a key's name.

    ``key`` is the public key as `keys.public_key` gives it, None where no whole one is shown. ``unread`` and ``alias``
    as of `publication.Answer`.
    """

    server: str
    key: str | None = None
    values: tuple[str, ...] = ()
    defects: tuple[Mismatch, ...] = ()
    unread: str = ""
    alias: str = ""

    def carries(self, key: str | None) -> bool:
        """Whether a receiver that asks it gets that key, and nothing that keeps it from using it."""
        return key is not None and self.key == key and not set(self.defects) - {Mismatch.TESTING}


@dataclass(frozen=True, slots=True)
class Standing:
    """How one key stands: what the directory says, what the server does, what each name server shows.

    ``stage`` is empty for a key that only the server has. ``age`` is in days: since the day of its stage or, where the
    directory does not say it, since the month in its selector. ``key`` is the public key that is to be published, as
    far as it is known; ``shown`` is empty where no authoritative name server was found.
    """

    domain: str
    selector: str
    algorithm: str
    stage: str
    since: dt.date | None
    age: int | None
    key: str | None
    signing: Signing
    shown: tuple[Shown, ...]
    agrees: Agrees
    findings: tuple[Finding, ...]

    @property
    def address(self) -> str:
        """``dkim/DOMAIN/SELECTOR``."""
        return f"dkim/{self.domain}/{self.selector}"

    @property
    def unread(self) -> bool:
        """Whether a name server could not be asked."""
        return not self.shown or any(item.unread for item in self.shown)


# ----------------------------------------------------------------------------------------- what a name server shows
_LONGEST = 40  # characters of a tag that is quoted: what DNS holds may be of any length


@dataclass(frozen=True, slots=True)
class Defect:
    """What is wrong with what a name server shows: a sentence that one server's name may stand before."""

    kind: Mismatch
    what: str
    hint: str = ""  # empty: to publish the right record
    severity: Severity = Severity.ERROR


@dataclass(frozen=True, slots=True)
class KeyReading:
    """A TXT value read as a key record: the public key as `keys.public_key` gives it, and what is wrong."""

    key: str | None = None
    defects: tuple[Defect, ...] = ()


def judge(value: str, algorithm: str) -> KeyReading:
    """Read a TXT value, its strings joined, that is to be a key of an algorithm."""
    record = keys.read(value)
    if record.doubled:
        doubled = "the record holds its value twice: it was pasted two times"
        return KeyReading(None, (Defect(Mismatch.DOUBLED, doubled),))
    if not record.is_key:
        return KeyReading(None, (Defect(Mismatch.NO_KEY_RECORD, "what stands at the name is no DKIM key record"),))
    if not record.public:
        return KeyReading(None, (Defect(Mismatch.REVOKED, "the key is revoked (`p=` is empty)"),))
    defects = tuple(_defects(record, algorithm))
    try:
        return KeyReading(keys.public_key(record.tag("k"), record.public), defects)
    except (ValueError, IndexError) as error:
        reason = error if isinstance(error, ValueError) else "is cut short"
        if record.tag("k") == algorithm:
            defects += (Defect(Mismatch.DAMAGED, f"the key in `p=` is damaged: it {reason}"),)
        return KeyReading(None, defects)


def _defects(record: keys.KeyRecord, algorithm: str) -> Iterator[Defect]:
    """Tell of the tags that keep receivers from using a key (RFC 6376 section 3.6.1)."""
    kind = record.tag("k")
    if kind != algorithm:
        what = f"the record says k={kind[:_LONGEST]}, and it is a key for {algorithm}"
        yield Defect(Mismatch.WRONG_ALGORITHM, what)
    if not record.takes_sha256:
        what = f"h={record.tag('h')[:_LONGEST]} forbids sha256, which mail is signed with"
        yield Defect(Mismatch.HASH_EXCLUDED, what)
    if not record.for_mail:
        yield Defect(Mismatch.MAIL_EXCLUDED, f"s={record.tag('s')[:_LONGEST]} says that it is no key for mail")
    if "y" in record.words("t"):
        what = "t=y says that signing is being tested: receivers may treat the mail as unsigned"
        yield Defect(Mismatch.TESTING, what, severity=Severity.WARNING)
