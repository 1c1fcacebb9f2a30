"""Age: the identities we may decrypt with, found where sops looks for them, and files of one secret each."""

from __future__ import annotations

import base64
import binascii
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler import files
from reconciler.files import CannotRead

if TYPE_CHECKING:
    import pyrage  # type: ignore[import-untyped]

MAX_BYTES = 2 * files.MAX_BYTES  # armor adds a third, each recipient some 100 bytes
_ARMOR = b"-----BEGIN AGE ENCRYPTED FILE-----"
_MAGIC = b"age-encryption.org/v1"
_KEYGEN = "make an identity with age-keygen"
_PLACES = "SOPS_AGE_KEY, SOPS_AGE_KEY_FILE, {file}, SOPS_AGE_SSH_PRIVATE_KEY_FILE, ~/.ssh/id_ed25519 and ~/.ssh/id_rsa"


@dataclass(frozen=True, slots=True)
class Identity:
    """A private key: where it was found, its public half (``age1...`` or ``ssh-... AAAA...``), and the key."""

    place: str
    public: str
    key: pyrage.x25519.Identity | pyrage.ssh.Identity = field(repr=False)
    private: tuple[str, ...] = field(repr=False)  # the texts that give it away

    def __str__(self) -> str:
        """Render the public half and the place."""
        return f"{self.public} ({self.place})"


@dataclass(frozen=True, slots=True)
class Identities:
    """Every identity that was found, and what was found and can't be used (place and reason)."""

    found: tuple[Identity, ...] = ()
    unusable: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Say what there is to decrypt with; public halves only."""
        tried = f"our identities: {', '.join(map(str, self.found))}" if self.found else "no identity was found"
        return "; ".join((tried, *(f"not usable: {item}" for item in self.unusable)))


def configuration(environ: Mapping[str, str]) -> Path:
    """Return the directory of configuration that sops has its own in; without a home none, wherever we run."""
    home = environ.get("HOME") or "/nonexistent"
    macos = Path(home, "Library", "Application Support")
    own = environ.get("XDG_CONFIG_HOME", "")
    return Path(own or (macos if sys.platform == "darwin" else Path(home, ".config")))


def keys_file(environ: Mapping[str, str]) -> Path:
    """Return the file of identities in sops's own directory of configuration; it may be missing."""
    return configuration(environ) / "sops" / "age" / "keys.txt"


def ssh_keys(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the SSH keys of the user's home that sops would try."""
    ssh = Path(environ.get("HOME", ""), ".ssh")
    yield from (path for path in (ssh / "id_ed25519", ssh / "id_rsa") if environ.get("HOME") and path.exists())


def places(environ: Mapping[str, str]) -> str:
    """Say where identities are looked for."""
    return _PLACES.format(file=keys_file(environ))


def identities(environ: Mapping[str, str]) -> Identities:
    """Collect the identities, where sops does too: age/keysource.go. One that can't be used hinders no other.

    Plug-ins, post-quantum keys and commands that print a key (``SOPS_AGE_KEY_CMD``) are left to sops.
    """
    found: dict[str, Identity] = {}
    unusable: list[str] = []
    for place, load in _sources(environ):
        try:
            for identity in load():
                found.setdefault(identity.public, identity)
        except CannotRead as error:
            unusable.append(f"{place}: {error.summary}")
    return Identities(tuple(found.values()), tuple(unusable))


def _sources(environ: Mapping[str, str]) -> Iterator[tuple[str, Callable[[], Iterator[Identity]]]]:
    """Yield each place that has something, and how to load it."""
    if text := environ.get("SOPS_AGE_KEY"):
        yield "SOPS_AGE_KEY", lambda: _native(text.split(), "SOPS_AGE_KEY")
    own = keys_file(environ)
    for path in (environ.get("SOPS_AGE_KEY_FILE"), own if own.exists() else None):
        if path:
            yield str(path), lambda path=Path(path): _native(_lines(path), str(path))  # type: ignore[misc]
    for path in (environ.get("SOPS_AGE_SSH_PRIVATE_KEY_FILE"), *ssh_keys(environ)):
        if path:
            yield str(path), lambda path=Path(path): _ssh(path)  # type: ignore[misc]


def _lines(path: Path) -> list[str]:
    lines = (line.strip() for line in files.decoded(files.read(path), path).splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _native(keys: Sequence[str], place: str) -> Iterator[Identity]:
    import pyrage

    for number, text in enumerate(keys, 1):
        try:
            key = pyrage.x25519.Identity.from_str(text)
        except pyrage.IdentityError:
            what = "is of a kind that only sops reads" if text.startswith(("AGE-PLUGIN-", "AGE-SECRET-KEY-PQ-")) else ""
            raise CannotRead(f"key {number} {what or 'is no age identity'}", _KEYGEN) from None
        yield Identity(place, str(key.to_public()), key, (text,))


def _ssh(path: Path) -> Iterator[Identity]:
    import pyrage

    content = files.read(path)
    public = _ssh_public(content)
    try:
        key = pyrage.ssh.Identity.from_buffer(content)
    except (pyrage.IdentityError, ValueError):
        raise CannotRead("is no SSH key that age knows (Ed25519 or RSA)", _KEYGEN) from None
    yield Identity(str(path), public, key, (files.decoded(content, path),))


def _ssh_public(content: bytes) -> str:
    from cryptography.hazmat.primitives import serialization as form

    load = form.load_ssh_private_key if b"BEGIN OPENSSH" in content else form.load_pem_private_key
    try:
        key = load(content, None)
    except TypeError:
        raise CannotRead("is locked with a passphrase", "unlock it, or use an age identity") from None
    except Exception:  # noqa: BLE001 - each kind of damage raises its own error
        raise CannotRead("is no SSH private key", _KEYGEN) from None
    return key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH).decode()


def decrypt(path: Path, among: Identities, environ: Mapping[str, str]) -> str:
    """Read the secret in a file, binary or armored. Raises `CannotRead`, which names the identities tried."""
    import pyrage

    content = files.read(path, MAX_BYTES)
    header = _header(content)
    if not header.startswith(_MAGIC):
        summary = f"{path}: is NOT ENCRYPTED with age: a secret in it stands there in clear"
        raise CannotRead(
            summary, "encrypt it (age -r RECIPIENT), and replace a secret that was ever committed in clear"
        )
    if b"\n-> scrypt " in header:
        raise CannotRead(f"{path}: is locked with a passphrase", "encrypt it for recipients (age -r RECIPIENT)")
    hint = f"provide an identity it is encrypted for in one of {places(environ)}, or encrypt it anew"
    if not among.found:
        raise CannotRead(f"{path}: {among} to decrypt it with", hint)
    try:
        plain = pyrage.decrypt(content, [identity.key for identity in among.found])
    except pyrage.DecryptError as error:
        if "No matching keys" in str(error):
            raise CannotRead(f"{path}: is not encrypted for us; {among}", hint) from None
        raise CannotRead(f"{path}: is damaged: it can't be decrypted", "restore it from git") from None
    if len(plain) > files.MAX_BYTES:
        raise CannotRead(f"{path}: holds more than a secret (64 KiB at most)", "name a file with one secret")
    return files.decoded(plain, path)


def _header(content: bytes) -> bytes:
    """Return what says for whom a file is encrypted: its first bytes, out of the armor; empty for no age file."""
    if not content.lstrip().startswith(_ARMOR):
        return content.partition(b"\n---")[0]
    body = content.strip().removeprefix(_ARMOR).partition(b"-----END")[0]
    try:
        return base64.b64decode(body).partition(b"\n---")[0]
    except binascii.Error:
        return _MAGIC  # damaged, which decrypting it says


def encrypt(text: str, recipients: Sequence[str]) -> bytes:
    """Encrypt a text, armored, so that git shows it as text. Raises `CannotRead` for what is no recipient."""
    import pyrage

    sealed: bytes = pyrage.encrypt(f"{text}\n".encode(), [_recipient(item) for item in recipients], armored=True)
    return sealed


def checked(recipients: Sequence[str]) -> Sequence[str]:
    """Return recipients as they are, a plug-in's too. Raises `CannotRead` for one that is none."""
    for text in recipients:
        if not (text.startswith("age1") and text.count("1") > 1):  # age1NAME1...: for a program that we don't run
            _recipient(text)
    return recipients


def _recipient(text: str) -> pyrage.x25519.Recipient | pyrage.ssh.Recipient:
    import pyrage

    kind = pyrage.ssh.Recipient if text.startswith("ssh-") else pyrage.x25519.Recipient
    try:
        return kind.from_str(text)
    except (pyrage.RecipientError, ValueError):
        shown = "an identity, which is private" if text.upper().startswith("AGE-SECRET") else repr(text[:80])
        raise CannotRead(f"{shown} is no recipient", "write age1... or a line such as ssh-ed25519 AAAA...") from None


def no_recipients(environ: Mapping[str, str]) -> CannotRead:
    """Say that nobody is known to encrypt for, and how that is changed."""
    summary = f"no recipient is known to encrypt for: no --recipient, and no identity in {places(environ)}"
    own = keys_file(environ)
    made = f"make an identity: mkdir -p {shlex.quote(str(own.parent))} && age-keygen -o {shlex.quote(str(own))}"
    return CannotRead(summary, f"{made} (keep a copy elsewhere), or name --recipient age1...")
