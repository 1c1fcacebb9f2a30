"""What an apply is made of, whatever the generation: changes under way, what hinders them, one restart at the end."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from reconciler.problem import Problem, ReconcilerError, Severity, TargetUnreadable
from reconciler.resources import Domain, MailingList, Resource
from reconciler.target import Change, Outcome, Progress, Status
from reconciler.targets.stalwart import ports
from reconciler.targets.stalwart.connection import Connection, wait_until
from reconciler.targets.stalwart.container import Docker, DockerUnreachable, look

_COMES_BACK = 120.0  # seconds after a restart; a first start downloads its spam rules


@dataclass(slots=True, kw_only=True)
class Item:
    """One change under way, and how it went so far: it is done until something goes wrong."""

    change: Change
    status: Status = Status.DONE
    problem: Problem | None = None
    notes: tuple[str, ...] = ()

    def fail(self, problem: Problem, status: Status = Status.FAILED) -> None:
        """Note the first thing that went wrong, as a problem of this change."""
        if self.problem is None:
            self.status, self.problem = status, replace(problem, where=self.change.address)

    @property
    def outcome(self) -> Outcome:
        """How it went."""
        return Outcome(self.change, self.status, self.problem, self.notes)


def undone(change: Change, failed: Collection[str]) -> Problem | None:
    """Say which change that this one needs is among the failed ones, given by their addresses."""
    missing = sorted(change.needs & set(failed))
    return Problem(change.address, f"{missing[0]} was not done", "run apply again") if missing else None


def unusable(address: str, error: Exception) -> Problem:
    """Put into a problem of this address why a value can't be written."""
    if isinstance(error, ReconcilerError) and error.problems:
        problem = error.problems[0]
        return replace(problem, summary=f"{problem.where}: {problem.summary}", where=address)
    return Problem(address, str(error), "correct it and run apply again")


def restart(docker: Docker | None, connection: Connection, progress: Progress) -> None:
    """Restart the container and wait until the server answers again.

    Raises `DockerUnreachable` when it can't be restarted from here, `TargetUnreadable` when it does not come back.
    """
    if docker is None:
        raise DockerUnreachable("no container is declared")
    progress(f"restarting the container {docker.name}")
    docker.restart()
    progress("waiting for Stalwart to answer again")
    if not wait_until(lambda: _answers(connection), _COMES_BACK):
        summary = f"does not answer {_COMES_BACK:.0f} s after the restart of its container"
        raise TargetUnreadable(connection.problem(summary, "look at its log"))


def _answers(connection: Connection) -> bool:
    try:
        connection.probe("/healthz/live")
    except TargetUnreadable:
        return False
    return True


def restart_for(
    items: Sequence[Item], docker: Docker | None, connection: Connection, progress: Progress, then: str = "in force"
) -> bool:
    """Restart the container once for items that wait for it, and see that their listeners answer.

    Where it can't be restarted from here, each item gets a note with what to run; ``then`` is what is so afterwards.
    Returns whether it was restarted.
    """
    try:
        restart(docker, connection, progress)
    except DockerUnreachable as error:
        name = docker.name if docker else "CONTAINER"
        note = f"{then} after a restart, which can't be done from here ({error}): run `docker restart {name}`"
        for item in items:
            item.notes = (*item.notes, note)
        return False
    except TargetUnreadable as error:
        for item in items:
            item.fail(error.problems[0])
        return False
    container = look(docker).container
    for item in items:
        if (problem := ports.unopened(item.change.after, connection.host, container)) is not None:
            item.fail(problem)
    return True


def nobody_at(
    wanted: MailingList, there: Collection[str], domains: Collection[str], all_wanted: Iterable[Resource]
) -> Iterator[Problem]:
    """Warn of the members of a list that lie in ``domains`` here, where nobody has or gets that address."""
    told = list(all_wanted)
    known = {*there, *(address for item in told for address in item.mailboxes)}
    caught = {item.name for item in told if isinstance(item, Domain) and isinstance(item.catch_all, str)}
    for member in wanted.members if isinstance(wanted.members, tuple) else ():
        local, _, domain = member.rpartition("@")
        if domain in domains and domain not in caught and not {member, f"{local.partition('+')[0]}@{domain}"} & known:
            summary = f"nobody here has the address of its member {member}"
            hint = "declare an account, a group or a list of that address, or take it away here"
            yield Problem(wanted.address, summary, hint, Severity.WARNING)
