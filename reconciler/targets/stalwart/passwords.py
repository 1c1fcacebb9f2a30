"""Passwords as Stalwart stores them: what can be one, making a hash, and whether a clear value is the one behind it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TypeVar

from reconciler.problem import Problem, SecretUnreadable
from reconciler.resources import Account, SecretRef, Unreadable
from reconciler.secrets import schemes
from reconciler.target import Change, Progress, Report, Reveal

MEMORY, PASSES = 4096, 1  # KiB and times
"""What Argon2id costs. Up to 0.15 the server verifies the hash again at *every* request and login (observed.md), each
with that much memory of its own: with the usual 64 MiB a few logins at once would end a container of 256 MB. This
costs an attacker's graphics card some ten times what 5,000 rounds of SHA-512-crypt do, which the server's own web
interface makes up to 0.15, and the server no more. Passwords kept here are mostly made by a machine, which no cost has
to protect; who wants more gives a hash."""

LONGEST = 512  # bytes; the server refuses longer texts, or drops them without a word (rest-0.15.md, section 2)
UNUSABLE = Unreadable("its secret can't be used")
"""The verdict on a password that `revealed` has reported."""

_SLOWEST = 2_000_000  # rounds; verifying more takes seconds and is nobody's intention
_SLOWEST_BSDI = 100_000  # rounds of DES, which may be computed in Python; 725 are usual
_SLOWEST_BCRYPT = 16  # doublings: four seconds; 10 to 12 are usual
_SLOWEST_SCRYPT = 22  # doublings; 15 to 17 are usual
_LARGEST = 1 << 20  # KiB of memory, and of all passes over it four times that; 64 MiB are usual
_MOST_THREADS = 8  # so that many cores do not take the memory of a small container
_QUIET = 1.0  # seconds after which a person is told how far it is

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def is_password(stored: str) -> bool:
    """Whether an entry of ``secrets`` is the password: app passwords and one-time seeds are the person's own."""
    return not stored.startswith(("$app$", "otpauth://"))


def check_password(value: str) -> None:
    """Raise ValueError, without the value, when it can't be a password."""
    size = len(value.encode())
    if not size:
        raise ValueError("is empty")
    if size > LONGEST:
        raise ValueError(f"is {size} bytes long, Stalwart takes up to {LONGEST}")
    if any(character < " " or character == "\x7f" for character in value):
        raise ValueError("holds a control character, such as a line break")


def revealed(account: Account, ref: SecretRef, reveal: Reveal, report: Report) -> str | None:
    """Reveal a wanted password; None, and reported, when it can't be read or stored, or is a hash of no use.

    One that is held is None, too, and no problem.
    """
    if ref.held:
        return None
    try:
        value = reveal(ref)
        check_password(value)
        schemes.understood(value)
    except SecretUnreadable as error:
        for problem in error.problems:
            summary = f"its password {problem.where}: {problem.summary}"
            report(Problem(account.address, summary, problem.hint, scope=account.address))
    except ValueError as error:
        report(Problem(account.address, f"its password {ref} {error}", "choose another one", scope=account.address))
    else:
        return value
    return None


def hashed(value: str) -> str:
    """Return what is sent for a desired password: a hash as servers know it, else Argon2id with a random salt.

    Raises ValueError, without the value, when it can't be a password.
    """
    check_password(value)
    wanted, is_hash = schemes.understood(value)
    if is_hash:
        return wanted
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=PASSES, memory_cost=MEMORY, parallelism=1).hash(wanted)


class Hashes:
    """What the changes of one apply send for passwords, made on all cores before the first one is written."""

    def __init__(self, changes: Iterable[Change], reveal: Reveal, progress: Progress) -> None:
        """Hash the passwords of accounts that are to be created or get another one; tell a person when it takes long.

        What can't be read or hashed is left for `of` to tell.
        """
        self._reveal = reveal
        values: dict[str, str] = {}
        for change in changes:
            account = change.after
            if not isinstance(account, Account) or not isinstance(account.password, SecretRef):
                continue
            if change.before is None or "password" in change.fields:
                with suppress(ValueError, SecretUnreadable):
                    values[account.address] = self._value(account.password)
        made = side_by_side(hashed, values.values(), "hashing passwords", progress)
        self._made = dict(zip(values, made, strict=True))

    def of(self, account: Account, ref: SecretRef) -> str:
        """Return the hash for an account. Raises ValueError or `SecretUnreadable`, without the value."""
        return self._made.get(account.address) or hashed(self._value(ref))

    def _value(self, ref: SecretRef) -> str:
        value = self._reveal(ref)
        try:
            check_password(value)
            schemes.understood(value)
        except ValueError as error:
            raise ValueError(f"the password {ref} {error}") from None
        return value


def side_by_side(
    work: Callable[[_Item], _Made], items: Iterable[_Item], words: str, progress: Progress = lambda _: None
) -> list[_Made]:
    """Do the same work for all items on all cores, and say how far it is where that takes more than a second.

    Argon2 and bcrypt, which take nearly all the time, let other threads run meanwhile.
    """
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS)) as pool:
        due = [pool.submit(work, item) for item in items]
        while missing := wait(due, _QUIET).not_done:
            progress(f"{words}: {len(due) - len(missing):,} of {len(due):,}")
        return [item.result() for item in due]


def matches(value: str, stored: str) -> bool | None:
    """Whether a desired password, clear or a hash, is the stored one; None when verifying it would cost too much.

    A hash is compared as text. A clear value is verified against the stored hash, whose salt is random. What no server
    verifies is nobody's password, and a value that only looks like a hash is taken as one types it.
    """
    try:
        wanted, is_hash = schemes.understood(value)
    except ValueError:
        wanted, is_hash = value, False
    known = schemes.stored(stored)
    if known is None:
        return False
    kept, stored_hash = known
    if is_hash or not stored_hash:
        return is_hash == stored_hash and hmac.compare_digest(wanted.encode(), kept.encode())
    verify = next(verifier for prefix, verifier in _VERIFIERS if kept.startswith(prefix))
    if _costs_too_much(kept.removeprefix("{CRYPT}")):
        return None
    try:
        return verify(wanted, kept)
    except (ValueError, TypeError, binascii.Error, MemoryError):
        return None


def _costs_too_much(stored: str) -> bool:
    """Whether a hash asks for more time or memory than one that is meant well: a server could hold us up with it."""
    name, _, rest = stored.removeprefix("$").partition("$")
    said = {key: int(number[:19]) for key, number in reversed(re.findall(r"\b([a-z]+)=(\d+)", rest))}
    first = int("0" + re.sub(r"\D.*", "", rest[:19], flags=re.DOTALL))
    if stored.startswith("_"):
        return _little_endian(stored[1:5]) > _SLOWEST_BSDI
    if name.startswith("argon2"):
        memory, passes, lanes = (said.get(key, 1) for key in "mtp")
        return max(memory, lanes << 12) > _LARGEST or memory * passes > 4 * _LARGEST or passes > _SLOWEST
    if name == "scrypt":
        doublings, block, lanes = said.get("ln", 0), said.get("r", 1), said.get("p", 1)
        return doublings > _SLOWEST_SCRYPT or block * lanes << doublings > 4 * _LARGEST  # blocks of 128 bytes
    if name.startswith("2"):
        return first > _SLOWEST_BCRYPT
    return (first if name == "sha1" else said.get("rounds", said.get("i", 0))) > _SLOWEST


def _little_endian(text: str) -> int:
    """Read a number as crypt(3) writes it, six bits a character."""
    digits = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    return sum(digits.find(character) << 6 * place for place, character in enumerate(text))


_CRYPTS = {"$6": "sha512_crypt", "$5": "sha256_crypt", "$s": "sha1_crypt", "$1": "md5_crypt", "_": "bsdi_crypt"}
_CRYPTS |= {"{": "des_crypt"}
_loading = threading.Lock()  # passlib loads a scheme, and what computes it, at its first use: two threads break that


def _crypt(value: str, stored: str) -> bool | None:
    with _loading:
        from passlib import hash as hashes  # type: ignore[import-untyped]

        scheme = getattr(hashes, next(name for prefix, name in _CRYPTS.items() if stored.startswith(prefix)))
        scheme.get_backend()
    return bool(scheme.verify(value, stored.removeprefix("{CRYPT}")))


def _argon2(value: str, stored: str) -> bool | None:
    from argon2 import PasswordHasher, exceptions

    try:
        return PasswordHasher().verify(stored, value)
    except exceptions.VerifyMismatchError:
        return False
    except (exceptions.VerificationError, exceptions.InvalidHashError):
        return None


def _bcrypt(value: str, stored: str) -> bool:
    import bcrypt

    return bcrypt.checkpw(value.encode()[:72], stored.encode())  # the algorithm ends there; the package refuses more


def _phc(value: str, stored: str) -> bool | None:
    """Verify PBKDF2 and scrypt as Rust's password-hash crate writes them: ``$scrypt$ln=17,r=8,p=1$SALT$HASH``."""
    _, name, settings, salt, wanted = stored.split("$")
    options = dict(item.split("=", 1) for item in settings.split(","))
    digest = _unpadded(wanted)
    if name.startswith("pbkdf2"):
        algorithm = name.partition("-")[2] or "sha1"
        found = hashlib.pbkdf2_hmac(algorithm, value.encode(), _unpadded(salt), int(options["i"]), len(digest))
    else:
        cost, block, lanes = 1 << int(options["ln"]), int(options["r"]), int(options["p"])
        memory = 256 * cost * block
        found = hashlib.scrypt(
            value.encode(), salt=_unpadded(salt), n=cost, r=block, p=lanes, maxmem=memory, dklen=len(digest)
        )
    return hmac.compare_digest(found, digest)


def _unpadded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4))


def _braced(value: str, stored: str) -> bool | None:
    """Verify RFC 2307 forms: ``{SSHA512}`` is the base64 of a digest and its salt."""
    name, _, rest = stored[1:].partition("}")
    if name == "CRYPT":
        return _crypt(value, stored)
    algorithm, size = schemes.DIGESTS[name.removeprefix("S") if name.startswith("SS") else name]
    raw = base64.b64decode(rest, validate=True)
    digest, salt = raw[:size], raw[size:]
    return hmac.compare_digest(hashlib.new(algorithm, value.encode() + salt, usedforsecurity=False).digest(), digest)


_VERIFIERS: Sequence[tuple[str, Callable[[str, str], bool | None]]] = (
    ("$argon2", _argon2),
    ("$2", _bcrypt),
    ("$pbkdf2", _phc),
    ("$scrypt", _phc),
    ("$", _crypt),
    ("_", _crypt),
    ("{", _braced),
)
