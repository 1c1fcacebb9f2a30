"""Contents of compose secrets, which a container reads from a file: written beside the env file, kept until it is sure.

A new content does not change a service's configuration, so that Compose would not recreate it; and the container that
runs keeps the file that it was made with, since that is replaced and never overwritten. What it read therefore lies in
a folder beside the new one that git ignores, as ``.reconciler/NAME.reconciler-former``, from before the first byte is
written until the new container runs: where we are killed in between, the next run knows by it that the container is
behind, and what to go back to.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler import fence, files, git
from reconciler.problem import Problem, Severity, TargetUnreadable
from reconciler.targets.compose.envfile import EnvFile, check_place
from reconciler.targets.compose.project import Project

if TYPE_CHECKING:
    from reconciler.targets.compose.snapshot import Snapshot, View


@dataclass(frozen=True, slots=True)
class SecretFile:
    """The file of a compose secret: what is in it, and what the container that runs has read, where that differs."""

    path: Path
    content: str | None = field(repr=False)
    former: str | None = field(default=None, repr=False)

    @property
    def read_by_container(self) -> str | None:
        """What the running container has."""
        return self.content if self.former is None else self.former


def _kept(path: Path) -> Path:
    return path.parent / files.FOLDER / f"{path.name}.reconciler-former"


def _former(path: Path) -> str | None:
    """Return what the container has read, where that is kept. Raises `CannotRead`, also where git tracks that."""
    kept = _kept(path)
    if os.path.lexists(kept) and git.tracked(kept, os.environ):
        raise files.CannotRead(f"{kept}: git tracks it, so that a commit may have put it there", "git rm it")
    try:
        return files.decoded(files.read_own(kept), kept)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise files.CannotRead(f"{kept}: {error.strerror or type(error).__name__}", "look what it is") from None


def read(project: Project, service: str, name: str, env_file: EnvFile) -> SecretFile | None:
    """Read the file of a service's secret. None where there is none of ours: `problems` says why."""
    if _why_not(project, service, name, env_file) is not None:
        return None
    path = _path(project, name)
    try:
        content, former = _content(path), _former(path)
    except files.CannotRead:
        return None
    return SecretFile(path, content, former if former != content else None)


def _path(project: Project, name: str) -> Path:
    """Return where the file of a secret really is: what is checked is what is written, and a link stays one."""
    return Path(os.path.realpath(str((project.secrets.get(name) or {}).get("file", ""))))


def _content(path: Path) -> str | None:
    """Return a file's text without its last line end; None where there is no file. Raises `CannotRead`."""
    return files.decoded(files.read(path), path) if path.is_file() else None


def _check_readable(path: Path) -> None:
    """Raise `CannotRead` for a file that can't be read as text, or that sops encrypts: ours would not be.

    So it is where what the container has read is kept, and can't be told.
    """
    if "ENC[AES256_GCM," in (_content(path) or ""):
        raise files.CannotRead("its file is encrypted by sops", "let it be one in plain text, which git ignores")
    _former(path)


def _why_not(project: Project, service: str, name: str, env_file: EnvFile) -> tuple[str, str] | None:
    """Say why a service's secret is not ours to write, and what to do about it."""
    used = (project.services.get(service) or {}).get("secrets") or ()
    if not any((item if isinstance(item, str) else item.get("source")) == name for item in used):
        return f"the service has no secret {name}", f"add to the service: `secrets: [{name}]`, or correct the name"
    if not (project.secrets.get(name) or {}).get("file"):
        hint = f"write below the compose file's own `secrets:`: `{name}: {{file: ./{name}}}`"
        return f"the secret {name} is no file, so that nothing can be written there", hint
    path = _path(project, name)
    try:
        check_place(path, env_file.path.parent)
        if path == env_file.path.resolve():
            return "its file is the env file", f"give the secret {name} a file of its own"
        _check_readable(path)
    except TargetUnreadable:
        folder = env_file.path.resolve().parent
        what = "is no place for a secret" if path.is_relative_to(folder) else f"leads out of {folder}"
        return f"the secret's file {what}", f"keep it beside the env file, as {name} without an ending"
    except files.CannotRead as error:
        return error.summary, error.hint
    return None


def problems(views: Sequence[View], snapshot: Snapshot) -> Iterator[Problem]:
    """Yield why contents can't be written, where two services want different ones, and who else reads them."""
    wanted: dict[Path, list[View]] = defaultdict(list)
    for view in views:
        item, scope = view.wanted, f"smtp/{view.wanted.service}"
        if not item.secret:
            continue
        if view.file is not None:
            wanted[view.file.path].append(view)
        elif why := _why_not(snapshot.project, item.service, item.secret, snapshot.env_file):
            yield Problem(item.address, *why, Severity.REFUSED, scope)
    for members in wanted.values():
        if len({view.text for view in members}) > 1:
            names = ", ".join(view.wanted.service for view in members)
            for view in members:
                summary = f"{names} share its file, and should have different contents"
                hint = "give each a secret of its own in the compose file"
                yield Problem(view.wanted.address, summary, hint, Severity.REFUSED, f"smtp/{view.wanted.service}")
        yield from _others(members, snapshot.project)


def _others(members: Sequence[View], project: Project) -> Iterator[Problem]:
    view, ours = members[0], {view.wanted.service for view in members}
    others = [
        service
        for service, settings in project.services.items()
        if service not in ours
        and any(
            (item if isinstance(item, str) else item.get("source")) == view.wanted.secret
            for item in (settings or {}).get("secrets") or ()
        )
    ]
    if others and view.misconfigured:
        summary = f"{', '.join(others)} also read{'s' if len(others) == 1 else ''} it, and gets it when next recreated"
        yield Problem(view.wanted.address, summary, "declare it there as well", Severity.WARNING)


# ------------------------------------------------------------------------------------------------------- the switch
def write(views: Iterable[View]) -> None:
    """Put the contents in place that differ, keeping what the containers have read. Raises `TargetUnreadable`."""
    for view in _ours(views):
        if view.misconfigured and view.file is not None and view.text is not None:
            path = view.file.path
            try:
                if view.file.content is not None and not _kept(path).exists():
                    fence.before_write()
                    files.write_private(_kept(path), view.file.content.encode(errors="surrogateescape"))
                fence.before_write()
                _replace(path, view.text)
            except OSError as error:
                raise _unwritable(path, error) from None


def put_back(views: Iterable[View]) -> None:
    """Put back what the containers had read. Raises `TargetUnreadable`."""
    for view in _ours(views):
        if view.file is None or not is_kept(view):
            continue
        path = view.file.path
        try:
            fence.before_write()
            _replace(path, _former(path) or "")
            _drop(path)
        except (OSError, files.CannotRead) as error:
            raise _unwritable(path, error) from None


def forget(views: Iterable[View]) -> None:
    """Remove what was kept: the new containers run."""
    for view in _ours(views):
        if view.file is not None:
            _drop(view.file.path)


def _drop(path: Path) -> None:
    _kept(path).unlink(missing_ok=True)
    files.drop_private(_kept(path).parent)


def is_kept(view: View) -> bool:
    """Whether what the container had read is kept beside the file."""
    return view.file is not None and _kept(view.file.path).is_file()


def _ours(views: Iterable[View]) -> list[View]:
    """Return a view of each file, since services may share one."""
    return list({view.file.path: view for view in views if view.file is not None}.values())


def _replace(path: Path, text: str) -> None:
    """Put a content there, all of it or nothing, for its owner only. One that others read keeps owner and mode."""
    content = text.encode(errors="surrogateescape")
    status = path.stat() if path.exists() else None
    with files.aside(path, content) as name:
        if status is not None and (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(name, status.st_uid, status.st_gid)
        if status is not None:
            name.chmod(status.st_mode & 0o7777)
        name.replace(path)
    files.settle(path.parent)


def _unwritable(path: Path, error: Exception) -> TargetUnreadable:
    why = getattr(error, "strerror", None) or type(error).__name__
    return TargetUnreadable(Problem(str(path), f"the secret's file can't be written: {why}", "make it writable"))
