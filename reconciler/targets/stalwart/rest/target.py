"""The target for Stalwart up to 0.15: two requests observe it, and changes go in as few as its API allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from reconciler.desired.stalwart import in_config_file
from reconciler.plan import Change, differences
from reconciler.problem import Problem, SecretUnreadable, TargetUnreadable
from reconciler.reconcile import Outcome, Progress, Reveal, Status, Stopped
from reconciler.resources import (
    Account,
    AllowedIp,
    Domain,
    Listener,
    Observation,
    Resource,
    Signature,
)
from reconciler.targets.stalwart.connection import TARGET, AnswerLost, Connect, Connection
from reconciler.targets.stalwart.container import (
    ConfigFile,
    Container,
    Docker,
    DockerUnreachable,
    causes,
)
from reconciler.targets.stalwart.host import is_lost, look
from reconciler.targets.stalwart.passwords import Hashes
from reconciler.targets.stalwart.ports import unopened, with_open
from reconciler.targets.stalwart.rest import principals as rest_principals
from reconciler.targets.stalwart.rest import settings as rest_settings
from reconciler.targets.stalwart.rest.api import Rejected, RestApi
from reconciler.targets.stalwart.rest.settings import PENDING, Edit
from reconciler.targets.stalwart.work import restart

# What else keeps a server from reloading, and how to get it out of the way.
_UNBLOCK = {
    "spam-filter.pyzor.host": "give the container working DNS, or write `settings: {spam-filter.pyzor.enable: false}`, "
    "then run apply again"
}


class StalwartRest:
    """Stalwart up to 0.15. ``connect`` opens a connection as our user; ``docker`` is the declared container."""

    name = TARGET

    def __init__(self, connect: Connect, docker: Docker | None, progress: Progress) -> None:
        """Remember how to get there; nothing is asked yet."""
        self._connect, self._docker, self._progress = connect, docker, progress

    # ------------------------------------------------------------------------------------------------------- observe
    def observe(self, wanted: Sequence[Resource], reveal: Reveal) -> Observation:
        """Read everything in two requests, asking Docker meanwhile. Raises `TargetUnreadable`."""
        with self._connect(reveal) as connection:
            try:
                return self._observed(wanted, reveal, connection)
            except Rejected as error:
                hint = error.hint or "look at the server's log, then try again"
                raise TargetUnreadable(connection.problem(error.summary, hint)) from error

    def _observed(self, wanted: Sequence[Resource], reveal: Reveal, connection: Connection) -> Observation:
        problems: list[Problem] = []
        with ThreadPoolExecutor(max_workers=1) as pool:
            looking = pool.submit(look, self._docker, file=True)
            api = RestApi(connection)
            accounts = [item for item in wanted if isinstance(item, Account)]
            principals = rest_principals.Principals(api.principals(), accounts)
            settings = rest_settings.Reading(api.keys(*rest_settings.query(wanted)), wanted)
            live = [*principals.live(reveal, problems.append), *settings.live(reveal, problems.append)]
            place = looking.result()
        live = with_open(live, wanted, connection.host, place.container)
        problems += [place.problem] if place.problem else []
        problems += [*principals.conflicts(accounts), *_overridden(place.file, wanted)]
        lost = is_lost(wanted, live)
        return Observation(
            TARGET,
            live=live,
            problems=tuple(problems),
            head=(f"{connection.where}: up to 0.15 (REST)",),
            lost=lost,
            cause=causes(place.container) if lost and place.container else (),
            generation="rest",
        )

    # --------------------------------------------------------------------------------------------------------- apply
    def apply(self, changes: Sequence[Change], reveal: Reveal, stopped: Stopped) -> Iterator[Outcome]:
        """Carry out changes: domains, accounts, then signatures and settings at once; removals of accounts last."""
        principals = [change for change in changes if isinstance(change.resource, Domain | Account)]
        settings = [change for change in changes if not isinstance(change.resource, Domain | Account)]
        with self._connect(reveal) as connection:
            hashes = Hashes(principals, reveal, self._progress)
            run = _Run(RestApi(connection), reveal, self._docker, self._progress, hashes)
            for change, early in rest_principals.in_turn([item for item in principals if not item.deletes]):
                if stopped():
                    return
                if early:
                    run.release(change)
                else:
                    yield run.principal(change)
            if settings and not stopped():
                yield from run.settings(settings)
            for change in (item for item in principals if item.deletes):
                if stopped():
                    return
                yield run.principal(change)


def _overridden(file: ConfigFile | None, wanted: Sequence[Resource]) -> Iterator[Problem]:
    for resource, key in rest_settings.overridden(file.keys, wanted) if file else ():
        yield _override(resource.address, key, file)


def _override(address: str, key: str, file: ConfigFile | None) -> Problem:
    """Say that a key of the database stands in config.toml, where it wins for ever (traps.md 20 and 21)."""
    path = file.path if file else "config.toml"
    line = file.line_of(key) if file else f"`{key}`"
    return Problem(
        address,
        f"{key} belongs into the database but stands in {path}, and the file always wins",
        f"remove {line} from {path} and restart the container: a reload does not read the file",
        scope=address,
    )


class _Run:
    """One apply: what failed so far, and whether the server has become unreachable on the way."""

    def __init__(self, api: RestApi, reveal: Reveal, docker: Docker | None, progress: Progress, hashes: Hashes) -> None:
        self._api, self._reveal, self._docker, self._progress = api, reveal, docker, progress
        self._hashes = hashes
        self._down: Problem | None = None
        self._failed: set[str] = set()

    def _outcome(self, change: Change, status: Status, problem: Problem | None = None) -> Outcome:
        if status is not Status.DONE:
            self._failed.add(change.address)
        return Outcome(change, status, problem)

    def _hindrance(self, change: Change) -> Problem | None:
        """Say why a change can't even be tried."""
        if self._down is not None:
            return self._down
        missing = sorted(change.needs & self._failed)
        return Problem(change.address, f"{missing[0]} was not done", "run apply again") if missing else None

    # ------------------------------------------------------------------------------------------- domains and accounts
    def principal(self, change: Change) -> Outcome:
        """Create, change or delete a domain or account, and look again where that alone can tell how it went."""
        hindrance = self._hindrance(change)
        if hindrance is not None:
            return self._outcome(change, Status.SKIPPED, hindrance)
        try:
            self._write_principal(change)
        except AnswerLost as error:
            self._renew(change)
            return self._looked_up(change, Status.UNKNOWN, error.problems[0])
        except TargetUnreadable as error:
            self._down = error.problems[0]
            return self._outcome(change, Status.FAILED, self._down)
        except Rejected as error:
            return self._declined(change, error)
        except (ValueError, SecretUnreadable) as error:
            return self._outcome(change, Status.FAILED, rest_settings.unusable(change.address, error))
        self._renew(change)
        return self._outcome(change, Status.DONE)

    def _renew(self, change: Change) -> None:
        """Try all passwords again after our own has changed; otherwise what was refused stays refused."""
        if self._own_password(change):
            self._api.connection.login.renewed()

    def release(self, change: Change) -> None:
        """Take the addresses that an account gives up from it before its own turn, as others in a circle want them."""
        before, after = change.before, change.after
        if self._down is not None or before is None or not isinstance(after, Account):
            return
        try:
            self._api.patch(before.id, rest_principals.release(before.resource, after))
        except (TargetUnreadable, Rejected):
            return  # the change itself comes next and tells what is wrong

    def _declined(self, change: Change, error: Rejected) -> Outcome:
        problem = Problem(change.address, error.summary, error.hint or _remedy(error))
        if error.error == "fieldAlreadyExists":  # perhaps our own, whose answer was lost
            return self._looked_up(change, Status.FAILED, problem)
        return self._outcome(change, Status.FAILED, problem)

    def _write_principal(self, change: Change) -> None:
        before, after = change.before, change.after
        if isinstance(after, Account) and before is not None and isinstance(before.resource, Account):
            operations = rest_principals.patch(before.resource, after, self._hashes)
            if operations:
                self._api.patch(before.id, operations)
        elif isinstance(after, Account):
            self._api.create(rest_principals.body(after, self._hashes))
        elif isinstance(after, Domain):
            self._api.create({"type": "domain", "name": after.name})
        elif before is not None:
            self._api.delete(before.id)

    def _own_password(self, change: Change) -> bool:
        """Whether a change gives the account that we log in with another password."""
        after, username = change.after, self._api.connection.login.username.lower()
        own = isinstance(after, Account) and rest_principals.login(after) == username
        return own and (change.before is None or "password" in change.fields)

    def _looked_up(self, change: Change, otherwise: Status, problem: Problem) -> Outcome:
        """Read again what may have been written: done if it is as desired. Nothing is sent twice blindly."""
        try:
            if self._is_so(change):
                return self._outcome(change, Status.DONE)
        except (TargetUnreadable, Rejected) as error:
            if isinstance(error, TargetUnreadable):
                self._down = error.problems[0]
        return self._outcome(change, otherwise, replace(problem, where=change.address))

    def _is_so(self, change: Change) -> bool:
        after = change.after
        if isinstance(after, Account):
            item = self._api.principal(rest_principals.login(after))
            found = rest_principals.Principals([item] if item else [], [after]).live(self._reveal, lambda _: None)
            return any(not differences(after, live.resource) for live in found if isinstance(live.resource, Account))
        if isinstance(after, Domain):
            item = self._api.principal(after.name)
            return item is not None and item.get("type") == "domain"
        return change.before is not None and self._api.principal(change.before.id) is None

    # ------------------------------------------------------------------------------------------ signatures, settings
    def settings(self, changes: Sequence[Change]) -> Iterator[Outcome]:
        """Write signatures and settings in one request, put them in force, and see whether they are."""
        tried = []
        for change in changes:
            hindrance = self._hindrance(change)
            if hindrance is None:
                tried.append(change)
            else:
                yield self._outcome(change, Status.SKIPPED, hindrance)
        writes = [change for change in tried if not change.restarts]
        outcomes = self._all_stored(writes)
        due = [
            item.change for item in outcomes if item.status is Status.DONE and isinstance(item.change.after, Listener)
        ]
        yield from (item for item in outcomes if not any(item.change is change for change in due))
        due += [change for change in tried if change.restarts]
        if self._down is not None:
            yield from (self._outcome(change, Status.SKIPPED, self._down) for change in due)
        elif due:
            yield from self._restarted(due)

    def _all_stored(self, changes: Sequence[Change]) -> list[Outcome]:
        try:
            return list(self._stored(changes))
        except TargetUnreadable as error:
            self._down = error.problems[0]
            status = Status.UNKNOWN if isinstance(error, AnswerLost) else Status.FAILED
            return [self._outcome(change, status, self._down) for change in changes]

    def _stored(self, changes: Sequence[Change]) -> Iterator[Outcome]:
        if not changes:
            return
        wanted = rest_settings.query(change.resource for change in changes)
        before = self._api.keys(*wanted)
        edits = []
        for change in changes:
            try:
                edits.append(rest_settings.edit(change, before, self._reveal, _leaving(changes)))
            except (ValueError, SecretUnreadable) as error:
                yield self._outcome(change, Status.FAILED, rest_settings.unusable(change.address, error))
        if not edits:
            return
        edits.sort(key=_position)
        refusal = self._written(edits, before)
        unmade = {} if refusal else self._made(edits)
        ours, foreign = self._in_force(edits, before)
        now = self._api.keys(*wanted)
        written = {key for edit in edits for key in edit.written}
        for edit in edits:
            unlike = edit.unlike(now, written)
            problem = self._objection(edit, ours, foreign)
            if problem is None and unlike:
                problem = unmade.get(edit.change.address)
            problem = problem or self._shortfall(edit, refusal, unlike)
            lost = isinstance(refusal, AnswerLost) and unlike
            yield self._outcome(
                edit.change, Status.UNKNOWN if lost else Status.FAILED if problem else Status.DONE, problem
            )

    def _written(self, edits: Sequence[Edit], before: Mapping[str, str]) -> Rejected | AnswerLost | None:
        """Send all edits, with a note of what is not in force yet. Returns what came in place of success."""
        touched = dict.fromkeys((*rest_settings.pending(before), *(item for edit in edits for item in edit.noted)))
        operations = [rest_settings.insert({PENDING: ",".join(touched)})]
        operations += [operation for edit in edits for operation in edit.operations()]
        try:
            self._api.write(operations)
        except AnswerLost as error:
            return error
        except Rejected as error:
            self._take_back([edit for edit in edits if edit.local], before)
            return error
        return None

    def _made(self, edits: Sequence[Edit]) -> dict[str, Problem]:
        """Have the server make its keys, and return what came in place of success, by address."""
        problems = {}
        for edit in edits:
            address = edit.change.address
            try:
                if edit.make is not None:
                    self._api.make_key(*edit.make)
            except AnswerLost as error:
                problems[address] = replace(error.problems[0], where=address)
            except Rejected as error:  # one that exists is ours: the id was empty a moment ago
                problems[address] = Problem(address, error.summary, error.hint or _remedy(error))
        return problems

    def _take_back(self, edits: Sequence[Edit], before: Mapping[str, str]) -> None:
        """Put back what was stored before. A read-only config.toml refuses this too, after changing its memory."""
        operations = [operation for edit in edits for operation in edit.undo(before).operations()]
        if operations:
            try:
                self._api.write(operations)
            except Rejected:
                return

    def _in_force(self, edits: Sequence[Edit], before: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        """Reload, and return what the server objects to: in what we wrote, and in what stands in the way.

        A bad value of ours is taken back, so that the others get in force.
        """
        errors = self._api.reload()
        bad = [edit for edit in edits if any(key in edit.touched for key in errors)]
        ours = {key: text for key, text in errors.items() if any(key in edit.touched for edit in bad)}
        if bad:
            self._take_back(bad, before)
            errors = self._api.reload()
        if not errors:
            self._api.write([{"type": "delete", "keys": [PENDING]}])
        return ours, errors

    def _objection(self, edit: Edit, ours: Mapping[str, str], foreign: Mapping[str, str]) -> Problem | None:
        """Say what keeps an edit from being in force."""
        address = edit.change.address
        for key, text in ours.items():
            if key in edit.touched:
                hint = "correct the value; what was there before is back in force"
                if key in edit.drop and key not in edit.put:  # such as the rates that a first start writes
                    hint = "the server has no default for it: write a value; what was there before is back in force"
                return Problem(address, f"the server does not take {key}: {text}", hint)
        for key, text in foreign.items():
            summary = f"is stored but not in force: the server keeps its old settings because of {key}: {text}"
            return Problem(address, summary, _UNBLOCK.get(key, f"correct {key}, then run apply again"))
        return None

    def _shortfall(self, edit: Edit, refusal: Rejected | AnswerLost | None, unlike: Sequence[str]) -> Problem | None:
        """Say why what is stored is not what was sent."""
        address = edit.change.address
        if isinstance(refusal, Rejected) and (edit.local or unlike):
            return Problem(address, refusal.summary, refusal.hint or _remedy(refusal))
        if not unlike:
            return None
        if isinstance(refusal, AnswerLost):
            return replace(refusal.problems[0], where=address)
        return self._not_taken(edit.change, unlike)

    def _not_taken(self, change: Change, unlike: Sequence[str]) -> Problem:
        key = min(unlike)
        if in_config_file(key):
            return Problem(change.address, f"{key} was written and reads otherwise", "look at config.toml and the log")
        return _override(change.address, key, look(self._docker, file=True).file)

    # --------------------------------------------------------------------------------------------------------- restart
    def _restarted(self, changes: Sequence[Change]) -> Iterator[Outcome]:
        """Restart the container once, and wait until the API and the ports answer. Without one, say what to run."""
        try:
            restart(self._docker, self._api.connection, self._progress)
        except DockerUnreachable as error:
            name = self._docker.name if self._docker else "CONTAINER"
            note = f"opens after a restart, which can't be done from here ({error}): run `docker restart {name}`"
            yield from (Outcome(change, Status.DONE, notes=(note,)) for change in changes)
            return
        except TargetUnreadable as error:
            yield from (self._outcome(change, Status.FAILED, error.problems[0]) for change in changes)
            return
        container = look(self._docker).container
        yield from (self._opened(change, container) for change in changes)

    def _opened(self, change: Change, container: Container | None) -> Outcome:
        problem = unopened(change.after, self._api.connection.host, container)
        return self._outcome(change, Status.FAILED if problem else Status.DONE, problem)


def _leaving(changes: Iterable[Change]) -> frozenset[str]:
    """Name the signature ids that changes of this run move, replace or remove."""
    return frozenset(item.before.id for item in changes if isinstance(item.resource, Signature) and item.before)


def _position(edit: Edit) -> tuple[bool, bool, bool]:
    """Order edits: allowed addresses first, then what the database holds; a key leaves its id before one takes it.

    What goes to config.toml comes last: a read-only one stops the request there.
    """
    after = edit.change.after
    takes = isinstance(after, Signature) and after.signs is True
    return edit.local, not isinstance(edit.change.resource, AllowedIp), takes


def _remedy(error: Rejected) -> str:
    """Say what to do about what the server declined."""
    match error.error:
        case "notFound" if "." in error.subject:
            return f"declare the domain {error.subject}: an account below it does, or make it on the server"
        case "notFound":
            return f"make {error.subject} on the server: groups, lists and roles are not kept here"
        case "fieldAlreadyExists":
            return "names and addresses are unique over all accounts, groups, lists and domains: plan again, or rename"
    return "look at the server's log"
