"""From a secret's name to its value, and the fence that keeps values out of everything that is shown."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from reconciler.problem import Problem, SecretUnreadable
from reconciler.resources import Secret, SecretRef

MAX_BYTES = 65536  # a private key has 3,000; whatever is larger is not a secret
SHORTEST_REDACTED = 4  # shorter values would black out ordinary text
_WORD = 12  # a shorter value of letters alone may be a part of any word or name
_NAME = r"[\w.@/-]"  # what names and addresses are made of


_HASHES = re.compile(
    r"\$[56]\$(rounds=\d{1,9}\$)?[^$\s]{0,16}\$[./0-9A-Za-z]{43,86}"
    r"|\$2[abxy]\$\d\d\$[./0-9A-Za-z]{53}"
    r"|\$argon2(id|i|d)\$(v=\d+\$)?m=\d+,t=\d+,p=\d+(,[^$]*)?\$[^$\s]+\$[^$\s]+"
    r"|\$(pbkdf2[-\w]*|scrypt)\$[^$\s]+\$[^$\s]+\$[^$\s]+"
    r"|\$1\$[^$\s]{0,8}\$[./0-9A-Za-z]{22}"
    r"|\$sha1\$\d+\$[^$\s]+\$[./0-9A-Za-z]{28}"
    r"|\{(S?SHA(224|256|384|512)?|MD5|CRYPT|ARGON2\w*|PBKDF2[-\w]*)\}\S+",
    re.IGNORECASE,
)


class Secrets:
    """Reveals secrets by reference, each read once and only when it is needed.

    Calling it with a reference returns the value; it raises `SecretUnreadable`, which names the reference, the cause
    and the remedy. ``base`` is the directory that ``{file: PATH}`` is relative to, ``public`` all that the directory
    says in clear, ``named`` the references in it: a server may repeat what this run has not read.
    """

    def __init__(
        self, base: Path, environ: Mapping[str, str], public: str = "", named: Iterable[SecretRef] = ()
    ) -> None:
        """Remember where to read from; nothing is read yet."""
        self._named = {ref: environ[ref.name] for ref in named if ref.source == "env" and environ.get(ref.name)}
        self._base = base
        self._environ = environ
        self._public = public
        self._values: dict[SecretRef, str] = {}
        self._hidden: set[tuple[SecretRef, str]] = set()
        self._lock = threading.Lock()  # targets are observed side by side

    def __call__(self, secret: Secret) -> str:
        """Return the value. A text with secrets in it is rendered, each secret escaped as its template says."""
        if isinstance(secret, SecretRef):
            with self._lock:
                if secret not in self._values:
                    self._values[secret] = self._read(secret)
                return self._values[secret]
        parts = []
        for part in secret.parts:
            if isinstance(part, str):
                parts.append(part)
            else:
                value = self(part.ref)
                parts.append(quote(value, safe="") if part.escape == "url" else value)
        return "".join(parts)

    def _read(self, ref: SecretRef) -> str:
        source = _SOURCES.get(ref.source)
        if source is None:
            raise unreadable(ref, f"secrets from {ref.source} can't be read by this version", "use {env:} or {file:}")
        value = source(self, ref)
        if not value:
            raise unreadable(ref, "is empty", "set it to the secret's value")
        if "\0" in value:
            raise unreadable(ref, "holds a NUL byte", "store the secret as text")
        return value

    def _from_environment(self, ref: SecretRef) -> str:
        if ref.name not in self._environ:
            raise unreadable(
                ref, f"the environment variable {ref.name} is not set", f"export {ref.name} where reconciler runs"
            )
        return self._environ[ref.name]

    def _from_file(self, ref: SecretRef) -> str:
        path = self._base / ref.name
        try:
            content = _read_regular(path)
        except OSError as error:
            hint = "create it, or let reconciler's user read it"
            raise unreadable(ref, f"{path}: {os.strerror(error.errno or 0)}", hint) from None
        except ValueError as error:
            raise unreadable(ref, f"{path}: {error}", "name a small text file") from None
        return content.removesuffix("\n").removesuffix("\r")

    def revealed(self) -> dict[SecretRef, str]:
        """Map every secret that was read to a digest of its value (SHA-256, hexadecimal)."""
        return {ref: hashlib.sha256(value.encode()).hexdigest() for ref, value in self._values.items()}

    def hide(self, source: SecretRef, value: str) -> None:
        """Keep out of all that is shown what no reference reveals as it is: a part of it, or a server's own secret."""
        self._hidden.add((source, value))

    def redact(self, text: str) -> str:
        """Replace every value that was revealed or is named, in any form it may take on a wire, by the secret's name.

        A password such as ``mana`` is a part of ``dns/mana.how`` and of what not: a short word is replaced where it
        stands by itself, and so is what the directory says in clear. A short word that it says in clear stays: its
        absence from sentences would tell what it is used for.
        """
        known = [*(self._named | self._values).items(), *self._hidden]
        forms = [(form, ref) for ref, value in known for form in _forms(value)]
        for form, ref in sorted(forms, key=lambda item: len(item[0]), reverse=True):
            if form in text:
                text = self._without(form, text, f"[redacted {ref}]")
        return text

    def _without(self, form: str, text: str, name: str) -> str:
        known, short = form in self._public, len(form) < _WORD
        if known and short:
            return text
        if known or (short and form.isalpha()):
            return re.sub(rf"(?<!{_NAME}){re.escape(form)}(?!{_NAME})", lambda _: name, text)
        return text.replace(form, name)


def is_crypt_hash(text: str) -> bool:
    """Whether a text is the hash of a password, as Stalwart stores it (0.15: directory/core/secret.rs)."""
    return _HASHES.fullmatch(text) is not None


def unreadable(ref: SecretRef, summary: str, hint: str) -> SecretUnreadable:
    """Make the error for a reference that leads nowhere."""
    return SecretUnreadable(Problem(str(ref), summary, hint))


def _read_regular(path: Path) -> str:
    """Read a small regular file. Raises OSError, or ValueError for what is no such file; never waits on a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("is not a regular file")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError("is too large for a secret (64 KiB at most)")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None


def _forms(value: str) -> Iterable[str]:
    """Yield the texts by which a value could be recognised: as it is, escaped, encoded, line by line."""
    if len(value) < SHORTEST_REDACTED:
        return
    yield value
    yield json.dumps(value)[1:-1]
    yield repr(value)[1:-1]
    yield quote(value, safe="")
    yield base64.b64encode(value.encode()).decode().rstrip("=")
    lines = value.splitlines()
    if len(lines) > 1:  # a key in PEM: any of its lines gives it away
        yield from (line for line in lines if len(line) >= 16 and not line.startswith("-----"))  # noqa: PLR2004


_SOURCES: Mapping[str, Callable[[Secrets, SecretRef], str]] = {
    "env": Secrets._from_environment,  # noqa: SLF001 (one table, open for sops and age)
    "file": Secrets._from_file,  # noqa: SLF001
}
