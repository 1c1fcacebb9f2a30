"""Passwords as Stalwart stores them: what can be one, making a hash, and whether a clear value is the one behind it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Sequence

from reconciler.problem import Problem, SecretUnreadable
from reconciler.reconcile import Report, Reveal
from reconciler.resources import Account, SecretRef, Unreadable
from reconciler.secrets.reveal import is_crypt_hash

ROUNDS = 5000
"""Of SHA-512-crypt. Up to 0.15 the server verifies the hash again at *every* request and login (observed.md), and
the passwords kept here are mostly made by a machine, which rounds don't protect. Who wants more gives a hash."""

LONGEST = 512  # bytes; the server refuses longer texts, or drops them without a word (rest-0.15.md, section 2)
UNUSABLE = Unreadable("its secret can't be used")
"""The verdict on a password that `revealed` has reported."""

_SLOWEST = 2_000_000  # rounds; verifying more takes seconds and is nobody's intention
_SALT = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def is_password(stored: str) -> bool:
    """Whether an entry of ``secrets`` is the password: app passwords and one-time seeds are the person's own."""
    return not stored.startswith(("$app$", "otpauth://"))


def check(value: str) -> None:
    """Raise ValueError, without the value, when it can't be a password."""
    size = len(value.encode())
    if not size:
        raise ValueError("is empty")
    if size > LONGEST:
        raise ValueError(f"is {size} bytes long, Stalwart takes up to {LONGEST}")
    if any(character < " " or character == "\x7f" for character in value):
        raise ValueError("holds a control character, such as a line break")


def revealed(account: Account, ref: SecretRef, reveal: Reveal, report: Report) -> str | None:
    """Reveal a wanted password; None, and reported, when it can't be read or stored."""
    try:
        value = reveal(ref)
        check(value)
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
    """Return what is sent for a desired password: a hash as it is, a clear value as ``$6$`` with a random salt.

    Raises ValueError, without the value, when it can't be a password.
    """
    check(value)
    if is_crypt_hash(value):
        return value
    from passlib.hash import sha512_crypt  # type: ignore[import-untyped]

    salt = "".join(secrets.choice(_SALT) for _ in range(16))
    return str(sha512_crypt.using(rounds=ROUNDS, salt=salt).hash(value))


def matches(value: str, stored: str) -> bool | None:
    """Whether a desired password, clear or a hash, is the stored one; None when this kind of hash can't be verified.

    A hash is compared as text. A clear value is verified against the stored hash, whose salt is random.
    """
    if is_crypt_hash(value) or not is_crypt_hash(stored):
        return hmac.compare_digest(value.encode(), stored.encode())
    verify = next((known for prefix, known in _VERIFIERS if stored.lower().startswith(prefix)), None)
    if verify is None:
        return None
    try:
        return verify(value, stored)
    except (ValueError, TypeError, binascii.Error, MemoryError):
        return None


def _crypt(value: str, stored: str) -> bool | None:
    rounds = re.match(r"\$[56]\$rounds=(\d+)", stored)
    if rounds and int(rounds[1]) > _SLOWEST:
        return None
    from passlib.hash import md5_crypt, sha1_crypt, sha256_crypt, sha512_crypt

    scheme = {"$6": sha512_crypt, "$5": sha256_crypt, "$s": sha1_crypt, "$1": md5_crypt}[stored[:2]]
    return bool(scheme.verify(value, stored))


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
        if int(options["i"]) > _SLOWEST:
            return None
        found = hashlib.pbkdf2_hmac(algorithm, value.encode(), _unpadded(salt), int(options["i"]), len(digest))
    else:
        cost, block, lanes = 1 << int(options["ln"]), int(options["r"]), int(options["p"])
        if cost * block > 1 << 22:  # 512 MiB
            return None
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
    name = name.lower()
    if name == "crypt":
        return matches(value, rest)
    if name.startswith(("argon2", "pbkdf2")):
        return None
    kind = name.removeprefix("s") if name.startswith("ssha") else name
    algorithm = {"sha": "sha1", "md5": "md5"}.get(kind, kind)
    raw = base64.b64decode(rest, validate=True)
    size = hashlib.new(algorithm, usedforsecurity=False).digest_size
    digest, salt = raw[:size], raw[size:]
    return hmac.compare_digest(hashlib.new(algorithm, value.encode() + salt, usedforsecurity=False).digest(), digest)


_VERIFIERS: Sequence[tuple[str, Callable[[str, str], bool | None]]] = (
    ("$argon2", _argon2),
    ("$2", _bcrypt),
    ("$pbkdf2", _phc),
    ("$scrypt", _phc),
    ("$", _crypt),
    ("{", _braced),
)
