"""Passwords as both generations keep them: a hash in any scheme they know, or clear text."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac

_CRYPT = {"$6$": "sha512_crypt", "$5$": "sha256_crypt", "$sha1": "sha1_crypt", "$1": "md5_crypt"}
_DIGESTS = {"SHA": "sha1", "SHA256": "sha256", "SHA512": "sha512", "MD5": "md5"}


@functools.lru_cache(maxsize=1024)
def verify(stored: str, given: str, *, folds: bool = False) -> bool:
    """Compare a password with a stored secret as directory/core/secret.rs does: by what it begins with.

    ``folds`` is whether names in braces may be in any case, as from 0.16. The verdicts are remembered: the real server
    pays for the hash on every request, tests need not.
    """
    if stored.startswith("$"):
        return _verify_prefix(stored, given)
    if stored.startswith("_"):
        return _passlib("bsdi_crypt", stored, given)
    if not stored.startswith("{"):
        return bool(stored) and hmac.compare_digest(stored.encode(), given.encode())
    name, closed, rest = stored[1:].partition("}")
    name = name.upper() if folds or name in ("crypt", "plain", "clear") else name
    if not closed:
        return False
    if name in ("ARGON2", "ARGON2I", "ARGON2ID", "PBKDF2"):
        return _verify_prefix(rest, given)
    if name == "CRYPT":
        return _verify_prefix(rest, given) if rest.startswith("$") else _passlib("des_crypt", rest, given)
    if name in ("PLAIN", "CLEAR"):
        return hmac.compare_digest(rest.encode(), given.encode())
    return _verify_digest(name, rest, given)


def _verify_digest(name: str, rest: str, given: str) -> bool:
    """Compare with a digest in base64, of the names with an S in front with its salt behind it."""
    salted = name.startswith("SSHA")
    algorithm = _DIGESTS.get(name[1:] if salted else name)
    if algorithm is None:
        return False
    if not salted:
        return base64.b64encode(hashlib.new(algorithm, given.encode()).digest()).decode() == rest
    try:
        raw = base64.b64decode(rest, validate=True)
    except ValueError:
        return False
    size = hashlib.new(algorithm).digest_size
    return hashlib.new(algorithm, given.encode() + raw[size:]).digest() == raw[:size]


def _verify_prefix(stored: str, given: str) -> bool:
    """Compare with a hash that names its kind between dollar signs; one of another kind is nobody's."""
    if stored.startswith("$argon2"):
        return _verify_argon2(stored, given)
    if stored.startswith(("$pbkdf2", "$scrypt")):
        return _verify_phc(stored, given)
    if stored.startswith(("$2a", "$2b", "$2y")):
        import bcrypt

        try:
            return bcrypt.checkpw(given.encode()[:72], stored.encode())
        except ValueError:
            return False
    name = next((name for prefix, name in _CRYPT.items() if stored.startswith(prefix)), None)
    return name is not None and _passlib(name, stored, given)


def _passlib(name: str, stored: str, given: str) -> bool:
    import passlib.hash  # type: ignore[import-untyped]

    try:
        return bool(getattr(passlib.hash, name).verify(given, stored))
    except (ValueError, TypeError):
        return False


def _verify_phc(stored: str, given: str) -> bool:
    """Compare with ``$pbkdf2-sha256$i=1000,l=32$SALT$HASH`` or ``$scrypt$ln=10,r=8,p=1$SALT$HASH`` (RustCrypto)."""
    try:
        _, name, settings, salt, wanted = stored.split("$")
        options = {key: int(value) for key, _, value in (item.partition("=") for item in settings.split(","))}
        raw, digest = (base64.b64decode(text + "=" * (-len(text) % 4), validate=True) for text in (salt, wanted))
        if name == "scrypt":
            cost, block, lanes = 1 << options["ln"], options["r"], options["p"]
            memory = 256 * cost * block
            found = hashlib.scrypt(given.encode(), salt=raw, n=cost, r=block, p=lanes, maxmem=memory, dklen=len(digest))
        else:
            algorithm = {"pbkdf2-sha256": "sha256", "pbkdf2-sha512": "sha512"}[name]
            found = hashlib.pbkdf2_hmac(algorithm, given.encode(), raw, options["i"], len(digest))
    except (ValueError, KeyError):
        return False
    return found == digest


def hashed(secret: str) -> str:
    """Hash a clear password as 0.16 does, but cheaply: a test pays for it at every account."""
    import argon2

    return argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(secret)


def _verify_argon2(stored: str, given: str) -> bool:
    import argon2

    try:
        return argon2.PasswordHasher().verify(stored, given)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False
