"""Logins that servers refused. Servers ban who keeps trying, so what was refused is not sent a second time.

A call by a person remembers for as long as it runs. Where nobody watches, it is remembered on the disk, too: neither a
restart nor another revision may be a reason to try again. Of a password it holds a fingerprint, made with a random key
of its own (HMAC-SHA256). Losing the file loses this knowledge and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
from pathlib import Path
from typing import Any

from reconciler import files

_MOST = 200  # refusals that are remembered, the latest


class Refusals:
    """What was refused, as texts that together say where, as whom and with what; in a file where ``path`` is given."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._key, self._known = (os.urandom(16).hex(), []) if path is None else self._recalled(path)

    @property
    def empty(self) -> bool:
        """Whether nothing was refused."""
        return not self._known

    def holds(self, *facts: str) -> bool:
        """Whether these were refused."""
        return bool(self._known) and self._fingerprint(facts) in self._known

    def add(self, *facts: str) -> None:
        """Remember that these were refused."""
        new = self._fingerprint(facts)
        if new not in self._known:
            self._known = [*self._known, new][-_MOST:]
            self._keep()

    def forget(self) -> None:
        """Forget everything: what was refused may be accepted now, or a person says so."""
        if self._known:
            self._known = []
            self._keep()

    def _keep(self) -> None:
        if self._path is not None:
            with contextlib.suppress(OSError):  # what this process knows holds in it
                files.make_private(self._path.parent)
                files.write_private(self._path, json.dumps({"key": self._key, "refused": self._known}).encode())

    def _fingerprint(self, facts: tuple[str, ...]) -> str:
        return hmac.new(bytes.fromhex(self._key), "\0".join(facts).encode(), hashlib.sha256).hexdigest()

    @staticmethod
    def _recalled(path: Path) -> tuple[str, list[str]]:
        known, _ = files.recall(path, _parsed)
        return known or (os.urandom(16).hex(), [])


def _parsed(document: Any) -> tuple[str, list[str]]:
    bytes.fromhex(document["key"])
    return str(document["key"]), [str(item) for item in document["refused"]]
