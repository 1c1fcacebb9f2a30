"""The ``docker compose`` program: called with a scrubbed environment, bounded in time, its errors without values."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from reconciler.problem import Problem, TargetUnreadable
from reconciler.process import COMPOSE, CannotRun, Ended, run
from reconciler.secrecy import without_values
from reconciler.targets.compose.envfile import EnvFile, check_place

OLDEST = (2, 20)
_READ_TIMEOUT = 60.0  # seconds; 0.3 is usual
_UP_TIMEOUT = 300.0  # seconds; a container's stop may take its whole grace period
_KEY = re.compile(r"^[ \t-]*(?:export[ \t]+)?[\"']?([\w.-]+)[\"']?[ \t]*[:=]", re.MULTILINE)
_TELLING = 6  # characters of a part of a word that may be a secret of its own
_INSTALL = "install the Compose plugin 2.20 or later: https://docs.docker.com/compose/install/"


def redact(text: str, secrets: Iterable[str]) -> str:
    """Replace every occurrence of a secret, the longest first."""
    for secret in sorted({item for item in secrets if item}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


class Program:
    """Compose, called for one project."""

    def __init__(
        self,
        command: Sequence[str],
        files: Sequence[Path],
        env_file: Path,
        project: str | None,
        docker_host: str | None,
    ) -> None:
        self.command = tuple(command)
        self.files = tuple(files)
        self.env_file = env_file
        self.project = project
        self.docker_host = docker_host

    def version(self) -> str:
        """Ask for the version. Raises `TargetUnreadable` where it is missing or older than 2.20."""
        where = " ".join(self.command)
        done = self._run([*self.command, "version", "--short"], _READ_TIMEOUT)
        text = done.output.strip().removeprefix("v")
        if done.status != 0:
            raise TargetUnreadable(Problem(where, "there is no Compose plugin", _INSTALL, scope="compose"))
        numbers = re.match(r"(\d+)\.(\d+)", text)
        if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST:
            raise TargetUnreadable(Problem(where, f"Compose {text} is too old", _INSTALL, scope="compose"))
        return text

    def config(
        self, *, interpolate: bool = True, env_file: Path | None = None, secrets: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Return the project as Compose understands it. Raises `TargetUnreadable` with Compose's own words."""
        self._check_files()
        options = ["config", "--format", "json", *([] if interpolate else ["--no-interpolate"])]
        done = self._run([*self._project(env_file or self.env_file), *options], _READ_TIMEOUT)
        if done.status != 0:
            said = done.complaint.replace(str(env_file), str(self.env_file))
            raise self._failure("the compose files can't be read", said, secrets)
        try:
            answer = json.loads(done.said)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise self._failure("compose config answers no JSON object", "")
        return answer

    def read_env_file(self, stack: str) -> EnvFile:
        """Read the env file. Raises `TargetUnreadable`, also where it is not the project's own."""
        check_place(self.env_file, self.files)
        return EnvFile.read(self.env_file, stack)

    def up(self, services: Sequence[str], secrets: Iterable[str]) -> None:
        """Bring services up with what the files say now: these alone, nothing built or pulled.

        Never with ``-y``, which would recreate changed volumes, and never with ``--wait``, which waits for the first
        verdict of a health check that may run every 120 s. Raises `TargetUnreadable`.
        """
        options = ["up", "-d", "--no-deps", "--no-build", "--pull", "never", "--", *services]
        done = self._run([*self._project(self.env_file), *options], _UP_TIMEOUT)
        if done.status != 0:
            raise self._failure(f"compose up {' '.join(services)} failed", done.complaint, secrets)

    def _project(self, env_file: Path) -> list[str]:
        files = [part for file in self.files for part in ("-f", str(file))]
        return [*self.command, *files, "--env-file", str(env_file), *(["-p", self.project] if self.project else [])]

    def _check_files(self) -> None:
        """Raise `TargetUnreadable` before Compose is shown a file that it should not read."""
        for file in self.files:
            if not file.is_file():
                hint = "correct targets.compose.file"
                raise TargetUnreadable(Problem(str(file), "the compose file does not exist", hint, scope="compose"))
        self.read_env_file("")

    def _run(self, arguments: Sequence[str], limit: float) -> Ended:
        host = {"DOCKER_HOST": self.docker_host} if self.docker_host else {}
        where = " ".join(self.command)
        try:
            return run(COMPOSE, arguments, {**os.environ, **host}, limit=limit)
        except CannotRun as error:
            hint = _INSTALL if error.missing else "see whether the Docker Engine answers: docker ps"
            summary = f"{self.command[0]} {error.why}" if error.missing else error.why
            raise TargetUnreadable(Problem(where, summary, hint, scope="compose")) from None

    def _failure(self, summary: str, output: str, secrets: Iterable[str] = ()) -> TargetUnreadable:
        """Put Compose's words behind ours. In some of them it repeats values of its files, in quotes and bare."""
        written = [_read(file) for file in self.files]
        names = {name for text in (*written, _read(self.env_file)) for name in _KEY.findall(text)}
        bare = (word for text in written for line in text.splitlines() for word in _value_words(line))
        hidden = [*secrets, *self._words(), *(word for word in bare if word not in names)]
        told = redact(without_values(output, names), hidden)
        lines = [line.strip() for line in told.splitlines() if line.strip()]
        said = "; ".join(lines[-3:])[:500]
        where = ", ".join(str(file) for file in self.files)
        return TargetUnreadable(Problem(where, f"{summary}: {said}" if said else summary, _hint(said), scope="compose"))

    def _words(self) -> Iterable[str]:
        try:
            return list(EnvFile.read(self.env_file, "").words())
        except TargetUnreadable:
            return ()


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _value_words(line: str) -> Iterator[str]:
    """Yield what stands behind a line's key: whole, as Compose repeats it unescaped, its words, and their parts."""
    value = "" if line.lstrip().startswith("#") else _KEY.sub("", line).strip()
    yield from (text for text in (value.strip("\"'"), value.strip("\"'").replace("$$", "$")) if len(text) >= _TELLING)
    for word in re.findall(r"[^\s\"'\\$={},\[\]]{4,}", value):
        yield from (word, *(part for part in re.split("[:/@?+-]", word) if len(part) >= _TELLING))


def _hint(said: str) -> str:
    if "required variable" in said:
        return "set the variable in the env file"
    if "failed to read" in said:
        return "correct that line of the env file"
    return "docker compose config -q says the same: correct the file"
