"""What a person must know of wanted variables before anything is applied. Pure: views in, problems out."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from reconciler.problem import Problem, SecretUnreadable, Severity
from reconciler.secrecy import Withheld, disclosed, is_secret_name
from reconciler.targets.compose import secretfiles
from reconciler.targets.compose.forecast import Forecast
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
    yield from _readers(present, snapshot)
    yield from _other_stacks(present, snapshot)
    yield from _duplicates(present, snapshot)
    yield from _made_of(present, snapshot)
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
    elif started := snapshot.project.programs_of([service]):
        where = places.of(started[0]) or "compose file"
        whom = "it" if service in started else f"{', '.join(started)}, which is brought up with it"
        summary = (
            f"Compose would run a program of this machine for {whom} (provider, models or use_api_socket, {where})"
        )
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
        whose = (
            "reads the env file as a whole" if service in snapshot.readers() else "has it from an env_file of its own"
        )
        summary = f"the service {whose}, and no entry of its environment decides on it ({place or 'compose file'})"
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
        made = [
            f"{item.variable} (line {item.line})" for item in file.made_of(other.variable) if item.line > other.line
        ]
        if made:
            summary = f"{other.variable} is set here too, and {', '.join(made)} takes its value from here"
            hint = "leave the line as long as that needs it; it may hold an old secret"
        elif other.line > file.end_of_ours > 0 and not changing:
            summary = f"{other.variable} is set here again, behind our block: this line holds, being the last"
            hint = "remove the line, so that what is declared holds"
        else:
            block = (
                "our block at the end of the file holds" if file.end_of_ours else "what apply adds at the end will hold"
            )
            summary = f"{other.variable} is set here too; {block}, being the last"
            hint = "remove the line: it has no effect and may hold an old secret"
        yield Problem(f"{file.path.name}:{other.line}", summary, hint, Severity.WARNING)


def _made_of(views: Sequence[View], snapshot: Snapshot) -> Iterator[Problem]:
    """Yield the lines of the env file that are made of a variable that changes."""
    file = snapshot.env_file
    for variable in dict.fromkeys(view.variable for view in views if view.variable and view.misconfigured):
        for item in file.made_of(variable):
            users = ", ".join(snapshot.project.uses.get(item.variable, ())) or "nobody here"
            follows = item.line > file.end_of_ours > 0
            how = "changes with it" if follows else "keeps its value, as our block stands behind it"
            summary = f"{item.variable} is made of {variable} and {how}; it is used by {users}"
            hint = "" if follows else "where it is to change, too, let its users be consumers, or write that line anew"
            yield Problem(f"{file.path.name}:{item.line}", summary, hint, Severity.WARNING)


def _readers(views: Sequence[View], snapshot: Snapshot) -> Iterator[Problem]:
    """Yield who reads the env file as a whole, as its own ``env_file``."""
    changing = {view.wanted.service for view in views if view.variable and view.misconfigured}
    for service, form in snapshot.readers().items() if changing else ():
        if form != "raw":
            summary = (
                f"{service} reads the whole file (env_file) and gets all that stands in it when it is next recreated"
            )
            hint = "give it the variables that it needs in its environment, or an env_file of its own"
            yield Problem(snapshot.env_file.path.name, summary, hint, Severity.WARNING)
            continue
        for name in sorted(changing):
            summary = f"{service} reads it raw (env_file, format: raw) and would get our values with their quotes"
            hint = f"take format: raw from {service}, or name another targets.compose.env_file"
            yield Problem(snapshot.env_file.path.name, summary, hint, Severity.REFUSED, scope(name))


def _other_stacks(views: Sequence[View], snapshot: Snapshot) -> Iterator[Problem]:
    """Yield the variables that another stack has in this file, too: each would undo what the other does."""
    theirs = snapshot.env_file.theirs()
    for view in views:
        if view.misconfigured and view.variable in theirs:
            summary = f"the stack {theirs[view.variable]} sets {view.variable} in {snapshot.env_file.path.name}, too"
            hint = "let one of them declare it, or give them env files of their own"
            yield Problem(view.wanted.address, summary, hint, Severity.REFUSED, scope(view.wanted.service))


def _restarts(views: Sequence[View], snapshot: Snapshot) -> Iterator[Problem]:
    for service in dict.fromkeys(view.wanted.service for view in views if view.stale):
        if not snapshot.kept(service):
            summary = "no container of it runs: apply starts one"
            yield Problem(scope(service), summary, "see docker compose ps -a", Severity.WARNING)
        for other in snapshot.project.restarted_with(service):
            summary = f"{other} depends on it with restart: true, and is restarted as well"
            yield Problem(scope(service), summary, "", Severity.WARNING)


# ----------------------------------------------------------------------------------- what would be changed besides
def foreseen(forecast: Forecast, *, allowed: bool) -> Iterator[Problem]:
    """Yield what `up` would change besides: refused, or with ``allowed`` shown where it can be taken along."""
    for service, problem in forecast.failed.items():
        yield replace(problem, where=scope(service), scope=scope(service))
    for service, file in forecast.tracked.items():
        summary = f"a secret would be written into {file}, which git tracks: the next commit would hold it"
        hint = "git rm --cached it and let git ignore it, or name another file"
        yield Problem(scope(service), summary, hint, Severity.REFUSED, scope(service))
    for service, along in forecast.along.items():
        yield from _riding(service, along, forecast, allowed=allowed)
        if names := forecast.outside.get(service):
            summary = (
                f"{', '.join(names)} lives in its namespace (network_mode, pid or ipc) and would be left in a dead one"
            )
            hint = f"stop it, or let it be a service of the project that says service:{service} there"
            yield Problem(scope(service), summary, hint, Severity.REFUSED, scope(service))
        if upset := forecast.upset.get(service):
            summary = (
                f"the definition of {', '.join(upset)} differs from what is there: bringing {service} up takes it down"
            )
            hint = "apply it to the whole project (docker compose up -d), or take it back in the compose file"
            yield Problem(scope(service), summary, hint, Severity.REFUSED, scope(service))
        elif along:
            summary = f"{', '.join(along)} shares its namespace and is recreated with it"
            yield Problem(scope(service), summary, "", Severity.WARNING)


def _riding(service: str, along: Sequence[str], forecast: Forecast, *, allowed: bool) -> Iterator[Problem]:
    for name in (service, *along):
        if (names := forecast.riding.get(name)) is None:
            continue
        if not names:
            summary = f"another version of Compose made the container of {name}: nothing that can be seen of it differs"
            yield Problem(scope(service), summary, "", Severity.WARNING)
            continue
        whose = "its" if name == service else f"{name}'s"
        what = ", ".join(names)
        if allowed:
            summary = f"{whose} {what} is not as the compose files say, and is changed with it"
            yield Problem(scope(service), summary, "", Severity.WARNING)
        else:
            summary = f"{whose} {what} is not as the compose files say, and would be changed with it"
            hint = (
                f"bring {name} up by itself first (docker compose up -d --no-deps --force-recreate {name}), "
                "undo that in the files, or take it along: --with-service-changes"
            )
            yield Problem(scope(service), summary, hint, Severity.REFUSED, scope(service))


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
