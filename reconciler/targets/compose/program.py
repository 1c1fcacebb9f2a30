"""The ``docker compose`` program: called with a scrubbed environment, bounded in time, its errors without values."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reconciler import fence, files
from reconciler.problem import Problem, TargetUnreadable
from reconciler.process import COMPOSE, CannotRun, Ended, run
from reconciler.targets.compose.envfile import EnvFile, check_place
from reconciler.targets.compose.project import LARGEST, ComposeFiles, Project, not_yaml
from reconciler.targets.compose.words import own_words

OLDEST = (2, 20)
_READ_TIMEOUT = 60.0  # seconds; 0.3 is usual
_UP_TIMEOUT = 300.0  # seconds; a container's stop may take its whole grace period
_KEY = re.compile(r"^[ \t-]{0,100}(?:export[ \t]{1,9})?[\"']?([\w.-]{1,100})[\"']?[ \t]{0,9}[:=]", re.MULTILINE)
_KEY_IN_FLOW = re.compile(r"[{,]\s{0,100}[\"']?([\w.-]{1,100})[\"']?[ \t]{0,9}:")
_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)(?:\}|:?[-?+][^}\n]{0,200}\})")
_NAMED = re.compile(r"^name:[ \t]*[\"']?([a-z0-9][a-z0-9_-]*)[\"']?[ \t]*$", re.MULTILINE)
_EXHAUSTED = re.compile(r"^(fatal error: |runtime: ).*out of memory|cannot allocate memory", re.MULTILINE)
_INSTALL = "install the Compose plugin 2.20 or later: https://docs.docker.com/compose/install/"


_STEP = re.compile(r"\b(Container|Network|Volume) +\"?([^\s\"]+)\"? +([A-Z][a-z]+)\b")
_NOTHING: Mapping[str, str] = {}
_NO_SCALES: Mapping[str, int] = {}


@contextlib.contextmanager
def _configured() -> Iterator[Mapping[str, str]]:
    """Yield what lets Compose rehearse: it makes its folder of settings, which fails where nothing may be written."""
    if Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker").exists():
        yield {}
        return
    with files.folder() as folder:
        yield {"DOCKER_CONFIG": str(folder)}


def _up(services: Sequence[str], scales: Mapping[str, int], how: Sequence[str]) -> list[str]:
    numbers = [
        part for service in services if service in scales for part in ("--scale", f"{service}={scales[service]}")
    ]
    return ["up", *how, "--no-deps", "--no-build", "--pull", "never", *numbers, "--", *services]


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
        env_file: Path | Sequence[Path],
        project: str | None,
        docker_host: str | None,
        *,
        directory: Path | None = None,
    ) -> None:
        self.command = tuple(command)
        self.files = tuple(files)
        self.env_files = (env_file,) if isinstance(env_file, Path) else tuple(env_file)
        self.project = project
        self.docker_host = docker_host
        self.directory = directory

    @property
    def env_file(self) -> Path:
        """The env file that is written: the last one, which wins over the others."""
        return self.env_files[-1]

    @property
    def folder(self) -> Path:
        """The project directory."""
        return self.directory or self.files[0].parent

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

    def config(self, *, interpolate: bool = True, env_file: Path | None = None) -> dict[str, Any]:
        """Return the project as Compose understands it. Raises `TargetUnreadable` with Compose's own words."""
        self._check_files()
        options = ["config", "--format", "json", *([] if interpolate else ["--no-interpolate"])]
        done = self._run([*self._project(env_file), *options], _READ_TIMEOUT)
        if done.status != 0:
            if re.search(r"\b(yaml: |go-yaml )", done.complaint):
                self._check_syntax()
            said = done.complaint.replace(str(env_file), str(self.env_file))
            raise self._failure("the compose files can't be read", said)
        try:
            answer = json.loads(done.said)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise self._failure("compose config answers no JSON object", "")
        return answer

    def shown_name(self, name: str, running: Collection[str]) -> str:
        """Return the project's name where it may be shown, else nothing: interpolated, it may hold a secret.

        ``running`` are the names of projects that run.
        """
        literal = {found for file in self.files for found in _NAMED.findall(_read(file))}
        folder = re.sub(r"[^a-z0-9_-]", "", self.folder.name.lower()).lstrip("_-")
        return name if name in {self.project, folder, *literal, *running} else ""

    def read_env_file(self, stack: str) -> EnvFile:
        """Read the env file. Raises `TargetUnreadable`, also where it is not the project's own."""
        for path in self.env_files:
            check_place(path, self.folder)
        for path in self.env_files[:-1]:
            EnvFile.read(path, "")
        return EnvFile.read(self.env_file, stack)

    def up(
        self,
        project: Project,
        services: Sequence[str],
        scales: Mapping[str, int] = _NO_SCALES,
        *,
        start: bool = True,
        grace: float = 0.0,
        anew: bool = False,
    ) -> None:
        """Bring services up with what the files say now: these alone, nothing built or pulled.

        ``scales`` are how many containers a service keeps, ``start`` says whether what is made is started, ``grace``
        how many seconds the stops may take. ``anew`` recreates them whatever their configuration: the content of a
        secret's file is no part of that. Nothing is run where ``project``, which is what the files say, names a program
        for one of them. Never with ``-y``, which would recreate changed volumes, and never with
        ``--wait``, which waits for the first verdict of a health check that may run every 120 s. Raises
        `TargetUnreadable`.
        """
        project.check_programs(services)
        fence.before_write()
        how = ["-d"] if start else ["--no-start"]
        options = _up(services, scales, [*how, *(["--force-recreate"] if anew else [])])
        done = self._run([*self._project(), *options], _UP_TIMEOUT + grace)
        fence.progress()
        if done.status != 0:
            raise self._failure(f"compose up {' '.join(services)} failed", done.complaint)

    def rehearse(
        self, project: Project, services: Sequence[str], scales: Mapping[str, int], env_file: Path, more: Path
    ) -> Mapping[tuple[str, str], frozenset[str]]:
        """Return what `up` would do, and does not, with another env file and one more compose file.

        By kind and name: ``{("Container", "app-1"): {"Recreate", ...}}``, in Compose's words. Raises
        `TargetUnreadable` where it would fail, or run a program of this machine: a rehearsal does, too.
        """
        project.check_programs(services)
        options = ["--dry-run", *_up(services, scales, ["-d"])]
        with _configured() as environ:
            done = self._run([*self._project(env_file, more), *options], _READ_TIMEOUT, environ)
        if done.status != 0:
            raise self._failure(f"compose up {' '.join(services)} failed when it was only rehearsed", done.complaint)
        found: dict[tuple[str, str], set[str]] = {}
        for kind, name, word in _STEP.findall(done.complaint + done.output):
            found.setdefault((kind, name), set()).add(word)
        return {step: frozenset(words) for step, words in found.items()}

    def command_line(self, services: Sequence[str], *options: str) -> str:
        """Return the `up` that a person may give for these services."""
        return shlex.join([*self._project(), "up", "-d", "--no-deps", *options, *services])

    def _project(self, env_file: Path | None = None, more: Path | None = None) -> list[str]:
        """Begin a command; ``env_file`` stands in for the last one, ``more`` is one more compose file."""
        options = [part for file in (*self.files, *([more] if more else [])) for part in ("-f", str(file))]
        options += ["--project-directory", str(self.directory)] if self.directory else []
        for path in (*self.env_files[:-1], env_file or self.env_file):
            options += ["--env-file", str(path)]
        return [*self.command, *options, *(["-p", self.project] if self.project else [])]

    def _check_files(self) -> None:
        """Raise `TargetUnreadable` before Compose is shown a file that it should not read."""
        for file in self.files:
            if not file.is_file():
                hint = "correct targets.compose.file"
                raise TargetUnreadable(Problem(str(file), "the compose file does not exist", hint, scope="compose"))
        self.read_env_file("")

    def _check_syntax(self) -> None:
        """Raise `TargetUnreadable` with file and line where one of the files is no YAML at all."""
        for file in self.files:
            if found := not_yaml(file):
                line, why = found
                problem = Problem(
                    f"{file}:{line}", f"is not YAML: {own_words(why, (), ())}", self._hint(), scope="compose"
                )
                raise TargetUnreadable(problem)

    def _run(self, arguments: Sequence[str], limit: float, environ: Mapping[str, str] = _NOTHING) -> Ended:
        host = {"DOCKER_HOST": self.docker_host} if self.docker_host else {}
        where = " ".join(self.command)
        try:
            return run(COMPOSE, arguments, {**os.environ, **host, **environ}, limit=limit)
        except CannotRun as error:
            hint = _INSTALL if error.missing else "see whether the Docker Engine answers: docker ps"
            summary = f"{self.command[0]} {error.why}" if error.missing else error.why
            raise TargetUnreadable(Problem(where, summary, hint, scope="compose")) from None

    def _failure(self, summary: str, output: str) -> TargetUnreadable:
        """Put Compose's own words behind ours, without the values that it repeats."""
        said = "it needs too much memory" if _EXHAUSTED.search(output) else own_words(output, *self._known())
        where = ", ".join(str(file) for file in self.files)
        hint = self._hint(said)
        return TargetUnreadable(Problem(where, f"{summary}: {said}" if said else summary, hint, scope="compose"))

    def _hint(self, said: str = "") -> str:
        if "required variable" in said:
            return "set the variable in the env file"
        if "failed to read" in said:
            return "correct that line of the env file"
        return f"correct the file; `{shlex.join([*self._project(), 'config', '-q'])}` says the same"

    def _known(self) -> tuple[set[str], set[str]]:
        """Return the names and the paths that stand in the compose files as they are written."""
        written = [_read(file) for file in self.files]
        included = [_read(file) for file, _ in ComposeFiles(self.files).files]
        names = {name for text in written for key in (_KEY, _KEY_IN_FLOW) for name in key.findall(text)}
        names |= {name for text in (*written, *included) for name in _VARIABLE.findall(text)}
        folder = self.folder
        literal = {word for text in written for word in re.findall(r"[^\s\"'\\{}\[\],:$]+", text)}
        paths = {os.path.normpath(folder / word) for word in literal}
        return names, paths | {str(file) for file in (*self.files, *self.env_files)}


def _read(file: Path) -> str:
    """Return a compose file's text, empty where it is none."""
    try:
        return files.read(file, LARGEST).decode("utf-8", "replace")
    except files.CannotRead:
        return ""
