"""The ``docker compose`` program: called with a scrubbed environment, bounded in time, its errors without values."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reconciler.problem import Problem, TargetUnreadable
from reconciler.secrecy import without_values
from reconciler.targets.compose.envfile import EnvFile

OLDEST = (2, 20)
_READ_TIMEOUT = 60.0  # seconds; 0.3 is usual
_UP_TIMEOUT = 300.0  # seconds; a container's stop may take its whole grace period

# Everything else stays outside: the environment wins over the env file, so that an SMTP_HOST of a daemon's own would
# silently take its place. SSH_AUTH_SOCK is needed for DOCKER_HOST=ssh://.
_PASSED = ("PATH", "HOME", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "SSH_AUTH_SOCK")
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
        text = done.stdout.strip().removeprefix("v")
        if done.returncode != 0:
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
        if done.returncode != 0:
            said = done.stderr.replace(str(env_file), str(self.env_file))
            raise self._failure("the compose files can't be read", said, secrets)
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise self._failure("compose config answers no JSON object", "")
        return answer

    def up(self, services: Sequence[str], secrets: Iterable[str]) -> None:
        """Bring services up with what the files say now: these alone, nothing built or pulled.

        Never with ``-y``, which would recreate changed volumes, and never with ``--wait``, which waits for the first
        verdict of a health check that may run every 120 s. Raises `TargetUnreadable`.
        """
        options = ["up", "-d", "--no-deps", "--no-build", "--pull", "never", *services]
        done = self._run([*self._project(self.env_file), *options], _UP_TIMEOUT)
        if done.returncode != 0:
            raise self._failure(f"compose up {' '.join(services)} failed", done.stderr, secrets)

    def _project(self, env_file: Path) -> list[str]:
        files = [part for file in self.files for part in ("-f", str(file))]
        return [*self.command, *files, "--env-file", str(env_file), *(["-p", self.project] if self.project else [])]

    def _check_files(self) -> None:
        for file in self.files:
            if not file.is_file():
                hint = "correct targets.compose.file"
                raise TargetUnreadable(Problem(str(file), "the compose file does not exist", hint, scope="compose"))

    def _run(self, arguments: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
        where = " ".join(self.command)
        try:
            return subprocess.run(
                arguments,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                encoding="utf-8",
                errors="replace",
                env=self._environment(),
                timeout=timeout,
            )
        except FileNotFoundError as error:
            summary = f"{self.command[0]} is not installed, or not on PATH"
            raise TargetUnreadable(Problem(where, summary, _INSTALL, scope="compose")) from error
        except OSError as error:
            raise TargetUnreadable(
                Problem(where, f"can't be run: {error.strerror}", _INSTALL, scope="compose")
            ) from error
        except subprocess.TimeoutExpired:
            summary = f"did not end within {timeout:.0f} seconds"
            # Without its cause: the exception holds the program's output.
            raise TargetUnreadable(
                Problem(where, summary, "see whether the Docker Engine answers: docker ps", scope="compose")
            ) from None

    def _environment(self) -> Mapping[str, str]:
        passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
        return passed | ({"DOCKER_HOST": self.docker_host} if self.docker_host else {})

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
