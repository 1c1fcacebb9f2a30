"""Which release answers from 0.16: asked at the price of one small request, and only where it may be another one.

The server says it by the fingerprint of its schema. What was told is remembered in the data directory with the address,
the session's state, which is another one after each start of the process, and the container. The schema of a release
that is not known is fetched once, and lies beside it under its fingerprint.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from reconciler.files import recall, write_private
from reconciler.problem import Problem, Severity, TargetUnreadable
from reconciler.targets.stalwart.connection import Connection
from reconciler.targets.stalwart.container import Container, version
from reconciler.targets.stalwart.release import JMAP, KNOWN, Release, line, recognised
from reconciler.targets.stalwart.schema import LARGEST, Schema

_WHERE = "/api/schema"
_FINGERPRINT = re.compile(rf"{_WHERE}/([A-Za-z0-9_-]{{20,100}})")


class Recognition:
    """The release of one server. Without a ``file`` it is remembered as long as this object lives.

    ``only`` is the line of releases that the directory allows (``0.16``, ``1``), None any. A file that can't be read
    or written costs the memory alone.
    """

    def __init__(self, file: Path | None = None, server: str = "", only: str | None = None) -> None:
        """Read what is known of the server at this URL."""
        self._file, self._server, self._only = file, server.rstrip("/"), only
        self._note: dict[str, str] = self._read()
        self.release = self._remembered()

    def is_same(self, state: str, container: Container | None) -> bool:
        """Whether it is still the process that told its release: it has its state, and its container has not moved."""
        return bool(state) and self._note == self._seen(state, container)

    def ask(self, connection: Connection) -> Release:
        """Ask the server. Raises `TargetUnreadable`, also for a release that the directory does not allow."""
        self.release = None
        found = _FINGERPRINT.search(connection.leads_to(_WHERE))
        if found is None:
            self.release = replace(JMAP, fingerprint="", good="")  # something before it answers in its place
        elif (release := recognised(found[1])) is JMAP:
            self.release = JMAP
        else:
            self.release = recognised(release.fingerprint, self._schema(connection, release.fingerprint))
        self._allow(connection, self.release)
        return self.release

    def note(self, state: str, container: Container | None) -> None:
        """Remember the release with what shows that it is still that one."""
        note = self._seen(state, container)
        if note == self._note or not note["fingerprint"]:
            return
        self._note = note
        if self._file is not None:
            with contextlib.suppress(OSError):
                write_private(self._file, json.dumps({"server": self._server, **note}).encode())

    def forget(self) -> None:
        """Ask again the next time: what was written was refused as unknown."""
        self.note("refused", None)

    def problem(self, where: str, container: Container | None) -> Problem | None:
        """Warn of a release that is not known; None of one that is."""
        release, told = self.release, version(container) if container else None
        hint = "read the plan before you apply it, or stay with the known release"
        if release is None or release.good:
            return _newer(told, where, hint)
        if release.fingerprint == "":
            summary = f"does not tell its release: {_WHERE} is answered by something else; it is read as {JMAP.name}"
            return Problem(where, summary, f"let {_WHERE} through a proxy before it", Severity.WARNING)
        name = release.name or (".".join(map(str, told)) if told and told > KNOWN[-1].version else "")
        named = f"release {name}, which this program was not tried with" if name else "a release that is not known here"
        summary = (
            f"is of {named} (schema {release.fingerprint[:12]}): what it has was asked of it, and "
            "nothing that it does not have is written"
        )
        return Problem(where, summary, hint, Severity.WARNING)

    def _allow(self, connection: Connection, release: Release) -> None:
        if self._only is None or not release.fingerprint or line(release) == self._only:
            return
        summary = f"is of release {line(release)}, but targets.stalwart.release is {self._only}"
        hint = f'pin the image\'s tag to a version {self._only}, or write `release: "{line(release)}"`'
        raise TargetUnreadable(connection.problem(summary, hint))

    # ------------------------------------------------------------------------------------------------------ remembering
    def _seen(self, state: str, container: Container | None) -> dict[str, str]:
        process = f"{container.id} {container.started}" if container else ""
        fingerprint = self.release.fingerprint if self.release else ""
        return {"fingerprint": fingerprint, "state": state, "container": process}

    def _read(self) -> dict[str, str]:
        """Return what is remembered of this server; damaged or led elsewhere, it is asked of the server again."""

        def parse(found: Any) -> dict[str, str]:
            names = ("fingerprint", "state", "container") if found["server"] == self._server else ()
            return {name: str(found[name]) for name in names}

        return (recall(self._file, parse)[0] if self._file else None) or {}

    def _remembered(self) -> Release | None:
        """Return the release that was told, where all that is needed of it is there and the directory allows it."""
        fingerprint = self._note.get("fingerprint", "")
        if not fingerprint or _FINGERPRINT.fullmatch(f"{_WHERE}/{fingerprint}") is None:
            return None
        found: Release | None = recognised(fingerprint)
        if found is not JMAP:
            schema = self._kept(fingerprint)
            found = recognised(fingerprint, schema) if schema else None
        return found if found is None or self._only in (None, line(found)) else None

    def _schema(self, connection: Connection, fingerprint: str) -> Schema:
        if (kept := self._kept(fingerprint)) is not None:
            return kept
        answer = connection.send("GET", f"{_WHERE}/{fingerprint}")
        try:
            schema = Schema.served(answer.json() if len(answer.body) <= LARGEST else None)
        except ValueError:
            summary = f"answers what is no schema at {_WHERE}, so what its release has can't be told"
            hint = f"look at what is between here and the server, or stay with release {JMAP.name}"
            raise TargetUnreadable(connection.problem(summary, hint)) from None
        if (path := self._path(fingerprint)) is not None:
            with contextlib.suppress(OSError):
                write_private(path, schema.dump())
        return schema

    def _kept(self, fingerprint: str) -> Schema | None:
        path = self._path(fingerprint)
        return recall(path, Schema.kept)[0] if path else None

    def _path(self, fingerprint: str) -> Path | None:
        return self._file.with_name(f"stalwart-objects-{fingerprint}.json") if self._file else None


def _newer(told: tuple[int, int] | None, where: str, hint: str) -> Problem | None:
    """Warn of an image that says that it is newer than all that is known, though its schema is a known one."""
    newest = KNOWN[-1]
    if told is None or told <= newest.version:
        return None
    summary = f"is of release {'.'.join(map(str, told))}, which is not known here: it is read as {newest.name}, "
    return Problem(where, f"{summary}the newest known one", hint, Severity.WARNING)
