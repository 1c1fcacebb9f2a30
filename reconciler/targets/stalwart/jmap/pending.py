"""What a server from 0.16 has stored and perhaps not put in force.

A reload fails as a whole, its answer can be lost, and a run can be killed before it: afterwards nothing on the wire
shows that stored settings are not in force (observed.md, 0.16.18). So they are noted in the data directory before they
are written, until a reload has succeeded; the plan shows them as not in force meanwhile.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from reconciler.files import recall, write_private
from reconciler.problem import Problem, Severity
from reconciler.resources import Live


class Pending:
    """The addresses of one server's resources that may not be in force. Without a ``file`` nothing is remembered.

    A file that can't be read or written costs this knowledge alone.
    """

    def __init__(self, file: Path | None = None, server: str = "") -> None:
        """Read what is known of the server at this URL."""
        self._file, self._server = file, server.rstrip("/")
        self.problem: Problem | None = None
        self.addresses = self._read()

    def note(self, addresses: Iterable[str]) -> None:
        """Remember addresses that are about to be written."""
        self._become(self.addresses | set(addresses))

    def forget(self, addresses: Iterable[str]) -> None:
        """Drop addresses that are in force."""
        self._become(self.addresses - set(addresses))

    def shown(self, live: Iterable[Live]) -> Iterator[Live]:
        """Yield what is live, and what is not in force as such."""
        for item in live:
            resource: Any = item.resource
            pending = resource.address in self.addresses and hasattr(resource, "in_force")
            yield replace(item, resource=replace(resource, in_force=False)) if pending else item

    def _become(self, addresses: frozenset[str]) -> None:
        if addresses == self.addresses:
            return
        self.addresses = addresses
        if self._file is not None:
            content = {"server": self._server, "addresses": sorted(addresses)}
            with contextlib.suppress(OSError):
                write_private(self._file, json.dumps(content).encode())

    def _read(self) -> frozenset[str]:
        known, why = recall(self._file, self._addresses) if self._file else (None, "")
        if why:
            summary = f"{why}, so it is not known which stored settings are not in force"
            hint = "reload or restart the server once, and remove the file"
            self.problem = Problem(str(self._file), summary, hint, Severity.WARNING)
        return known or frozenset()

    def _addresses(self, document: Any) -> frozenset[str]:
        server, addresses = document["server"], document["addresses"]
        if not isinstance(server, str) or not isinstance(addresses, list):
            raise TypeError
        return frozenset(map(str, addresses)) if server == self._server else frozenset()
