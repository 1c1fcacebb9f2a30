"""Whether a secret still has the value that was agreed, told without keeping it.

    DATA/seal.key            32 random bytes, of this data directory alone
    DATA/seals-STACK.json    of each secret its seal: an HMAC (SHA-256) of its name and value under that key

A value that is another has another seal; without the key a seal says nothing, and none is like that of another name. Of
a private key its public half is kept beside it, which is no secret. Losing either file costs this knowledge alone: what
a secret has then counts as agreed.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler import files
from reconciler.problem import Problem, Severity
from reconciler.resources import SecretRef

KEY = "seal.key"
_SIZE = 32
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Seals:
    """What is known of one stack's secrets, by their references as they are written. Without a key it tells nothing."""

    key: bytes = field(default=b"", repr=False)
    agreed: Mapping[str, str] = field(default_factory=dict)
    halves: Mapping[str, str] = field(default_factory=dict)

    def knows(self, ref: SecretRef) -> bool:
        """Whether it is known which value was agreed."""
        return str(ref) in self.agreed

    def broken(self, ref: SecretRef, value: str) -> str:
        """Return a value's seal where another one was agreed; empty where it is that one, or where none is known."""
        made = _seal(self.key, ref, value) if self.knows(ref) else ""
        return "" if made == self.agreed.get(str(ref), "") else made


def recall(data: Path, stack: str) -> Seals:
    """Return what is known. Writes nothing; what is damaged, or of another key, says nothing."""
    try:
        key = files.read_own(data / KEY)
    except OSError:
        return Seals()
    found, _ = files.recall(_place(data, stack), _parsed)
    if len(key) != _SIZE or found is None or found[0] != _name(key):
        return Seals()
    return Seals(key, *found[1])


@dataclass(frozen=True, slots=True)
class Read:
    """What a cycle has read: values and public halves by reference. Of those in ``agreed`` another value is so now.

    ``left`` are all that the directory names, None where that is not to be told: of others nothing is kept.
    """

    values: Mapping[SecretRef, str] = field(repr=False)
    halves: Mapping[SecretRef, str]
    agreed: Collection[SecretRef]
    left: Collection[SecretRef] | None = None


def note(data: Path, stack: str, read: Read) -> tuple[Problem, ...]:
    """Take note of values: the first that is seen of a secret, and what is agreed now. Return what is to be told."""
    path = _place(data, stack)
    try:
        files.make_private(data)
        with files.locked(data):
            known, key = recall(data, stack), _key(data)
            lost = path.exists() and not known.key
            new = _noted(Seals(key, known.agreed, known.halves), read)
            if new != known:
                said = {"v": _VERSION, "key": _name(key), "seals": dict(new.agreed), "halves": dict(new.halves)}
                files.write_private(path, json.dumps(said).encode())
    except OSError as error:
        summary = f"can't be written ({error.strerror or type(error).__name__}): a secret may change without approval"
        hint = "free space, or name a writable directory with --data"
        return (Problem(str(path), summary, hint, Severity.WARNING),)
    if not lost:
        return ()
    summary = (
        f"says nothing (it is damaged, or {KEY} is): whether a secret has changed since it was agreed is not known"
    )
    hint = "what each has now counts as agreed: look at what was merged lately"
    return (Problem(str(path), summary, hint, Severity.WARNING),)


def sealed(data: Path, values: Mapping[SecretRef, str]) -> dict[str, Any]:
    """Return the seals of values, to be kept anywhere: who has this data directory can tell others from them.

    Raises OSError.
    """
    files.make_private(data)
    with files.locked(data):
        key = _key(data)
    return {"key": _name(key), "seals": {str(ref): _seal(key, ref, value) for ref, value in values.items()}}


def others(data: Path, known: Mapping[str, Any], values: Mapping[SecretRef, str]) -> list[SecretRef] | None:
    """List the secrets that had another value, or none, when ``known`` was `sealed`; None where that can't be told."""
    try:
        key = files.read_own(data / KEY)
    except OSError:
        return None
    seals = known.get("seals")
    if known.get("key") != _name(key) or not isinstance(seals, Mapping):
        return None
    return sorted((ref for ref, value in values.items() if seals.get(str(ref)) != _seal(key, ref, value)), key=str)


def forget(data: Path, stack: str) -> None:
    """Keep nothing of a stack whose secrets nobody approves."""
    with suppress(OSError):
        _place(data, stack).unlink(missing_ok=True)


def _noted(known: Seals, read: Read) -> Seals:
    def of(kept: Mapping[str, str], given: Iterator[tuple[SecretRef, str]]) -> dict[str, str]:
        names = None if read.left is None else set(map(str, read.left))
        found = {name: item for name, item in kept.items() if names is None or name in names}
        found |= {str(ref): item for ref, item in given if str(ref) not in kept or ref in read.agreed}
        return dict(sorted(found.items()))

    made = ((ref, _seal(known.key, ref, value)) for ref, value in read.values.items())
    return Seals(known.key, of(known.agreed, made), of(known.halves, iter(read.halves.items())))


def _place(data: Path, stack: str) -> Path:
    return data / f"seals-{stack}.json"


def _key(data: Path) -> bytes:
    """Return the key; one that is not there, or damaged, is made. Raises OSError."""
    with suppress(FileNotFoundError):
        key = files.read_own(data / KEY)
        if len(key) == _SIZE:
            return key
    files.write_private(data / KEY, made := secrets.token_bytes(_SIZE))
    return made


def _seal(key: bytes, ref: SecretRef, value: str) -> str:
    name = str(ref).encode()
    return hmac.digest(key, len(name).to_bytes(8) + name + value.encode(), "sha256").hex()


def _name(key: bytes) -> str:
    """Return by what seals tell that they are of a key; the first eight bytes of a seal's text are never all set."""
    return hmac.digest(key, b"\xff" * 8, "sha256").hex()


def _parsed(said: Any) -> tuple[str, tuple[dict[str, str], dict[str, str]]]:
    if said["v"] != _VERSION:
        raise ValueError(said["v"])
    seals, halves = ({str(name): str(item) for name, item in said[part].items()} for part in ("seals", "halves"))
    return str(said["key"]), (seals, halves)
