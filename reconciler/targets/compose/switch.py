"""One application: from proven credentials to a recreated service, or back to what was."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from reconciler import files
from reconciler.problem import Problem, SecretUnreadable, Severity, TargetUnreadable
from reconciler.resources import Login, SecretRef, Special, Variable
from reconciler.target import Change, Outcome, Reveal, Status, Stopped
from reconciler.targets.compose import forecast, judge, secretfiles
from reconciler.targets.compose import snapshot as snapshots
from reconciler.targets.compose.doors import Doors
from reconciler.targets.compose.engine import (
    ALIVE,
    CRASHES,
    LARGEST_FILE,
    TWIN,
    Container,
    Details,
    Engine,
    is_crashing,
    is_sick,
    newest,
    stopped,
    ticking,
    wait_until_up,
)
from reconciler.targets.compose.envfile import EnvFile
from reconciler.targets.compose.forecast import Forecast
from reconciler.targets.compose.program import redact
from reconciler.targets.compose.project import ComposeFiles, effective_environment
from reconciler.targets.compose.proof import Credentials, Proof, prove, reach, refused_before
from reconciler.targets.compose.recipe import Recipe
from reconciler.targets.compose.snapshot import Snapshot, Values, View

if TYPE_CHECKING:
    from reconciler.targets.compose import Compose

_TELLING = 4  # characters; a shorter value of an environment tells nothing


@dataclass(slots=True)
class _Service:
    """The changes of one service, and what became of them so far."""

    name: str
    changes: list[Change] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    problem: Problem | None = None
    notes: list[str] = field(default_factory=list)

    def outcomes(self) -> Iterator[Outcome]:
        status = Status.FAILED if self.problem else Status.DONE
        for change in self.changes:
            yield Outcome(change, status, self.problem, tuple(self.notes))


@dataclass(frozen=True, slots=True)
class _Written:
    """The env file before a switch, and as it is to be in the end."""

    before: EnvFile
    after: EnvFile
    found: int | None = None  # when the file was changed last, in nanoseconds since 1970


class Switch:
    """Applies the changes of one phase."""

    def __init__(self, target: Compose, engine: Engine, reveal: Reveal) -> None:
        self.target = target
        self.engine = engine
        self.program = target.program(engine.host)
        self.values = Values(reveal)
        self.anew = False
        self.forecast = Forecast()
        self.recipes: dict[str, list[Recipe]] = {}
        self.crashing: set[str] = set()  # what crashed before, and does so still

    def apply(self, changes: Sequence[Change], is_stopped: Stopped) -> Iterator[Outcome]:
        """Yield one outcome each. A service is switched as a whole or not at all."""
        services: dict[str, _Service] = {}
        for change in changes:
            if isinstance(variable := change.resource, Variable):
                services.setdefault(variable.service, _Service(variable.service)).changes.append(change)
        try:
            self.snapshot = self._look(services)
            self.interrupted = self.snapshot.env_file.interrupted  # by whatever ended an earlier run
            self.doors = Doors(self.snapshot, self.engine, self.target.routes)
        except TargetUnreadable as error:
            for change in changes:
                yield Outcome(change, Status.FAILED, error.problems[0])
            return
        for service in services.values():
            self._view(service)
        self._judge(services.values())
        self._prove([service for service in services.values() if service.problem is None])
        groups = self._groups([service for service in services.values() if service.problem is None])
        for batch in self._batches(groups):
            if is_stopped():
                return
            self._switch(batch)
            for service in [service for group in batch for service in group]:
                yield from service.outcomes()
                services.pop(service.name)
        for service in services.values():
            yield from service.outcomes()

    # ----------------------------------------------------------------------------------------- before anything changes
    def _look(self, services: Iterable[str]) -> Snapshot:
        seen = snapshots.read(self.program, self.engine, self.target.stack, services, self.target.written)
        strangers = tuple(snapshots.identity(seen, self.program, self.engine, set(services)))
        if strangers:
            raise TargetUnreadable(*strangers)
        return seen

    def _view(self, service: _Service) -> None:
        for change in service.changes:
            variable = change.after
            try:
                if not isinstance(variable, Variable) or isinstance(variable.running, Special):
                    service.problem = Problem(change.address, "its value is still not known", "apply again")
                else:
                    view = self.values.view(self.snapshot, variable)
                    service.views.append(view)
            except SecretUnreadable as error:
                service.problem = error.problems[0]

    def _judge(self, services: Iterable[_Service]) -> None:
        """Look again at what the plan already said: the files may have changed since."""
        views = [view for service in services for view in service.views]
        found = {
            problem.scope: problem
            for problem in judge.problems(views, self.snapshot, ComposeFiles(self.program.files), self.target.public)
            if problem.severity is not Severity.WARNING
        }
        for service in services:
            service.problem = service.problem or found.get(judge.scope(service.name))
        able = [view for service in services if service.problem is None for view in service.views]
        self.forecast = forecast.foresee(self.snapshot, self.program, self.engine, able, self.target.written)
        foreseen = tuple(judge.foreseen(self.forecast, allowed=self.target.with_service_changes))
        for service in services:
            mine = [item for item in foreseen if judge.scope(service.name) in (item.scope, item.where)]
            barred = next((item for item in mine if item.severity is not Severity.WARNING), None)
            service.problem = service.problem or self.forecast.failed.get(service.name) or barred
            service.notes += [item.summary for item in mine if item.severity is Severity.WARNING]

    def _prove(self, services: Sequence[_Service]) -> None:
        """Try each login once, for all the services that are to use it."""
        users: dict[Login, list[_Service]] = {}
        for service in services:
            for login in dict.fromkeys(view.wanted.login for view in service.views if view.wanted.login):
                users.setdefault(login, []).append(service)
        sent: dict[tuple[object, ...], Proof] = {}
        for login, consumers in users.items():
            credentials = (login.host, login.port, login.tls, login.username, login.password)
            with ticking(self.target.progress, f"trying the login at {login.host}:{login.port}"):
                proof = sent.get(credentials) or self._proof(login)
            if proof.sent:
                sent[credentials] = proof
            for service in consumers:
                service.notes += [proof.note] if proof.note else []
                if proof.refused and service.problem is None:
                    service.problem = replace(
                        proof.refused, where=f"{judge.scope(service.name)}: {proof.refused.where}"
                    )

    def _proof(self, login: Login) -> Proof:
        if isinstance(login.username, Special):
            return Proof(note=f"the login at {login.host}:{login.port} could not be tried: its name is not known yet")
        if login.username is None or login.password is None:
            return reach(login, self.doors.of(login))
        try:
            name = self.values[login.username] if isinstance(login.username, SecretRef) else login.username
            credentials = Credentials(login, name, self.values[login.password])
        except SecretUnreadable as error:
            return Proof(refused=error.problems[0])
        facts = (*self.doors.server(login), credentials.username, credentials.password)
        if self.target.refusals.holds(*facts):
            return Proof(refused=refused_before(login))
        proof = self._tried(login, credentials)
        if proof.refused and proof.sent:
            self.target.refusals.add(*facts)
        return proof

    def _tried(self, login: Login, credentials: Credentials) -> Proof:
        if self.doors.is_unsafe(login):
            return Proof(
                note=f"the login at {login.host}:{login.port} was not tried: it is on another machine, and "
                "without TLS that is verified the password could go to anybody on the way"
            )
        return prove(credentials, self.doors.of(login))

    def _groups(self, services: Sequence[_Service]) -> list[list[_Service]]:
        """Put services together that share a variable which changes, or a namespace: they go, and go back, together."""
        groups: list[tuple[set[str], list[_Service]]] = []
        for service in services:
            names = {view.variable for view in service.views if view.variable}
            names |= {str(view.file.path) for view in service.views if view.file is not None}
            names |= {f"service {name}" for name in (service.name, *self.forecast.along.get(service.name, ()))}
            joined = [group for group in groups if group[0] & names]
            groups = [group for group in groups if not group[0] & names]
            members = [member for group in joined for member in group[1]]
            groups.append((names.union(*(group[0] for group in joined)), [*members, service]))
        return [members for _, members in groups]

    @staticmethod
    def _batches(groups: Sequence[Sequence[_Service]]) -> list[list[Sequence[_Service]]]:
        """Put groups together that send through the same server: they are recreated in one `up`."""
        batches: dict[frozenset[tuple[str, int]], list[Sequence[_Service]]] = {}
        for number, group in enumerate(groups):
            logins = (view.wanted.login for service in group for view in service.views)
            doors = frozenset((login.host, login.port) for login in logins if login)
            batches.setdefault(doors or frozenset({("", number)}), []).append(group)
        return list(batches.values())

    # ------------------------------------------------------------------------------------------------------ the switch
    def _switch(self, batch: Sequence[Sequence[_Service]]) -> None:
        """Switch groups of services in one go; a group in which one fails is brought back as a whole."""
        services = [service for group in batch for service in group]
        views = [view for service in services for view in service.views]
        stale = [service.name for service in services if any(view.stale for view in service.views)]
        try:
            self.recipes = self._recipes([*stale, *self._along(stale)], views)
            written = self._write(views, stale)
        except TargetUnreadable as error:
            for service in services:
                service.problem = error.problems[0]
            return
        self.anew = any(view.file is not None and view.stale for view in views)
        wrong = self._bring_up(stale, views) if stale else {}
        for group in batch:
            names = [service.name for service in group]
            bad = {name: why for name, why in wrong.items() if name in (*names, *self._along(names))}
            if bad:
                self._roll_back(group, [name for name in stale if name in names], bad, written)
            else:
                secretfiles.forget([view for service in group for view in service.views])
            for service in group:
                if service.name in stale and not bad:
                    service.notes += self._told(service.name)
        self._settle(written)

    def _told(self, service: str) -> Iterator[str]:
        along = "".join(f", and {name} with it" for name in self._along([service]))
        rests = self.snapshot.rests(service)
        yield f"{service} was recreated{along} and has the new values{' for its next start' if rests else ''}"
        if service in self.crashing:
            yield f"{service} crashed again and again before, and still does: see docker compose logs {service}"
        if any(recipe.sick for recipe in self.recipes.get(service, ())):
            yield f"the health check of {service} failed before, too: that it runs was all that could be seen"

    def _along(self, services: Iterable[str]) -> list[str]:
        """Name the services that are made anew with these."""
        found = dict.fromkeys(item for name in services for item in self.forecast.along.get(name, ()))
        return [name for name in found if name not in set(services)]

    def _recipes(self, services: Iterable[str], views: Sequence[View]) -> dict[str, list[Recipe]]:
        """Look at what is there before anything changes, so that it can come back as it was.

        What an interrupted run has left with the new values is not what was.
        """
        found: dict[str, list[Recipe]] = {}
        for name in dict.fromkeys(services):
            mine = [view for view in views if view.wanted.service == name and view.file is None]
            interrupted = mine and name in self.interrupted
            for item in self.snapshot.kept(name):
                details = self.engine.details(item)
                if details is None or (
                    interrupted and all(details.environment.get(view.wanted.name) in view.texts for view in mine)
                ):
                    continue
                sick, crashing = is_sick(self.engine, item, details), is_crashing(details)
                contents = self._contents(item)
                found.setdefault(name, []).append(Recipe(item, details, sick, crashing, contents))
        return found

    def _contents(self, container: Container) -> dict[str, bytes]:
        """Read what Compose copied into a container, and the engine would not."""
        places = [place for _, place, _ in self.snapshot.project.inline(container.service)]
        found = {place: self.engine.archive(container.id, place, LARGEST_FILE) for place in places}
        return {place: archive for place, archive in found.items() if archive is not None}

    def _write(self, views: Sequence[View], stale: Sequence[str]) -> _Written:
        """Write what the files don't say yet, once Compose agrees that they then do.

        Nobody else of us writes it meanwhile: two stacks may share it.
        """
        before = self.snapshot.env_file
        values = {view.variable: view.texts[0] for view in views if view.misconfigured and view.file is None}
        everyone = [*stale, *self._along(stale)]
        resting = [name for name in everyone if self.snapshot.rests(name) and self.snapshot.kept(name)]
        lively = [name for name in everyone if not self.snapshot.rests(name)]
        if not (values or everyone or before.interrupted):
            secretfiles.write(views)
            return _Written(before, before)
        with before.held() as now:
            before = now.having(now.formerly) if now.interrupted else now
            after = now.having({**now.ours, **values}) if values or now.interrupted else now
            if values:
                self._try_out(after, views)
            found = now.changed
            marked = self._mark(now, after.having(after.ours, lively, before.ours, resting), needed=after != now)
            try:
                # Last, since a container reads it whenever it is started, and the variables that go with it never.
                secretfiles.write(views)
            except TargetUnreadable:
                secretfiles.put_back(views)
                marked.replace_on_disk(now)
                raise
        self.snapshot = replace(self.snapshot, env_file=marked)
        return _Written(before, after, found)

    @staticmethod
    def _mark(now: EnvFile, marked: EnvFile, *, needed: bool) -> EnvFile:
        """Put the values there, with word of who is being recreated; where that is all, the file may be read-only."""
        try:
            now.replace_on_disk(marked)
        except TargetUnreadable:
            if needed:
                raise
            return now
        return marked

    def _settle(self, written: _Written) -> None:
        """Take out the word that services are being recreated: the file is as it was, or as it is to be."""
        marked = self.snapshot.env_file
        if not marked.interrupted:
            return
        with contextlib.suppress(TargetUnreadable), marked.held(as_it_was=False) as now:
            known = [item for item in (written.after, written.before) if item.ours == marked.ours]
            clean = known[0] if known and now.content == marked.content else now.having(now.ours)
            now.replace_on_disk(clean, written.found if clean.content == written.before.content else None)
            self.snapshot = replace(self.snapshot, env_file=clean)

    def _try_out(self, file: EnvFile, views: Sequence[View]) -> None:
        """Let Compose read the new content before the real file is touched. Raises `TargetUnreadable`."""
        try:
            with files.on_trial(file.path.resolve(), file.content) as path:
                answer = self.program.config(env_file=path)
        except OSError as error:
            summary = f"the new content can't be tried: {error.strerror}; nothing was changed"
            raise TargetUnreadable(
                Problem(str(file.path), summary, f"make room in {tempfile.gettempdir()}, or set TMPDIR")
            ) from None
        services = answer.get("services") or {}
        for view in (view for view in views if view.file is None):
            if effective_environment(services.get(view.wanted.service)).get(view.wanted.name) not in view.texts:
                summary = "with the new env file Compose would still give it another value; nothing was written"
                hint = f"look for a quote left open in {file.path.name}"
                raise TargetUnreadable(Problem(view.wanted.address, summary, hint))

    def _bring_up(self, services: Sequence[str], views: Sequence[View]) -> dict[str, str]:
        """Recreate services and what lives in their namespaces, and wait; return what is wrong, by service."""
        everyone = [*services, *self._along(services)]
        names, failed = ", ".join(everyone), ""
        restarted = self._dependents(services)
        try:
            with ticking(self.target.progress, f"recreating {names}"):
                self._sweep(everyone)
                self._up(everyone)
                self._name(everyone)
        except TargetUnreadable as error:
            failed = error.problems[0].summary
        try:
            with ticking(self.target.progress, f"waiting for {names} to come up"):
                wrong = self._wrong(everyone, views, quickly=bool(failed))
                wrong = dict.fromkeys(wrong or services, failed) if failed else wrong
            if not wrong:
                self._pause(everyone)
                self._restart(restarted)
        except TargetUnreadable as error:
            return dict.fromkeys(services, failed or error.problems[0].summary)
        return wrong

    def _up(self, services: Sequence[str]) -> None:
        """Call Compose: once for what is to run, once for what is stopped and stays so. Raises `TargetUnreadable`."""
        scales = forecast.scales(self.snapshot, services)
        grace = max((item.details.grace for name in services for item in self.recipes.get(name, ())), default=0.0)
        resting = [name for name in services if self.snapshot.rests(name)]
        for start, names in ((True, [name for name in services if name not in resting]), (False, resting)):
            if names:
                self.program.up(self.snapshot.project, names, scales, start=start, grace=grace, anew=self.anew)

    def _pause(self, services: Iterable[str]) -> None:
        """Pause what somebody had paused: it goes on with what it has now when they let it."""
        for name in services:
            paused = {item.container.replica for item in self.recipes.get(name, ()) if item.details.status == "paused"}
            for item in self._replicas(name) if paused else ():
                if item.replica in paused and item.state == "running":
                    self.engine.pause(item.id)

    def _sweep(self, services: Sequence[str]) -> None:
        """Remove what an interrupted `up` had made and not started, beside the one that it was to replace.

        Compose would keep it, and then find its name taken. Where it is all that is left its volumes are needed.
        """
        there = self._of(services)
        for item in there:
            others = [other for other in there if (other.service, other.replica) == (item.service, item.replica)]
            if TWIN.match(item.name) and item.state == "created" and len(others) > 1:
                self.engine.remove(item.id, 0.0)

    def _name(self, services: Sequence[str]) -> None:
        """Give a container its name that an interrupted `up` had made under a passing one: Compose leaves it so."""
        there = self._of(services)
        taken = {item.name for item in there}
        for item in there:
            final = TWIN.sub("", item.name, count=1)
            if TWIN.match(item.name) and final not in taken:
                self.engine.rename(item.id, final)

    def _wrong(self, services: Sequence[str], views: Sequence[View], *, quickly: bool = False) -> dict[str, str]:
        found = {}
        for service in services:
            containers = self._replicas(service)
            odd = self._disobedient(service, containers, views) or self._astray(service, containers)
            found[service] = odd if quickly and odd else self._not_up(service, containers) or odd
        return {service: why for service, why in found.items() if why}

    def _not_up(self, service: str, containers: Sequence[Container]) -> str:
        if self.snapshot.rests(service):
            return ""
        recipes = self.recipes.get(service, ())
        sick = any(recipe.sick for recipe in recipes)
        why = wait_until_up(self.engine, containers, self.target.patience, sick=sick)
        if why == CRASHES and any(recipe.crashing for recipe in recipes):  # no worse than before
            self.crashing.add(service)
            return ""
        return why

    def _replicas(self, service: str) -> tuple[Container, ...]:
        """Return the containers of a service as they are now."""
        ours = [item for item in self.engine.containers() if item.project == self.snapshot.project.name]
        return newest(ours, service) or stopped(ours, service)

    def _disobedient(self, service: str, containers: Sequence[Container], views: Sequence[View]) -> str:
        """Name the variables that the new containers still don't have as they should."""
        found = (self.engine.details(item) for item in containers)
        environments = [item.environment for item in found if item is not None]
        names = [
            view.wanted.name
            for view in views
            if view.wanted.service == service
            and view.file is None
            and any(environment.get(view.wanted.name) not in view.texts for environment in environments)
        ]
        return f"its container still has another {', '.join(names)}" if names else ""

    def _astray(self, service: str, containers: Sequence[Container]) -> str:
        """Say that a container lives in a namespace that is gone, or that there are fewer of them than before."""
        before = self.recipes.get(service, ())
        gone = {f"container:{item.container.id}" for items in self.recipes.values() for item in items}
        there = {f"container:{item.id}" for name in self.recipes for item in self._replicas(name)}
        if any(item.network_mode in gone - there for item in containers):
            return "it was left in a namespace that is gone"
        return f"{len(before)} of it ran, and {len(containers)} do now" if len(containers) < len(before) else ""

    def _dependents(self, services: Iterable[str]) -> dict[str, Details]:
        """Return the running containers of services that are to be restarted with these, as they are now, by id."""
        names = dict.fromkeys(item for name in services for item in self.snapshot.project.restarted_with(name))
        items = [item for name in names if name not in self.recipes for item in self.snapshot.replicas(name)]
        found = {item.id: self.engine.details(item) for item in items}
        return {key: details for key, details in found.items() if details is not None and details.runs}

    def _restart(self, containers: Mapping[str, Details]) -> None:
        """Restart what depends on a service with ``restart: true``, unless Compose has done so."""
        for key, details in containers.items():
            now = self.engine.inspect(key)
            if (now.get("State") or {}).get("StartedAt") == details.started:
                self.target.progress(f"restarting {str(now.get('Name')).removeprefix('/')}")
                self.engine.restart(key, int(details.grace))

    # ---------------------------------------------------------------------------------------------------- the way back
    def _roll_back(
        self, group: Sequence[_Service], stale: Sequence[str], wrong: dict[str, str], written: _Written
    ) -> None:
        seen = {service: f"{why}{self._log(service)}" for service, why in wrong.items()}
        result = self._restore(group, stale, written)
        for service in group:
            culprit = service.name if service.name in seen else next(iter(seen))
            summary = f"{culprit} did not come up with the new values: {seen[culprit]}; {result}"
            hint = f"see docker compose logs {culprit}; correct the values or the service, then apply again"
            service.problem = Problem(judge.scope(service.name), summary, hint)

    def _restore(self, group: Sequence[_Service], stale: Sequence[str], written: _Written) -> str:
        """Put the group's own values back and its containers as they were; say how things stand, as it was seen."""
        former = self._former(group, written.before)
        views = [view for service in group for view in service.views]
        mine = {view.variable for view in views if view.file is None}
        kept = {name: value for name, value in self.snapshot.env_file.ours.items() if name not in mine}
        kept |= {name: value for name, value in former.ours.items() if name in mine}
        had_files = any(map(secretfiles.is_kept, views))
        everyone = [*stale, *self._along(stale)]
        self.target.progress(f"rolling back {', '.join(everyone)}")
        try:
            secretfiles.put_back(views)
            self.snapshot = replace(self.snapshot, env_file=_put_back(kept, self.snapshot.env_file, mine))
        except TargetUnreadable as error:
            return f"rolling back failed: {error.problems[0].summary}"
        known = any(self.recipes.get(name) for name in everyone)
        if former.content == written.after.content and not (known or had_files or self._absent(everyone)):
            return "the env file already held these values, so there was nothing to roll back"
        try:
            down = self._bring_back(everyone)
        except TargetUnreadable as error:
            down = dict.fromkeys(everyone, error.problems[0].summary)
        if down:
            return f"the env file is as before, but {', '.join(f'{name}: {why}' for name, why in down.items())}"
        if not known and self._absent(everyone) == everyone:
            return "rolled back: nothing of it runs, as before"
        if all(self.snapshot.rests(name) for name in everyone):
            return "rolled back: it is stopped as before, with its former values"
        return "rolled back: it runs with its former values"

    def _bring_back(self, services: Sequence[str]) -> dict[str, str]:
        """Have the containers as they were, by Compose or by the engine; return what is wrong, by service.

        Raises `TargetUnreadable`.
        """
        names = ", ".join(services)
        with ticking(self.target.progress, f"bringing {names} back"):
            absent = self._absent(services)
            for item in self._of(absent):
                self.engine.remove(item.id, 0.0)
            if not self._still_there(services):
                self._by_compose([name for name in services if name not in absent])
                self._by_engine(services)
        with ticking(self.target.progress, f"waiting for {names} to come up"):
            wrong = self._wrong([name for name in services if name not in self._absent(services)], ())
        self._pause(services)
        return wrong

    def _still_there(self, services: Sequence[str]) -> bool:
        """Where the old containers are still there, start them and take away what stands beside them."""
        old = {recipe.container.id: recipe for name in services for recipe in self.recipes.get(name, ())}
        there = {item.id: item for item in self._of(services)}
        if not all(self.recipes.get(name) for name in services) or not old.keys() <= there.keys():
            return False
        for key in there.keys() - old.keys():
            self.engine.remove(key, 0.0)
        for key, recipe in old.items():
            if recipe.details.runs and there[key].state not in ALIVE:
                self.engine.start(key)
        return True

    def _absent(self, services: Iterable[str]) -> list[str]:
        """Name the services of which there was no container at all."""
        before, marked = self.snapshot.containers, self.interrupted
        there = {item.service for item in before if item.project == self.snapshot.project.name and not item.one_off}
        return [name for name in services if name not in there and name not in marked]

    def _of(self, services: Sequence[str]) -> list[Container]:
        name = self.snapshot.project.name
        everything = self.engine.containers()
        return [item for item in everything if item.project == name and item.service in services and not item.one_off]

    def _by_compose(self, services: Sequence[str]) -> None:
        """Let Compose make them, where the files still say what was."""
        if not services or any(self.forecast.riding.get(name) for name in services):
            return
        with contextlib.suppress(TargetUnreadable):
            self._up(services)

    def _by_engine(self, services: Sequence[str]) -> None:
        """Let the engine make what is not as it was."""
        parents: dict[str, str] = {}
        for name in services:
            now = {item.replica: item for item in self._replicas(name)}
            for recipe in self.recipes.get(name, ()):
                other = now.get(recipe.container.replica)
                details = self.engine.details(other) if other else None
                moved = recipe.container.network_mode.removeprefix("container:") in parents
                if other and details and not moved and not recipe.unlike(details):
                    parents[recipe.container.id] = other.id
                    continue
                parents[recipe.container.id] = self._remake(recipe, parents)

    def _remake(self, recipe: Recipe, parents: Mapping[str, str]) -> str:
        made = recipe.again(self.engine, parents)
        for item in self._of([recipe.container.service]):
            if item.replica == recipe.container.replica and item.id != made:
                self.engine.remove(item.id, recipe.details.grace)
        self.engine.rename(made, recipe.container.name)
        if recipe.details.runs:
            self.engine.start(made)
        return made

    def _former(self, group: Sequence[_Service], before: EnvFile) -> EnvFile:
        """Return the file with the values from before.

        Where it already held the new ones, the container that ran is the only place that knows the former.
        """
        known = {
            view.variable: text
            for service in group
            for view in service.views
            for recipe in self.recipes.get(service.name, ())[:1]
            if (text := recipe.details.environment.get(view.wanted.name)) is not None
            and view.file is None
            and not view.misconfigured
            and text not in view.texts
            and before.ours.get(view.variable) in view.texts
        }
        return before.having({**before.ours, **known}) if known else before

    def _log(self, service: str) -> str:
        """Quote the end of a service's log, without any value of an environment; nothing where the engine is silent."""
        name = self.snapshot.project.name
        try:
            everything = self.engine.containers()
            mine = [item for item in everything if (item.project, item.service) == (name, service) and not item.one_off]
            found = [self.engine.details(item) for item in mine]
        except TargetUnreadable:
            return ""
        if not mine:
            return ""
        last = max(mine, key=lambda item: item.created)
        environments = [item.environment for item in (*found, *self.snapshot.details.values()) if item is not None]
        former = {text for environment in environments for text in environment.values() if len(text) >= _TELLING}
        hidden = {*self.values.revealed, *self.snapshot.env_file.values(), *former}
        lines = [line.strip() for line in redact(self.engine.last_lines(last), hidden).splitlines() if line.strip()]
        return f" (its log ends: {' | '.join(lines)[-400:]})" if lines else ""


def _put_back(values: Mapping[str, str], after: EnvFile, mine: Collection[str]) -> EnvFile:
    """Have ``values`` in our block again; where somebody has changed the file since, only those of ``mine``.

    The word that services are being recreated stays in it until they are back.
    """
    with after.held(as_it_was=False) as now:
        if now.content != after.content:
            others = {name: value for name, value in now.ours.items() if name not in mine}
            values = others | {name: value for name, value in values.items() if name in mine}
        new = now.having(values, after.recreating, values, after.resting)
        now.replace_on_disk(new)
    return new
