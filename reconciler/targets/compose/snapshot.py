"""Everything the target reads before it judges or acts, gathered side by side, and what an import reads."""

from __future__ import annotations

import contextlib
import hmac
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.problem import Problem, Refused, SecretUnreadable, Severity, TargetUnreadable
from reconciler.resources import Different, Same, Secret, SecretRef, SecretText, Unreadable, Variable, Verdict
from reconciler.secrecy import Public, Withheld, is_secret_name, is_switch
from reconciler.secrets.schemes import clear, is_crypt_hash
from reconciler.target import Reveal
from reconciler.targets.compose import secretfiles
from reconciler.targets.compose.engine import PROJECT, Container, Details, Engine, newest, stopped
from reconciler.targets.compose.envfile import EnvFile
from reconciler.targets.compose.program import Program
from reconciler.targets.compose.project import Interpolation, Project
from reconciler.targets.compose.secretfiles import SecretFile
from reconciler.targets.compose.written import WrittenFiles

if TYPE_CHECKING:
    from reconciler.targets.compose import Compose


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The project, its env file and what runs of it. ``details`` are by container id, of the services asked for."""

    version: str
    project: Project
    env_file: EnvFile
    containers: tuple[Container, ...]
    details: Mapping[str, Details]
    networks: Mapping[str, tuple[str, ...]]
    shown_name: str = ""  # the project's name where it may be shown
    folder: Path = Path()  # the project directory

    def replicas(self, service: str) -> tuple[Container, ...]:
        """Return the living containers of a service of this project."""
        return newest(self._ours, service)

    def kept(self, service: str) -> tuple[Container, ...]:
        """Return the containers that count: the living ones, or those that are stopped and stay so."""
        if service in self.env_file.resting:
            return self.replicas(service) or stopped(self._ours, service, twins=True)
        return self.replicas(service) or stopped(self._ours, service, interrupted=service in self.env_file.recreating)

    def rests(self, service: str) -> bool:
        """Whether nothing of it runs, and nothing should: it is stopped, or none of it is asked for."""
        if self.replicas(service):
            return False
        if service in self.env_file.resting:
            return True
        return bool(self.kept(service)) or self.project.scale(service) == 0

    @property
    def _ours(self) -> list[Container]:
        return [item for item in self.containers if item.project == self.project.name]

    def readers(self) -> dict[str, str]:
        """Map the services that get all variables of our env file, as their own ``env_file``, to its format there."""
        ours = os.path.realpath(self.env_file.path)
        return {
            service: kind
            for service, entries in self.project.env_files.items()
            for path, kind in entries
            if os.path.realpath(self.folder / path) == ours
        }

    def running(self, service: str, name: str) -> tuple[str | None, ...]:
        """Return what each replica has for a variable, or would have when it is started.

        Nothing counts of a service whose recreation was interrupted: it may not have come up, or there are two of it.
        """
        if service in self.env_file.recreating:
            return ()
        if service in self.env_file.resting and not self.replicas(service):
            return (None,)
        found = [self.details[item.id] for item in self.kept(service) if item.id in self.details]
        return tuple(item.environment.get(name) for item in found)


def read(
    program: Program, engine: Engine, stack: str, services: Iterable[str], files: WrittenFiles | None = None
) -> Snapshot:
    """Ask Compose and the engine at the same time; ``files`` may know what Compose says.

    Raises `TargetUnreadable` with all that went wrong.
    """
    files = files or WrittenFiles()
    with ThreadPoolExecutor(4, thread_name_prefix="compose") as pool:
        said = files.ask(program, pool)
        live = pool.submit(_live, engine, frozenset(services))
        env_file = pool.submit(program.read_env_file, stack)
    files.settled()
    _raise_for(said.version, env_file, said.effective, said.literal, live)
    ours = env_file.result()
    project = _with_env_files(Project.of(said.literal.result(), said.effective.result()), ours, program.folder)
    containers, details, subnets = live.result()
    networks = {key: subnets[name] for key, name in project.networks.items() if name in subnets}
    name = program.shown_name(project.name, {item.project for item in containers})
    return Snapshot(said.version.result(), project, ours, containers, details, networks, name, program.folder)


def _with_env_files(project: Project, ours: EnvFile, folder: Path) -> Project:
    """Return the project with what its services' own env files take in, and where those lie."""
    places = {
        service: tuple((ours.filled(path), form) for path, form in entries)
        for service, entries in project.env_files.items()
    }
    uses = {variable: dict.fromkeys(found) for variable, found in project.uses.items()}
    for service, entries in places.items():
        for path in (folder / path for path, form in entries if form != "raw"):
            with contextlib.suppress(TargetUnreadable):
                if os.path.realpath(path) != os.path.realpath(ours.path):
                    for name, taken in EnvFile.read(path, "").takes():
                        for variable in taken:
                            uses.setdefault(variable, {})[f"{service}.{name}"] = None
    return replace(project, env_files=places, uses={variable: tuple(found) for variable, found in uses.items()})


def _raise_for(*futures: Future[Any]) -> None:
    """Raise all problems at once; a missing program or file makes every other call of it fail as well."""
    problems: list[Problem] = []
    program, env_file, *configs, live = (future.exception() for future in futures)
    for error in (program, live, env_file, *(() if program or env_file else configs)):
        if isinstance(error, TargetUnreadable):
            problems += [item for item in error.problems if item not in problems]
        elif error is not None:
            raise error
    if problems:
        raise TargetUnreadable(*problems)


def _counting(containers: Sequence[Container], service: str) -> tuple[Container, ...]:
    return newest(containers, service) or stopped(containers, service)


def _live(
    engine: Engine, services: frozenset[str]
) -> tuple[tuple[Container, ...], dict[str, Details], dict[str, tuple[str, ...]]]:
    containers = engine.containers()
    wanted = [
        item
        for project in {item.project for item in containers}
        for service in services
        for item in _counting([other for other in containers if other.project == project], service)
    ]
    with ThreadPoolExecutor(engine.connections, thread_name_prefix="engine") as pool:
        subnets = pool.submit(engine.networks)
        inspected = dict(zip((item.id for item in wanted), pool.map(engine.details, wanted), strict=True))
    details = {name: found for name, found in inspected.items() if found is not None}
    kept = tuple(item for item in containers if item.id not in inspected or item.id in details)
    return kept, details, subnets.result()


# ----------------------------------------------------------------------------------------------- is it that stack?
def identity(snapshot: Snapshot, program: Program, engine: Engine, services: Collection[str]) -> Iterator[Problem]:
    """Yield why these services would not be those that run: a wrong project name or file makes a second stack.

    Their own containers tell, and no other's: a neighbour may once have been started with one file more.
    """
    mine = [
        item
        for item in snapshot.containers
        if item.project == snapshot.project.name and item.service in services and not item.one_off
    ]
    if not mine:
        yield from _elsewhere(snapshot, program, services)
        return
    yield from dict.fromkeys(
        problem
        for item in sorted(mine, key=lambda item: item.name)
        for problem in _foreign(item, snapshot, program, engine)
    )


@dataclass(frozen=True, slots=True)
class Start:
    """What Compose was called with when it made a container, as its labels say: nothing where they don't."""

    files: tuple[str, ...]
    env_files: tuple[str, ...]
    directory: str

    @classmethod
    def of(cls, container: Container) -> Start:
        """Read the labels; Compose 1 names its files as seen from the project directory."""
        directory = container.labels.get(f"{PROJECT}.working_dir", "")
        said = (container.labels.get(f"{PROJECT}.{key}", "") for key in ("config_files", "environment_file"))
        files, env_files = (tuple(str(Path(directory, item)) for item in text.split(",") if item) for text in said)
        return cls(files, env_files, directory)


def _foreign(container: Container, snapshot: Snapshot, program: Program, engine: Engine) -> Iterator[Problem]:
    """Yield why a container was not started as we would: the first of its labels that says otherwise."""
    started = Start.of(container)
    if engine.remote:
        if [Path(file).name for file in started.files] == [file.name for file in program.files]:
            yield from _far(snapshot, program, ",".join(started.files))
        elif started.files:
            yield _started_otherwise("file", container, started.files, program.files, program)
    elif started.files and _paths(started.files) != _paths(program.files):
        yield _started_otherwise("file", container, started.files, program.files, program)
    elif started.directory and _paths([started.directory]) != _paths([program.folder]):
        yield _started_otherwise("directory", container, [started.directory], [program.folder], program)
    elif started.env_files and _paths(started.env_files) != _paths(program.env_files):
        yield _started_otherwise("env_file", container, started.env_files, program.env_files, program)


_RUNS = {
    "file": "runs from",
    "directory": "was started with the project directory",
    "env_file": "runs with the env file",
}


def _started_otherwise(
    key: str, container: Container, recorded: Sequence[str], declared: Sequence[Path], program: Program
) -> Problem:
    """Refuse what was started in another way, with a remedy: to declare that way, or to leave one that is gone."""
    runs = f"the project {container.project} {_RUNS[key]} {','.join(recorded)}"
    summary = f"{runs}, not {'from' if key == 'file' else 'with'} {_listed(declared)}"
    if all(Path(path).exists() and not Path(path).is_relative_to("/proc") for path in recorded):
        value = recorded[0] if len(recorded) == 1 else f"[{', '.join(recorded)}]"
        hint = f"declare that: targets.compose.{key}: {value}"
        hint += ", or another targets.compose.project" if key == "file" else ""
    else:
        taken = program.command_line([container.service], "--force-recreate", "--no-build", "--pull", "never")
        hint = f"that is not there any more, or not here: where nothing else deploys it, take it over with `{taken}`"
    return Problem(f"targets.compose.{key}", summary, hint, Severity.REFUSED, "compose")


def _elsewhere(snapshot: Snapshot, program: Program, services: Collection[str]) -> Iterator[Problem]:
    """Yield the projects that these services run as, where a second stack would start beside them."""
    files = _paths(program.files)
    names = {str((snapshot.project.services.get(name) or {}).get("container_name") or "") for name in services} - {""}
    others = {
        item.project
        for item in snapshot.containers
        if item.project != snapshot.project.name
        and (
            _runs_from(item, files)
            or item.name in names
            or (item.service in services and _was_moved(item, snapshot, program))
        )
    }
    if others:
        wrong = snapshot.shown_name or "another one"
        summary = f"these files run as project {', '.join(sorted(others))}; as {wrong} a second stack starts"
        hint = f"set targets.compose.project: {min(others)}"
        yield Problem("targets.compose.project", summary, hint, Severity.REFUSED, "compose")


def _runs_from(container: Container, files: Sequence[str]) -> bool:
    return container.state == "running" and _paths(Start.of(container).files) == files


def _was_moved(container: Container, snapshot: Snapshot, program: Program) -> bool:
    """Whether a container was made from files of the same names that are not there any more, of the same image.

    Many stacks have a service ``app`` in a ``compose.yml``.
    """
    recorded = Start.of(container).files
    same = [Path(file).name for file in recorded] == [file.name for file in program.files]
    wanted = str((snapshot.project.services.get(container.service) or {}).get("image") or "")
    known = wanted and not container.image.startswith("sha256:")
    same = same and (not known or _repository(wanted) == _repository(container.image))
    return same and not any(Path(file).exists() for file in recorded)


def _repository(image: str) -> str:
    """Return an image's name without tag and digest."""
    return re.sub(r":[^:/]+$", "", image.partition("@")[0])


def _far(snapshot: Snapshot, program: Program, recorded: str) -> Iterator[Problem]:
    """Judge a stack on another machine: its paths are not ours, which matters only for what is mounted from there."""
    here = str(program.files[0].parent)
    for service, settings in snapshot.project.services.items():
        for volume in (settings or {}).get("volumes") or ():
            if volume.get("type") == "bind" and str(volume.get("source", "")).startswith(here):
                summary = f"{service} mounts a path of this machine, below {here}, while it runs on another"
                hint = f"run it there, from {recorded}"
                yield Problem("targets.compose.file", summary, hint, Severity.REFUSED, "compose")


def _paths(files: Iterable[str | Path]) -> list[str]:
    return [os.path.realpath(file) for file in files]


def _listed(files: Iterable[Path]) -> str:
    return ",".join(str(file) for file in files)


# ----------------------------------------------------------------------------------------------- wanted, and what is
@dataclass(frozen=True, slots=True)
class View:
    """A wanted variable beside what is. ``texts`` are the values it may have: none where that can't be known yet."""

    wanted: Variable
    secret: bool
    texts: tuple[str, ...]
    running: tuple[str | None, ...]
    configured: str | None
    interpolation: Interpolation | None
    declared: bool  # the service's `environment` has an entry for it
    is_assumed: bool = False  # it is set nowhere: `configured` is what the application then goes by
    file: SecretFile | None = None  # of a compose secret, whose content it is
    rests: bool = False  # nothing of the service runs, and nothing should

    def __repr__(self) -> str:
        """Name the variable only: the rest may be secret."""
        return f"View({self.wanted.address})"

    @property
    def text(self) -> str | None:
        """The desired value, where there is exactly one."""
        return self.texts[0] if len(self.texts) == 1 else None

    @property
    def variable(self) -> str:
        """The variable of the env file that decides on it; empty for a literal."""
        return self.interpolation.variable if self.interpolation else ""

    @property
    def misconfigured(self) -> bool:
        """Whether the files give it another value than it should have."""
        return bool(self.texts) and self.configured not in self.texts

    @property
    def stale(self) -> bool:
        """Whether a container has another value, or there is none and should be."""
        if not self.texts or (self.rests and not self.running):
            return False
        return not self.running or any(item not in self.texts for item in self.running)

    @property
    def oldest(self) -> str | None:
        """What runs; of several replicas one that is not as it should be."""
        return next(
            (item for item in self.running if item not in self.texts), self.running[0] if self.running else None
        )


class Values:
    """Reveals secrets, once each, and remembers them for the redaction of what other programs say."""

    def __init__(self, reveal: Reveal) -> None:
        self._reveal = reveal
        self._known: dict[Secret, str] = {}

    @property
    def revealed(self) -> tuple[str, ...]:
        """Every value revealed so far."""
        return tuple(self._known.values())

    def __getitem__(self, secret: Secret) -> str:
        """Return a secret's value; raises `SecretUnreadable`."""
        if secret not in self._known:
            self._known[secret] = self._reveal(secret)
        return self._known[secret]

    def view(self, snapshot: Snapshot, wanted: Variable) -> View:
        """Put a wanted variable beside what is. Raises `SecretUnreadable`."""
        value = wanted.running
        secrets = _secrets(wanted)
        if any(item.held for item in (*secrets, *wanted.clear)):
            return self.blind(snapshot, wanted)
        for ref in wanted.clear:
            if is_crypt_hash(self[ref]) or clear(self[ref]) != self[ref]:
                raise _no_clear_value(wanted, ref)
        texts = tuple(dict.fromkeys(self[item] for item in secrets)) or ((value,) if isinstance(value, str) else ())
        return self._view(snapshot, wanted, texts)

    def blind(self, snapshot: Snapshot, wanted: Variable) -> View:
        """Do the same without the desired value."""
        return self._view(snapshot, wanted, ())

    @staticmethod
    def _view(snapshot: Snapshot, wanted: Variable, texts: tuple[str, ...]) -> View:
        service, name, project = wanted.service, wanted.name, snapshot.project
        if wanted.secret:
            file = secretfiles.read(project, service, wanted.secret, snapshot.env_file)
            has, reads = (file.content, file.read_by_container) if file else (None, None)
            running = tuple(reads for _ in snapshot.kept(service))
            return View(
                wanted,
                bool(_secrets(wanted)),
                texts,
                running,
                has,
                None,
                declared=True,
                rests=snapshot.rests(service),
                file=file,
            )
        configured, declared = project.configured(service, name), name in project.written.get(service, {})
        assumed = None if declared or configured is not None or wanted.assumed is None else Public(wanted.assumed)
        live = snapshot.running(service, name)
        return View(
            wanted=wanted,
            secret=bool(_secrets(wanted)),
            texts=texts,
            running=tuple(assumed if item is None else item for item in live),
            configured=configured if assumed is None else assumed,
            interpolation=project.interpolation(service, name),
            declared=declared,
            is_assumed=assumed is not None,
            rests=snapshot.rests(service),
        )

    def observed(self, view: View, public: Collection[str], why: str = "") -> Variable | None:
        """Return the live variable; of a secret the verdict only. None when it stands nowhere.

        What runs is a stranger's to us, whatever is declared: of a text that is not the declared one only what is
        ``public`` may be shown, and under a name that tells of a secret not even that.
        """
        if view.oldest is None and view.configured is None:
            return None
        wanted = view.wanted
        oldest = view.configured if view.rests and not view.running else view.oldest  # what would run
        if not view.secret:
            running, configured = (_known(item, wanted, public) for item in (oldest, view.configured))
            return Variable(wanted.service, wanted.name, running, configured)
        return Variable(
            wanted.service,
            wanted.name,
            self._verdict(oldest, wanted, why),
            self._verdict(view.configured, wanted, why),
        )

    def _verdict(self, value: str | None, wanted: Variable, why: str) -> Verdict:
        if why:
            return Unreadable(why)
        for secret in _secrets(wanted):
            if value is not None and not secret.held and hmac.compare_digest(_bytes(value), _bytes(self[secret])):
                return Same(secret)
        return Different()


def _known(value: str | None, wanted: Variable, public: Collection[str]) -> str | Withheld | None:
    if not value or value == wanted.running or isinstance(value, Public):
        return value
    harmless = (value in public or is_switch(value)) and not is_secret_name(wanted.name)
    return Public(value) if harmless else Withheld(value)


def _no_clear_value(wanted: Variable, ref: SecretRef) -> SecretUnreadable:
    """Make the error for a password that is not as one types it (contract: a hash can't feed a consumer)."""
    hint = f"let {ref} hold the clear value: the mail server gets a hash of it all the same"
    return SecretUnreadable(
        Problem(
            wanted.address,
            f"the password {ref} is a hash, or begins with {{PLAIN}}, with which {wanted.service} can't log in",
            hint,
        )
    )


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _secrets(wanted: Variable) -> Sequence[Secret]:
    return (wanted.running,) if isinstance(wanted.running, SecretRef | SecretText) else wanted.candidates


def views(
    snapshot: Snapshot, wanted: Sequence[Variable], values: Values
) -> tuple[list[View], dict[str, SecretUnreadable]]:
    """Make a view of each wanted variable, and say by address which secrets can't be read."""
    found, unreadable = [], {}
    for variable in wanted:
        try:
            found.append(values.view(snapshot, variable))
        except SecretUnreadable as error:
            unreadable[variable.address] = error
            found.append(values.blind(snapshot, variable))
    return found, unreadable


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the project. ``names`` are those it is reached by inside the project's networks.

    ``container`` is the name of what runs of it, empty where nothing does; ``running`` has the environment of each
    replica and ``configured`` what a new one would get, ``secrets`` the contents of its compose secrets that are files
    of the project's own. Any of those values may be a secret.
    """

    name: str
    image: str
    container: str
    names: frozenset[str]
    running: tuple[Mapping[str, str], ...] = field(repr=False)
    configured: Mapping[str, str | None] = field(repr=False)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    def settled(self, variable: str) -> bool:
        """Whether every replica has for a variable what a new container would get."""
        return all(item.get(variable) == self.configured.get(variable) for item in self.running)


@dataclass(frozen=True, slots=True)
class Survey:
    """A project as it runs."""

    project: str
    services: tuple[Service, ...]


def survey(target: Compose) -> Survey:
    """Read every service. Raises `TargetUnreadable`, and `Refused` where this would not be the stack that runs."""
    with Engine(target.docker_host) as engine:
        program = target.program(engine.host)
        names = tuple(program.config().get("services") or ())
        snapshot = read(program, engine, target.stack, names)
        strangers = tuple(identity(snapshot, program, engine, names))
    if strangers:
        raise Refused(*(replace(item, hint=f"{item.hint}; here: --compose, --project") for item in strangers))
    return Survey(snapshot.shown_name, tuple(_service(name, snapshot) for name in names))


def _service(name: str, snapshot: Snapshot) -> Service:
    replicas = snapshot.replicas(name)
    inspected = [snapshot.details[item.id].environment for item in replicas if item.id in snapshot.details]
    settings = snapshot.project.services.get(name) or {}
    return Service(
        name=name,
        image=str(settings.get("image") or ""),
        container=replicas[0].name.removeprefix("/") if replicas else "",
        names=frozenset(snapshot.project.names_of(name)),
        running=tuple(inspected),
        configured=snapshot.project.effective.get(name, {}),
        secrets={secret: content for secret, content in _contents(name, snapshot) if content},
    )


def _contents(service: str, snapshot: Snapshot) -> Iterator[tuple[str, str | None]]:
    for secret in snapshot.project.secrets:
        file = secretfiles.read(snapshot.project, service, secret, snapshot.env_file)
        yield secret, file.read_by_container if file is not None else None


def env_file(files: Sequence[Path], docker_host: str | None) -> Path | None:
    """Return the env file that the running containers of these compose files were made with, if it is here.

    Another one would give them other values (compose semantics 9). Raises `TargetUnreadable`.
    """
    with Engine(docker_host) as engine:
        containers = engine.containers()
    wanted = [str(file.resolve()) for file in files]
    for item in containers:
        recorded = item.labels.get(f"{PROJECT}.config_files", "").split(",")
        path = item.labels.get(f"{PROJECT}.environment_file", "")
        if path and [str(Path(file).resolve()) for file in recorded] == wanted and Path(path).is_file():
            return Path(path)
    return None
