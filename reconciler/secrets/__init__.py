"""From a secret's name to its value, and the fence that keeps values out of everything that is shown."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from reconciler import files, keys
from reconciler.desired.template import escaped
from reconciler.files import CannotRead
from reconciler.problem import Problem, SecretUnreadable
from reconciler.resources import Secret, SecretRef
from reconciler.secrets import age
from reconciler.secrets.allowed import VARIABLE, Allowed
from reconciler.secrets.redaction import Redaction
from reconciler.secrets.schemes import clear
from reconciler.secrets.sops import Sops
from reconciler.target import Reveal

CREDENTIALS = "CREDENTIALS_DIRECTORY"


class Secrets:
    """Reveals secrets by reference, each read once and only when it is needed.

    Calling it with a reference returns the value; it raises `SecretUnreadable`, which names the reference, the cause
    and the remedy. ``base`` is the directory that paths are relative to, ``public`` returns all that the directory
    says in clear, ``named`` are the references in it: a server may repeat what this run has not read. ``place`` names
    file and line of a reference; one that ``RECONCILER_SECRETS`` does not allow is not read, nor one that is held.
    """

    def __init__(
        self,
        base: Path,
        environ: Mapping[str, str],
        public: Callable[[], str] = str,
        named: Iterable[SecretRef] = (),
        place: Callable[[SecretRef], str] = str,
    ) -> None:
        """Remember where to read from; nothing is read yet. Raises `ReconcilerError` as `Allowed.read` does."""
        self._allowed, self._place = Allowed.read(base, environ), place
        self._redaction = Redaction(public)
        for ref in named:
            if ref.source == "env" and ref.name in environ and not ref.held:
                self._keep_out(ref, environ[ref.name])
        self._environ = environ
        self._values: dict[SecretRef, str] = {}
        self._stamps: dict[SecretRef, tuple[int, ...]] = {}
        self._sops = Sops(environ)
        self._lock = threading.Lock()  # targets are observed side by side, and each file is decrypted once

    def __call__(self, secret: Secret) -> str:
        """Return the value. A text with secrets in it is rendered, each secret escaped as its template says."""
        if isinstance(secret, SecretRef):
            with self._lock:
                if secret not in self._values:
                    stamp = self._stamp(secret)  # before it is read: a later change is seen then
                    self._values[secret] = self._read(secret)
                    self._stamps[secret] = stamp
                    self._keep_out(secret, self._values[secret])
                return self._values[secret]
        parts = []
        for part in secret.parts:
            if isinstance(part, str):
                parts.append(part)
            else:
                parts.append(escaped(self(part.ref), part.escape))
        return "".join(parts)

    def _keep_out(self, ref: SecretRef, value: str) -> None:
        for said in (value, clear(value)):  # of `{PLAIN}TEXT` it is TEXT that logs in
            self._redaction.hide(ref, said)

    def _read(self, ref: SecretRef) -> str:
        if ref.held:
            hint = "merge first: only a revision that is not merged names it here, or has another file there"
            raise SecretUnreadable(Problem(self._place(ref) or str(ref), f"{ref} is not read before the merge", hint))
        source = _SOURCES.get(ref.source)
        if source is not None and not self._allowed(ref):
            hint = f"{VARIABLE} says what may be read: let it name this one, or refer to one that it names"
            raise SecretUnreadable(Problem(self._place(ref) or str(ref), f"{ref} is not allowed here", hint))
        if source is None:
            hint = "use {env:}, {credential:}, {file:}, {sops:} or {age:}"
            raise unreadable(ref, f"secrets from {ref.source} can't be read by this version", hint)
        try:
            value = source(self, ref)
        except CannotRead as error:
            raise unreadable(ref, error.summary, error.hint) from None
        if not value:
            raise unreadable(ref, "is empty", "set it to the secret's value")
        if "\0" in value:
            raise unreadable(ref, "holds a NUL byte", "store the secret as text")
        if not _is_text(value):  # a variable of the environment holds any bytes
            raise unreadable(ref, "is not UTF-8 text", "store the secret as text, in UTF-8")
        return value

    def _from_environment(self, ref: SecretRef) -> str:
        if ref.name not in self._environ:
            raise CannotRead(
                f"the environment variable {ref.name} is not set", f"export {ref.name} where reconciler runs"
            )
        return self._environ[ref.name]

    def _from_credential(self, ref: SecretRef) -> str:
        path = self._credential(ref)
        return files.decoded(files.read(path), path)

    def _credential(self, ref: SecretRef) -> Path:
        """Return the file of a credential (systemd.exec, LoadCredential=). Raises `CannotRead` where there are none."""
        folder = self._environ.get(CREDENTIALS, "")
        if not Path(folder).is_absolute():
            hint = "name it in the unit by LoadCredential=, or set the variable to the folder that holds the files"
            raise CannotRead(f"{CREDENTIALS} names no folder", hint)
        return Path(folder, ref.name)

    def _from_file(self, ref: SecretRef) -> str:
        path = self._allowed.path(ref.name)
        if files.is_of_kernel(path):
            raise CannotRead(f"{path}: is no file but what the kernel tells of a process", "name a file, or use {env:}")
        return files.decoded(files.read(path), path)

    def _from_sops(self, ref: SecretRef) -> str:
        path, _, key = ref.name.partition("#")
        return self._sops.value(self._allowed.path(path), key)

    def _from_age(self, ref: SecretRef) -> str:
        return age.decrypt(self._allowed.path(ref.name), self._identities, self._environ)

    def key_services(self, refs: Iterable[SecretRef]) -> dict[str, set[SecretRef]]:
        """Map each address of a key service that the references' files name to those references that may be read."""
        found: dict[str, set[SecretRef]] = {}
        paths: dict[Path, set[SecretRef]] = {}
        for ref in refs:
            if ref.source == "sops" and not ref.held and self._allowed(ref):
                paths.setdefault(self._allowed.path(ref.name.partition("#")[0]), set()).add(ref)
        for path, those in paths.items():
            for address in self._sops.services(path):
                found.setdefault(address, set()).update(those)
        return found

    @cached_property
    def _identities(self) -> age.Identities:
        """The keys that open ``{age:}``; they are secrets themselves."""
        loaded = age.identities(self._environ)
        for identity in loaded.found:
            for private in identity.private:
                self.hide(SecretRef("identity", identity.place), private)
        return loaded

    def _stamp(self, ref: SecretRef) -> tuple[int, ...]:
        """Say which file a reference leads to, and in which state; a variable of the environment never changes."""
        if ref.source == "env":
            return ()
        try:
            found = self._file(ref).stat()
        except (OSError, CannotRead):
            return ()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def _file(self, ref: SecretRef) -> Path:
        if ref.source == "credential":
            return self._credential(ref)
        return self._allowed.path(ref.name.partition("#")[0] if ref.source == "sops" else ref.name)

    @property
    def stale(self) -> bool:
        """Whether a file that a secret was read from has changed since."""
        with self._lock:
            return any(self._stamp(ref) != stamp for ref, stamp in self._stamps.items())

    def revealed(self) -> dict[SecretRef, str]:
        """Map every secret that was read to a digest of its value (SHA-256, hexadecimal)."""
        return {ref: hashlib.sha256(value.encode()).hexdigest() for ref, value in self._values.items()}

    def __contains__(self, ref: SecretRef) -> bool:
        """Whether a secret was read."""
        return ref in self._values

    def values(self, refs: Iterable[SecretRef]) -> dict[SecretRef, str]:
        """Return those of some secrets that can be read."""
        found = {}
        for ref in refs:
            with suppress(SecretUnreadable):
                found[ref] = self(ref)
        return found

    def hide(self, source: SecretRef, value: str) -> None:
        """Keep out of all that is shown what no reference reveals as it is: a part of it, or a server's own secret."""
        self._redaction.hide(source, value)

    def remember(self, other: Secrets) -> None:
        """Keep out of all that is shown what another run has read: texts of it may be shown for as long as this one."""
        self._redaction.remember(other._redaction)

    def publish(self, text: str) -> None:
        """Let a text be shown although parts of it stand in a secret, as `Redaction.publish` does."""
        self._redaction.publish(text)

    def redact(self, text: str) -> str:
        """Replace every value that was revealed or is named by the secret's name, as `Redaction.redact` does."""
        return self._redaction.redact(text)


@dataclass(slots=True)
class PublicHalves:
    """Each private key is read once; its public half is no secret from then on."""

    secrets: Secrets = field(repr=False)
    _known: dict[tuple[SecretRef, str], str | Problem] = field(default_factory=dict)

    def of(self, ref: SecretRef, algorithm: str) -> str | Problem:
        """Return the public half of a declared private key, or why it can't be told."""
        if (ref, algorithm) not in self._known:
            half = self._known[ref, algorithm] = public_half(self.secrets, ref, algorithm)
            if isinstance(half, str):
                self.secrets.publish(half)
        return self._known[ref, algorithm]

    def known(self) -> dict[SecretRef, str]:
        """Return those that were derived, by reference."""
        return {ref: half for (ref, _), half in self._known.items() if isinstance(half, str)}


def public_half(reveal: Reveal, ref: SecretRef, algorithm: str) -> str | Problem:
    """Derive the public half of a declared private key, or say why it can't be told."""
    try:
        return keys.public_half(algorithm, reveal(ref))
    except SecretUnreadable as error:
        problem = error.problems[0]
        # A key has been made, and mail is signed with it: another one in its place is another key.
        hint = problem.hint.replace("create it", "bring it back from its backup")
        return Problem(str(ref), f"the private key can't be read: {problem.where}: {problem.summary}", hint)
    except ValueError as error:
        return Problem(str(ref), f"the private key {ref} {error}", "store the key in PEM, without a passphrase")


def _is_text(value: str) -> bool:
    """Whether a value can be written as UTF-8: no system takes another."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def unreadable(ref: SecretRef, summary: str, hint: str) -> SecretUnreadable:
    """Make the error for a reference that leads nowhere."""
    return SecretUnreadable(Problem(str(ref), summary, hint))


_SOURCES: Mapping[str, Callable[[Secrets, SecretRef], str]] = {
    "env": Secrets._from_environment,  # noqa: SLF001 (one table for all sources)
    "credential": Secrets._from_credential,  # noqa: SLF001
    "file": Secrets._from_file,  # noqa: SLF001
    "sops": Secrets._from_sops,  # noqa: SLF001
    "age": Secrets._from_age,  # noqa: SLF001
}
