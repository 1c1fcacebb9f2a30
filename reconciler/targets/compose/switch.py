"""One application: from proven credentials to a recreated service, or back to what was."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from reconciler import files
from reconciler.problem import Problem, SecretUnreadable, Severity, TargetUnreadable
from reconciler.resources import Login, SecretRef, Special, Variable
from reconciler.target import Change, Outcome, Reveal, Status, Stopped
from reconciler.targets.compose import judge, secretfiles
from reconciler.targets.compose import snapshot as snapshots
from reconciler.targets.compose.doors import Doors
from reconciler.targets.compose.engine import Container, Engine, newest, ticking, wait_until_up
from reconciler.targets.compose.envfile import EnvFile
from reconciler.targets.compose.program import redact
from reconciler.targets.compose.project import ComposeFiles, effective_environment
from reconciler.targets.compose.proof import Credentials, Proof, prove, reach, refused_before
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


class Switch:
    """Applies the changes of one phase."""

    def __init__(self, target: Compose, engine: Engine, reveal: Reveal) -> None:
        self.target = target
        self.engine = engine
        self.program = target.program(engine.host)
        self.values = Values(reveal)
        self.anew = False

    def apply(self, changes: Sequence[Change], stopped: Stopped) -> Iterator[Outcome]:
        """Yield one outcome each. A service is switched as a whole or not at all."""
        services: dict[str, _Service] = {}
        for change in changes:
            if isinstance(variable := change.resource, Variable):
                services.setdefault(variable.service, _Service(variable.service)).changes.append(change)
        try:
            self.snapshot = self._look(services)
            self.doors = Doors(self.snapshot, self.engine, self.target.routes)
        except TargetUnreadable as error:
            for change in changes:
                yield Outcome(change, Status.FAILED, error.problems[0])
            return
        for service in services.values():
            self._view(service)
        self._judge(services.values())
        self._prove([service for service in services.values() if service.problem is None])
        for group in self._groups([service for service in services.values() if service.problem is None]):
            if stopped():
                return
            self._switch(group)
            for service in group:
                yield from service.outcomes()
                services.pop(service.name)
        for service in services.values():
            yield from service.outcomes()

    # ----------------------------------------------------------------------------------------- before anything changes
    def _look(self, services: Iterable[str]) -> Snapshot:
        seen = snapshots.read(self.program, self.engine, self.target.stack, services, self.target.written)
        strangers = tuple(snapshots.identity(seen, self.program, self.engine))
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

    @staticmethod
    def _groups(services: Sequence[_Service]) -> list[list[_Service]]:
        """Put services together that share a variable which changes: they go, and go back, together."""
        groups: list[tuple[set[str], list[_Service]]] = []
        for service in services:
            names = {view.variable for view in service.views if view.variable}
            names |= {str(view.file.path) for view in service.views if view.file is not None}
            joined = [group for group in groups if group[0] & names]
            groups = [group for group in groups if not group[0] & names]
            members = [member for group in joined for member in group[1]]
            groups.append((names.union(*(group[0] for group in joined)), [*members, service]))
        return [members for _, members in groups]

    # ------------------------------------------------------------------------------------------------------ the switch
    def _switch(self, group: Sequence[_Service]) -> None:
        """Switch services that belong together; on failure bring all of them back."""
        views = [view for service in group for view in service.views]
        try:
            before, after = self._write(views)
        except TargetUnreadable as error:
            for service in group:
                service.problem = error.problems[0]
            return
        stale = [service.name for service in group if any(view.stale for view in service.views)]
        self.anew = any(view.file is not None and view.stale for view in views)
        wrong = self._bring_up(stale, views) if stale else {}
        if wrong:
            self._roll_back(group, stale, wrong, before, after)
        else:
            secretfiles.forget(views)
        for service in group:
            if service.name in stale and not wrong:
                service.notes.append(f"{service.name} was recreated and has the new values")

    def _write(self, views: Sequence[View]) -> tuple[EnvFile, EnvFile]:
        """Write what the files don't say yet, once Compose agrees that they then do; return the file before and after.

        Nobody else of us writes it meanwhile: two stacks may share it.
        """
        before = self.snapshot.env_file
        values = {view.variable: view.texts[0] for view in views if view.misconfigured and view.file is None}
        if not values:
            secretfiles.write(views)
            return before, before
        with before.held() as now:
            after = now.having(now.ours | values)
            self._try_out(after, views)
            secretfiles.write(views)
            try:
                now.replace_on_disk(after)
            except TargetUnreadable:
                secretfiles.put_back(views)
                raise
        self.snapshot = replace(self.snapshot, env_file=after)
        return now, after

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
        """Recreate services and wait for them; return what is wrong, by service."""
        names = ", ".join(services)
        try:
            with ticking(self.target.progress, f"recreating {names}"):
                self.program.up(services, anew=self.anew)
            with ticking(self.target.progress, f"waiting for {names} to come up"):
                return self._wrong(services, views)
        except TargetUnreadable as error:
            return dict.fromkeys(services, error.problems[0].summary)

    def _wrong(self, services: Sequence[str], views: Sequence[View]) -> dict[str, str]:
        found = {service: self._not_up(service) or self._disobedient(service, views) for service in services}
        return {service: why for service, why in found.items() if why}

    def _not_up(self, service: str) -> str:
        return wait_until_up(self.engine, self._replicas(service), self.target.patience)

    def _replicas(self, service: str) -> tuple[Container, ...]:
        ours = [item for item in self.engine.containers() if item.project == self.snapshot.project.name]
        return newest(ours, service)

    def _disobedient(self, service: str, views: Sequence[View]) -> str:
        """Name the variables that the new containers still don't have as they should."""
        found = (self.engine.details(item) for item in self._replicas(service))
        environments = [item.environment for item in found if item is not None]
        names = [
            view.wanted.name
            for view in views
            if view.wanted.service == service
            and view.file is None
            and any(environment.get(view.wanted.name) not in view.texts for environment in environments)
        ]
        return f"its container still has another {', '.join(names)}" if names else ""

    # ---------------------------------------------------------------------------------------------------- the way back
    def _roll_back(
        self, group: Sequence[_Service], stale: Sequence[str], wrong: dict[str, str], before: EnvFile, after: EnvFile
    ) -> None:
        seen = {service: f"{why}{self._log(service)}" for service, why in wrong.items()}
        result = self._restore(group, stale, before, after)
        for service in group:
            culprit = service.name if service.name in seen else next(iter(seen))
            summary = f"{culprit} did not come up with the new values: {seen[culprit]}; {result}"
            hint = f"see docker compose logs {culprit}; correct the values or the service, then apply again"
            service.problem = Problem(judge.scope(service.name), summary, hint)

    def _restore(self, group: Sequence[_Service], stale: Sequence[str], before: EnvFile, after: EnvFile) -> str:
        """Put the group's own values back and bring its services up again; say how things stand."""
        former = self._former(group, before)
        views = [view for service in group for view in service.views]
        kept = any(map(secretfiles.is_kept, views))
        if former.content == after.content and not kept:
            return "the env file already held these values, so there was nothing to roll back"
        self.target.progress(f"rolling back {', '.join(stale)}")
        try:
            secretfiles.put_back(views)
            self.snapshot = replace(self.snapshot, env_file=_put_back(former, after, group))
        except TargetUnreadable as error:
            return f"rolling back failed: {error.problems[0].summary}"
        down = self._bring_up(stale, ())
        if down:
            return f"the env file is as before, but {', '.join(f'{name}: {why}' for name, why in down.items())}"
        return "rolled back: it runs with its former values"

    def _former(self, group: Sequence[_Service], before: EnvFile) -> EnvFile:
        """Return the file with the values from before.

        Where an earlier run was killed between writing and recreating, the file already held the new ones, and the
        container that ran is the only place that knew the former.
        """
        known = {
            view.variable: view.oldest
            for service in group
            for view in service.views
            if view.stale and not view.misconfigured and view.oldest is not None and view.variable in before.ours
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


def _put_back(former: EnvFile, after: EnvFile, group: Sequence[_Service]) -> EnvFile:
    """Restore the former file, or only our values in it where somebody has changed it since."""
    with after.held(as_it_was=False) as now:
        if now.content != after.content:
            mine = {view.variable for service in group for view in service.views}
            kept = {name: value for name, value in now.ours.items() if name not in mine}
            former = now.having(kept | {name: value for name, value in former.ours.items() if name in mine})
        now.replace_on_disk(former)
    return former
