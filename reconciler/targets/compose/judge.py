"""What a person must know of wanted variables before anything is applied. Pure: views in, problems out."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from reconciler.problem import Problem, SecretUnreadable, Severity
from reconciler.secrecy import Withheld, disclosed, is_secret_name
from reconciler.targets.compose import secretfiles
from reconciler.targets.compose.project import ComposeFiles, ComposeLine, open_up
from reconciler.targets.compose.snapshot import Snapshot, View

_ONLY_VARIABLES = re.compile(r"(\$\{\w+\}|\$\w+|[^\w\s$])*")


def scope(service: str) -> str:
    """Name what is blocked as a whole: a consumer is never switched half."""
    return f"smtp/{service}"


def unreadable(view: View, error: SecretUnreadable) -> Iterator[Problem]:
    """Yield a secret's own problems, so that they block the service that needs it."""
    for problem in error.problems:
        yield replace(problem, scope=scope(view.wanted.service))


def problems(
    views: Sequence[View], snapshot: Snapshot, places: ComposeFiles, public: Collection[str] = ()
) -> Iterator[Problem]:
    """Yield all that stands in the way of these variables, and all that is worth knowing of them.

    Of what the compose files say only what is ``public`` is repeated: anything else may be a secret.
    """
    missing = set()
    for service in dict.fromkeys(view.wanted.service for view in views):
        for problem in _service(service, snapshot, places):
            missing.add(service)
            yield problem
    present = [view for view in views if view.wanted.service not in missing]
    for view in present:
        yield from _entry(view, snapshot, places, public)
    yield from secretfiles.problems(present, snapshot)
    yield from _conflicts(present)
    yield from _used_elsewhere(present, snapshot)
    yield from _duplicates(present, snapshot)
    yield from _restarts(present, snapshot)


# ------------------------------------------------------------------------------------------------------- services
def _service(service: str, snapshot: Snapshot, places: ComposeFiles) -> Iterator[Problem]:
    if service not in snapshot.project.written:
        summary = f"the compose file has no service {service}"
        names = ", ".join(sorted(snapshot.project.written)) or "none"
        hint = f"it has {names}: correct smtp.consumers, or add the service"
        yield Problem(scope(service), summary, hint, scope=scope(service))
    elif service not in snapshot.project.effective:
        summary = f"the service belongs to a profile that is not active ({places.of(service) or 'compose file'})"
        yield Problem(scope(service), summary, "set COMPOSE_PROFILES in the env file", scope=scope(service))
    elif snapshot.project.runs_programs(service):
        where = places.of(service) or "compose file"
        summary = f"Compose would run a program of this machine for it (provider, models or use_api_socket, {where})"
        hint = "take that out of the service: nothing that a compose file names is run here"
        yield Problem(scope(service), summary, hint, Severity.REFUSED, scope(service))


# -------------------------------------------------------------------------------------------------------- entries
def _entry(view: View, snapshot: Snapshot, places: ComposeFiles, public: Collection[str]) -> Iterator[Problem]:
    """Yield why the env file can't give a variable its value. A literal that already has it is fine."""
    address, service = view.wanted.address, view.wanted.service
    if not view.misconfigured or view.wanted.secret:
        return
    if any("\0" in text for text in view.texts):
        yield Problem(address, "the value holds a NUL, which no environment can", "remove it", scope=scope(service))
    elif not view.declared:
        yield _undeclared(view, snapshot, places, public)
    elif view.interpolation is None:
        yield _literal(view, snapshot, places, public)
    elif view.text == "" and not view.interpolation.may_be_empty:
        yield _never_empty(view, places, public)


def _literal(view: View, snapshot: Snapshot, places: ComposeFiles, public: Collection[str]) -> Problem:
    service, name = view.wanted.service, view.wanted.name
    place = places.of(service, name)
    raw = snapshot.project.written[service][name]
    value = open_up(_free_variable(view, snapshot), raw, secret=not _may_show(view, raw, public))
    what = "holds a literal" if raw is None or "$" not in raw.replace("$$", "") else "is more than one variable"
    summary = f"{place or 'the compose file'} {what}, which the env file can't change"
    return _refuse(view, summary, f"put there: `{_line(place, name, value)}`")


def _undeclared(view: View, snapshot: Snapshot, places: ComposeFiles, public: Collection[str]) -> Problem:
    service, name = view.wanted.service, view.wanted.name
    place = places.of(service)
    value = open_up(
        _free_variable(view, snapshot), view.configured, secret=not _may_show(view, view.configured, public)
    )
    if view.configured is None or view.is_assumed:
        summary = f"the service has no entry for it ({place or 'compose file'})"
    else:
        summary = f"it comes from the service's own env_file, which is not ours to write ({place or 'compose file'})"
    return _refuse(view, summary, f"add to the service's environment: `{_line(place, name, value)}`")


def _never_empty(view: View, places: ComposeFiles, public: Collection[str]) -> Problem:
    service, name = view.wanted.service, view.wanted.name
    place, found = places.of(service, name), view.interpolation
    operator, default = (found.operator.lstrip(":"), found.default) if found else ("", "")
    default = default if _may_show(view, default, public) else ""
    summary = f"{place or 'the compose file'} takes an empty value for none"
    return _refuse(view, summary, f"put there: `{_line(place, name, f'${{{view.variable}{operator}{default}}}')}`")


def _may_show(view: View, text: str | None, public: Collection[str]) -> bool:
    """Whether what the compose files say in a value's place may be repeated: it may be a secret that has yet to go."""
    if not text or _ONLY_VARIABLES.fullmatch(text):
        return True
    if view.secret or is_secret_name(view.wanted.name):
        return False
    return not isinstance(disclosed(text, view.text, lambda item: item in public), Withheld)


def _refuse(view: View, summary: str, hint: str) -> Problem:
    """Refuse the whole service: the file says otherwise, and a person has to change it before anything is applied."""
    return Problem(view.wanted.address, summary, hint, Severity.REFUSED, scope(view.wanted.service))


def _line(place: ComposeLine | None, name: str, value: str) -> str:
    return f"{name}: {value}" if place is None else place.entry(name, value)


def _free_variable(view: View, snapshot: Snapshot) -> str:
    """Name the variable for an entry that becomes one: its own name, unless another entry already uses it."""
    service, name = view.wanted.service, view.wanted.name
    taken = [use for use in snapshot.project.uses.get(name, ()) if use != f"{service}.{name}"]
    if taken or not name.isidentifier():  # spring.mail.host can be set, and not be interpolated
        return re.sub(r"\W", "_", f"{service}_{name}".upper() if taken else name.upper())
    return name


# ---------------------------------------------------------------------------------------------- between the entries
def _conflicts(views: Iterable[View]) -> Iterator[Problem]:
    """Yield the variables of the env file of which two entries want different values."""
    by_variable: dict[str, list[View]] = defaultdict(list)
    for view in views:
        if view.variable and view.text is not None:
            by_variable[view.variable].append(view)
    for variable, members in by_variable.items():
        if len({view.text for view in members}) == 1:
            continue
        names = ", ".join(f"{view.wanted.service}.{view.wanted.name}" for view in members)
        summary = f"{names} are one variable of the env file, {variable}, and should have different values"
        hint = "give them one value (smtp.links), or different variables in the compose file"
        for service in dict.fromkeys(view.wanted.service for view in members):
            address = next(view.wanted.address for view in members if view.wanted.service == service)
            yield Problem(address, summary, hint, Severity.REFUSED, scope(service))


def _used_elsewhere(views: Sequence[View], snapshot: Snapshot) -> Iterator[Problem]:
    """Yield who else uses a variable that changes, and so gets the new value whenever it is recreated."""
    wanted = {f"{view.wanted.service}.{view.wanted.name}" for view in views}
    changing = {view.variable: view for view in reversed(views) if view.variable and view.misconfigured}
    for variable, view in changing.items():
        others = [use for use in snapshot.project.uses.get(variable, ()) if use not in wanted]
        if others:
            summary = f"{variable} changes, which {', '.join(others)} also uses and gets when it is next recreated"
            hint = "declare it as a consumer or in smtp.links, so that it is kept in step"
            yield Problem(view.wanted.address, summary, hint, Severity.WARNING)


def _duplicates(views: Sequence[View], snapshot: Snapshot) -> Iterator[Problem]:
    """Yield lines outside our block that set a variable of ours: they count for nothing, or may hold an old secret."""
    file = snapshot.env_file
    changing = {view.variable for view in views if view.variable and view.misconfigured}
    for other in file.others():
        if other.variable not in {*file.ours, *changing}:
            continue
        if other.line > file.end_of_ours > 0 and not changing:
            summary = f"{other.variable} is set here again, behind our block: this line holds, being the last"
            hint = "remove the line, so that what is declared holds"
        else:
            summary = f"{other.variable} is set here too; our block at the end of the file holds, being the last"
            hint = "remove the line: it has no effect and may hold an old secret"
        yield Problem(f"{file.path.name}:{other.line}", summary, hint, Severity.WARNING)


def _restarts(views: Sequence[View], snapshot: Snapshot) -> Iterator[Problem]:
    for service in dict.fromkeys(view.wanted.service for view in views if view.stale):
        if not snapshot.replicas(service):
            summary = "no container of it runs: apply starts one"
            yield Problem(scope(service), summary, "see docker compose ps -a", Severity.WARNING)
        for other in snapshot.project.restarted_with(service):
            summary = f"{other} depends on it with restart: true, so that Compose restarts it as well"
            yield Problem(scope(service), summary, "", Severity.WARNING)


def disagreements(groups: Iterable[Sequence[tuple[str, str]]], snapshot: Snapshot) -> Iterator[Problem]:
    """Yield the links without a value of their own whose variables don't agree; the values are not repeated.

    A group names its variables as ``(service, variable)``.
    """
    for group in groups:
        names = ", ".join(f"{service}.{name}" for service, name in group)
        first = f"smtp/{group[0][0]}/{group[0][1]}"
        hint = "give the link a value: {value: {env: NAME}, in: [...]}, or the entries one variable of the env file"
        if len({snapshot.project.configured(service, name) for service, name in group}) > 1:
            yield Problem(first, f"{names} must agree, and the compose files give them different values", hint)
        elif len({value for service, name in group for value in snapshot.running(service, name)}) > 1:
            behind = ", ".join(
                service
                for service, name in group
                if set(snapshot.running(service, name)) - {snapshot.project.configured(service, name)}
            )
            summary = f"{names} must agree; the files say so, but running containers differ"
            yield Problem(first, summary, f"docker compose up -d --no-deps {behind}")
