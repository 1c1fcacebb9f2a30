"""What a value means as a password: clear text, or a hash in one of the many forms that mail servers know.

Both generations of Stalwart verify the same hashes and none besides (directory/core/secret.rs of 0.15.5 and 0.16.18);
whatever else begins with ``$`` or ``{`` refuses every login. Names in braces count in capitals only up to 0.15.
"""

from __future__ import annotations

import base64
import binascii
import re

_SALTED = r"[^$\s]+\$[^$\s]+"
_ARGON2 = re.compile(rf"\$argon2(id|i|d)\$(v=\d+\$)?m=\d+,t=\d+,p=\d+(,[^$]*)?\${_SALTED}")
_PBKDF2 = re.compile(rf"\$pbkdf2-sha(256|512)\$(v=\d+\$)?i=\d+(,l=\d+)?\${_SALTED}")
_CRYPT = re.compile(
    r"\$6\$(rounds=\d{1,9}\$)?[^$\s]{0,16}\$[./0-9A-Za-z]{86}"
    r"|\$5\$(rounds=\d{1,9}\$)?[^$\s]{0,16}\$[./0-9A-Za-z]{43}"
    r"|\$2[aby]\$\d\d\$[./0-9A-Za-z]{53}"
    rf"|\$scrypt\$(v=\d+\$)?ln=\d+,r=\d+,p=\d+\${_SALTED}"
    r"|\$1\$[^$\s]{0,8}\$[./0-9A-Za-z]{22}"
    r"|\$sha1\$\d+\$[^$\s]+\$[./0-9A-Za-z]{28}"
    rf"|{_ARGON2.pattern}|{_PBKDF2.pattern}"
)
_BSDI = re.compile(r"_[./0-9A-Za-z]{19}")
_DES = re.compile(r"[./0-9A-Za-z]{13}")
_BRACED = re.compile(r"\{([A-Za-z][\w.+-]*)\}(.*)", re.DOTALL)
_LOCKED = re.compile(r"(?:\*LK\*|[!*])+(.+)", re.DOTALL)  # shadow(5): nobody logs in, and behind it stands what was
_DOLLARS = re.compile(r"\$([A-Za-z0-9][\w-]*)\$.")

_CLEAR = frozenset({"PLAIN", "CLEAR", "CLEARTEXT"})
DIGESTS = {"SHA": ("sha1", 20), "SHA256": ("sha256", 32), "SHA512": ("sha512", 64), "MD5": ("md5", 16)}
"""Names in braces, with or without an S for a salt behind the digest: the algorithm, and the digest's bytes."""
_INNER = {"PBKDF2": _PBKDF2, "ARGON2": _ARGON2, "ARGON2I": _ARGON2, "ARGON2ID": _ARGON2}
"""What has to stand behind such a name; behind others any hash may that begins with ``$``."""
_WRAPS = frozenset(
    {
        *("CRYPT", "BLF-CRYPT", "BCRYPT", "SHA512-CRYPT", "SHA256-CRYPT", "MD5-CRYPT", "DES-CRYPT", "SCRYPT"),
        *("MD5", "SHA1-CRYPT"),
        *_INNER,
    }
)
_VERIFIED = frozenset(
    {
        *("SHA", "SSHA", "SHA256", "SSHA256", "SHA512", "SSHA512", "MD5", "CRYPT", "crypt", *_INNER),
        *("PLAIN", "plain", "CLEAR", "clear"),
    }
)
"""Names in braces as the servers know them."""
_WAY_OUT = (
    "set a new password or give the clear value; before a clear value that only looks like a hash write {PLAIN}, as in "
    "{PLAIN}VALUE"
)


def understood(value: str) -> tuple[str, bool]:
    """Return what a desired password is, and whether that is a hash: as both generations verify it, or in clear.

    ``{PLAIN}`` is taken off a clear value, other programs' names off a hash. Raises ValueError, without the value but
    with the way out, for what looks like a hash and is none that a Stalwart verifies.
    """
    if braced := _BRACED.fullmatch(value):
        return _unwrapped(braced[1].upper(), braced[2])
    if _CRYPT.fullmatch(value):
        return value, True
    if _DOLLARS.match(value):
        raise ValueError(f"looks like a hash, as $...$, and is none that Stalwart verifies: {_WAY_OUT}")
    if _BSDI.fullmatch(value):
        raise ValueError(
            "may be in clear or a hash of BSDi's crypt: write {PLAIN} before a clear value, {CRYPT} before a hash"
        )
    if (locked := _LOCKED.fullmatch(value)) and is_crypt_hash(locked[1]):
        raise ValueError(
            f"looks like a hash that is locked, as /etc/shadow has it: {_WAY_OUT}, or leave the account out"
        )
    return value, False


def _unwrapped(name: str, rest: str) -> tuple[str, bool]:
    """Take the name in braces off a value, or write it as both generations know it. Raises as `understood`."""
    if name in _CLEAR and rest:
        return rest, False
    if name in _WRAPS and _INNER.get(name, _CRYPT).fullmatch(rest):
        return rest, True
    if name == "CRYPT" and _BSDI.fullmatch(rest):
        return rest, True
    if name in ("CRYPT", "DES-CRYPT") and _DES.fullmatch(rest):
        return f"{{CRYPT}}{rest}", True
    plain = name.removeprefix("S") if name.startswith("SSHA") else name
    if plain in DIGESTS:
        size = DIGESTS[plain][1]
        try:
            raw = base64.b64decode(rest + "=" * (-len(rest) % 4), validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) == size or (len(raw) > size and name != plain):
            return f"{{{name}}}{base64.b64encode(raw).decode()}", True
    raise ValueError(f"looks like a hash, as {{...}}, and is none that Stalwart verifies: {_WAY_OUT}")


def is_crypt_hash(text: str) -> bool:
    """Whether a text is, or looks like, the hash of a password."""
    try:
        return understood(text)[1]
    except ValueError:
        return True


def clear(value: str) -> str:
    """Return the clear value to log in with, without a ``{PLAIN}`` before it; a hash stays as it is."""
    try:
        return understood(value)[0]
    except ValueError:
        return value


def stored(text: str, *, folds: bool = False) -> tuple[str, bool] | None:
    """Return what a server takes a stored password for: clear text or a hash, as `understood` returns it.

    ``folds`` is whether names in braces may be in any case, as from 0.16. None is what it verifies nothing with: nobody
    can log in.
    """
    if text.startswith("_"):
        return (text, True) if _BSDI.fullmatch(text) else None
    if not text.startswith(("$", "{")):
        return text, False
    name = (_BRACED.fullmatch(text) or ("", ""))[1]
    if name and (name.upper() if folds else name) not in _VERIFIED:
        return None
    try:
        found, is_hash = understood(text)
    except ValueError:
        return None
    alien = found[0] in "$_" if name == "MD5" else found[0] == "_" if name.lower() == "crypt" else not (name or is_hash)
    return None if alien else (found, is_hash)


def importable(text: str) -> str:
    """Return a stored password so that `understood` takes it for what the server does."""
    found = stored(text)
    if found is None:
        return text
    value, is_hash = found
    if is_hash:
        return f"{{CRYPT}}{value}" if value.startswith("_") else value
    return f"{{PLAIN}}{value}" if _is_ambiguous(value) else value


def _is_ambiguous(value: str) -> bool:
    try:
        return understood(value) != (value, False)
    except ValueError:
        return True
