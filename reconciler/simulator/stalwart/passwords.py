"""Passwords as both generations keep them: a hash in any scheme they know, or clear text."""

from __future__ import annotations

import functools
import hmac

_CRYPT = {"$6$": "sha512_crypt", "$5$": "sha256_crypt", "$1$": "md5_crypt", "$sha1": "sha1_crypt", "_": "bsdi_crypt"}
_CRYPT |= {"$pbkdf2-sha256": "pbkdf2_sha256", "$pbkdf2-sha512": "pbkdf2_sha512", "$pbkdf2": "pbkdf2_sha1"}
_CRYPT |= {"$scrypt": "scrypt", "{SSHA256}": "ldap_salted_sha256", "{SSHA512}": "ldap_salted_sha512"}
_CRYPT |= {"{SSHA}": "ldap_salted_sha1", "{SHA}": "ldap_sha1", "{MD5}": "ldap_md5"}


@functools.lru_cache(maxsize=1024)
def verify(stored: str, given: str) -> bool:
    """Compare a password with a stored secret: a hash by its prefix, anything else as clear text.

    The verdicts are remembered: the real server pays for the hash on every request, tests need not.
    """
    if stored.startswith("$argon2"):
        return _verify_argon2(stored, given)
    if stored.startswith("$2"):
        import bcrypt

        return bcrypt.checkpw(given.encode()[:72], stored.encode())
    for prefix in ("{PLAIN}", "{CRYPT}"):
        if stored.startswith(prefix):
            return verify(stored.removeprefix(prefix), given)
    if name := next((name for prefix, name in _CRYPT.items() if stored.startswith(prefix)), None):
        import passlib.hash  # type: ignore[import-untyped]

        try:
            return bool(getattr(passlib.hash, name).verify(given, stored))
        except ValueError:
            return False
    return hmac.compare_digest(stored.encode(), given.encode())


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
