"""What Compose would do besides, known before a byte is written.

`up` applies everything that differs, and not the variables alone. So it is rehearsed with the variables as they run
now: whatever it would still make anew differs for another reason, and would ride along.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler import files, git
from reconciler.docker import NotThere
from reconciler.problem import Problem, TargetUnreadable
from reconciler.targets.compose.differences import differences, source, unseen
from reconciler.targets.compose.engine import PROJECT, Details, Engine
from reconciler.targets.compose.envfile import EnvFile
from reconciler.targets.compose.program import Program
from reconciler.targets.compose.project import NAMESPACES, Project
from reconciler.targets.compose.snapshot import Snapshot, View
from reconciler.targets.compose.written import Steps, WrittenFiles

# Compose 2.40.3 copies contents in a rehearsal, too, and misses the container; its hash says nothing of them.
_NOT_COPIED = "{content: !reset null, environment: !reset null, file: /dev/null}"
_REMADE = re.compile("Recreat")
_VERSION = f"{PROJECT.removesuffix('.project')}.version"
_UPSETTING = re.compile(r"Remov|Recreat|Stop|Err")  # of what is done to a network or a volume


@dataclass(frozen=True, slots=True)
class Forecast:
    """What `up` would do besides.

    ``riding`` names by service what else of it is not as the files say, nothing where only another Compose made it;
    ``upset`` the networks, volumes and containers that are taken down with it; ``along`` the services that live in its
    namespaces and are made anew with it; ``outside`` the containers that do and can't be; ``failed`` says that it
    would not work at all; ``tracked`` names by service the file that git tracks and a secret would be written into.
    """

    riding: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    upset: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    along: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    outside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    failed: Mapping[str, Problem] = field(default_factory=dict)
    tracked: Mapping[str, str] = field(default_factory=dict)


def scales(snapshot: Snapshot, services: Iterable[str]) -> dict[str, int]:
    """Return how many containers each service has, where the files say another number: that many it keeps."""
    found = {}
    for service in services:
        number = len(snapshot.kept(service))
        if number and number != snapshot.project.scale(service):
            found[service] = number
    return found


def foresee(
    snapshot: Snapshot, program: Program, engine: Engine, views: Sequence[View], written: WrittenFiles
) -> Forecast:
    """Rehearse what these views would have brought up, in one run of Compose. Raises `TargetUnreadable`.

    ``written`` may know what it said a moment ago.
    """
    tracked = dict(_tracked(snapshot, views))
    stale = dict.fromkeys(view.wanted.service for view in views if view.stale)
    services = [name for name in stale if snapshot.kept(name)]
    if not services:
        return Forecast(tracked=tracked)
    along = {name: tuple(item for item in snapshot.project.sharers(name) if snapshot.kept(item)) for name in services}
    everyone = list(dict.fromkeys([*services, *(item for items in along.values() for item in items)]))
    containers = [item for name in everyone for item in snapshot.kept(name)]
    details = {item.id: snapshot.details.get(item.id) or engine.details(item) for item in containers}
    rehearsal = _Rehearsal(snapshot, views, {key: found for key, found in details.items() if found is not None})
    try:
        steps = rehearsal.perform(program, everyone, written)
    except TargetUnreadable as error:
        return Forecast(along=along, failed=dict.fromkeys(services, error.problems[0]), tracked=tracked)
    upset = tuple(_upset(steps, snapshot, everyone))
    return Forecast(
        riding={name: names for name in everyone if (names := rehearsal.riding(name, steps, engine)) is not None},
        upset=dict.fromkeys(services, upset) if upset else {},
        along=along,
        outside=_outside(snapshot, along, engine),
        tracked=tracked,
    )


def _tracked(snapshot: Snapshot, views: Sequence[View]) -> Iterator[tuple[str, str]]:
    """Name the services whose secrets would go into a file that git tracks, and that file."""
    secret: dict[Path, dict[str, None]] = {}
    for view in views:
        if view.secret and view.misconfigured and (view.variable or view.file):
            path = view.file.path if view.file else snapshot.env_file.path
            secret.setdefault(path.resolve(), {})[view.wanted.service] = None
    for path, services in secret.items():
        if git.tracked(path, os.environ):
            yield from ((service, path.name) for service in services)


@dataclass(frozen=True, slots=True)
class _Rehearsal:
    """An `up` in which our variables stay as they run; ``known`` has by id what the containers have."""

    snapshot: Snapshot
    views: Sequence[View]
    known: Mapping[str, Details]

    def perform(self, program: Program, services: Sequence[str], written: WrittenFiles) -> Steps:
        """Let Compose rehearse it. Raises `TargetUnreadable`."""
        env_file, more = self._env_file(), self._overriding(services).encode(errors="surrogateescape")
        numbers = scales(self.snapshot, services)
        there = tuple((item.id, item.state) for item in self.snapshot.containers)
        of = (env_file.content, more, tuple(services), numbers, there)
        if (known := written.rehearsal(of)) is not None:
            return known
        place = env_file.path.resolve()
        beside = place.with_name(f"{place.name}.compose")
        try:
            with files.on_trial(place, env_file.content) as first, files.on_trial(beside, more) as second:
                steps = program.rehearse(self.snapshot.project, services, numbers, first, second)
                written.keep(of, steps)
                return steps
        except OSError as error:
            summary = f"can't be tried out: {error.strerror}; nothing was changed"
            hint = "make room in the temporary folder, or set TMPDIR"
            raise TargetUnreadable(Problem("docker compose", summary, hint)) from None

    def riding(self, service: str, steps: Steps, engine: Engine) -> tuple[str, ...] | None:
        """Name what of a service would ride along, None where nothing would.

        Nothing is named where another version of Compose made its container, and nothing that can be seen differs.
        """
        found, inline = self._remade(service, steps, engine), tuple(self._inline(service, engine))
        return (*(found or ()), *inline) if inline else found

    def _inline(self, service: str, engine: Engine) -> Iterator[str]:
        """Name the contents that a container was given, and a new one would not: they are no part of its hash.

        Whoever writes the files could have any file of this machine mounted in place of a secret.
        """
        project, changing = self.snapshot.project, {view.variable for view in self.views if view.variable}
        ours = {use for variable in changing for use in project.uses.get(variable, ())}
        containers = [item for item in self.snapshot.kept(service) if item.id in self.known]
        for name, target, settings in project.inline(service) if containers else ():
            key, variable = name.replace(" ", "s.", 1), str(settings.get("environment") or "")
            said = self.snapshot.env_file.plain(variable) if variable else str(settings["content"]).replace("$$", "$")
            if said is None or key in ours:
                continue
            found = engine.content(containers[0], target)
            if found is not None and found != said:
                yield name
        for name, target, file in project.mounted(service):
            there = {source(self.known[item.id], target) for item in containers}
            if there - {None, file}:  # nor is the way to a file
                yield name

    def _remade(self, service: str, steps: Steps, engine: Engine) -> tuple[str, ...] | None:
        for item in self.snapshot.kept(service):
            words, details = steps.get(("Container", item.name), ()), self.known.get(item.id)
            if details is None or self._is_further(service, details) or not any(map(_REMADE.match, words)):
                continue
            image, ours = self._image(service, engine), self._ours(service)
            names = tuple(dict.fromkeys(differences(details, self.snapshot.project, service, image, ours)))
            if item.labels.get(_VERSION, "").removeprefix("v") == self.snapshot.version:
                return names or ("configuration",)
            return (*names, *unseen(self.snapshot.project, service))
        return None

    def _image(self, service: str, engine: Engine) -> Mapping[str, Any]:
        """Return what the engine tells of the image that a service would have."""
        project = self.snapshot.project
        name = (project.services.get(service) or {}).get("image") or f"{project.name}-{service}"
        try:
            return engine.image(str(name))
        except NotThere:
            return {}

    def _mine(self, service: str) -> list[View]:
        return [view for view in self.views if view.wanted.service == service]

    def _is_further(self, service: str, details: Details) -> bool:
        """Whether a replica has the new values already, where another has not."""
        mine = self._mine(service)
        return bool(mine) and all(details.environment.get(view.wanted.name) in view.texts for view in mine)

    def _reference(self, service: str) -> Details | None:
        """Return what a container of a service has that has yet to be changed."""
        found = [self.known[item.id] for item in self.snapshot.kept(service) if item.id in self.known]
        return next((item for item in found if not self._is_further(service, item)), found[0] if found else None)

    def _ours(self, service: str) -> set[str]:
        """Name the variables that differ on our account: the declared ones, and what else our block gives a service."""
        whole = set(self.snapshot.env_file.ours) if service in self.snapshot.readers() else set[str]()
        return whole | {view.wanted.name for view in self._mine(service)}

    def _env_file(self) -> EnvFile:
        """Return the env file with our variables as they run."""
        values = dict(self.snapshot.env_file.ours)
        for view in self.views:
            details = self._reference(view.wanted.service) if view.variable else None
            if details is not None and (text := details.environment.get(view.wanted.name)) is not None:
                values[view.variable] = text
        return self.snapshot.env_file.having(values)

    def _overriding(self, services: Sequence[str]) -> str:
        """Return a compose file that gives our entries what they run with, whatever the others say."""
        lines = ["services:"]
        for service in services:
            details = self._reference(service)
            names = sorted(self._ours(service)) if details else []
            entries = [f"      {_yaml(name)}: {_value(details.environment.get(name))}" for name in names if details]
            lines += (
                [f"  {_yaml(service)}:", "    environment:", *entries] if entries else [f"  {_yaml(service)}: {{}}"]
            )
        for kind, items in (("configs", self.snapshot.project.configs), ("secrets", self.snapshot.project.secrets)):
            copied = [name for name, said in items.items() if {"content", "environment"} & (said or {}).keys()]
            lines += [f"{kind}:", *(f"  {_yaml(name)}: {_NOT_COPIED}" for name in copied)] if copied else []
        return "\n".join(lines) + "\n"


def _value(text: str | None) -> str:
    return "!reset null" if text is None else _yaml(text.replace("$", "$$"))


def _yaml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # JSON is YAML


def _upset(steps: Steps, snapshot: Snapshot, services: Collection[str]) -> Iterator[str]:
    """Name what is taken down that is none of the services."""
    service_of = {item.name: item.service for item in snapshot.containers}
    for (kind, name), words in steps.items():
        stranger = kind != "Container" or (name in service_of and service_of[name] not in services)
        if stranger and any(map(_UPSETTING.match, words)):
            yield f"{kind.lower()} {name}"


def _outside(snapshot: Snapshot, along: Mapping[str, Sequence[str]], engine: Engine) -> Mapping[str, tuple[str, ...]]:
    """Name by service the containers in its namespace, or in one of ``along``, that are not made anew with it."""
    mine, project = {item.id for name in along for item in snapshot.kept(name)}, snapshot.project
    others = [item for item in engine.containers(every=True) if item.id not in mine]
    strangers = [item for item in others if item.project != project.name]
    with ThreadPoolExecutor(engine.connections, thread_name_prefix="engine") as pool:
        modes = dict(zip((item.id for item in strangers), pool.map(engine.namespaces, strangers), strict=True))
    found = {}
    for name, more in along.items():
        services = (name, *more)
        homes = {
            f"container:{text}"
            for service in services
            for item in snapshot.kept(service)
            for text in (item.id, item.name)
        }
        found[name] = tuple(
            item.name
            for item in others
            if not (item.project == project.name and item.service in services)
            and homes & {item.network_mode, *modes.get(item.id, _named(project, item.service))}
        )
    return found


def _named(project: Project, service: str) -> set[str]:
    """Return whose namespaces a service lives in, as the files say."""
    return {str((project.services.get(service) or {}).get(key) or "") for key in NAMESPACES}
