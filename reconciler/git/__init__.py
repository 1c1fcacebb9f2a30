"""What git says of a directory. Others write to the repository, so nothing that it configures runs.

Git is told where the repository is, so that it finds no other one among the files; it reads objects and its list of
files, and neither compares nor converts what lies in the work tree, for which it would call programs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from reconciler import files
from reconciler.names import SHOWN
from reconciler.problem import Problem, Refused
from reconciler.process import GIT, CannotRun, Child

_LIMIT = 10.0  # seconds
_LARGEST = 1 << 20  # bytes of a file that is compared
OPTIONS = (
    "--no-pager",
    *("-c", "safe.bareRepository=explicit"),
    *("-c", "core.fsmonitor=false"),
    *("-c", f"core.hooksPath={os.devnull}"),
    *("-c", f"core.attributesFile={os.devnull}"),
    *("-c", "core.sshCommand=false"),
    *("-c", "core.askPass=false"),
    *("-c", "credential.helper="),
    *("-c", "protocol.allow=never"),
)
"""What keeps git from running anything that a repository configures, and from speaking to anybody."""

_PATCH = (  # of a patch, as git would make it where nobody configured anything
    *("--no-show-signature", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames"),
    "--submodule=short",
    "--text",  # whatever attributes in the repository call its files
)


def checkout(path: Path) -> Path | None:
    """Return the top of the work tree that a path lies in, None outside of one. Nothing is run."""
    real = Path(os.path.realpath(path))
    return next((above for above in (real, *real.parents) if os.path.lexists(above / ".git")), None)


def leaving(path: Path) -> Path | None:
    """Return the first link on the way to a path that lies in a work tree and leads out of it, or to its ``.git``.

    A commit may have made it, and chosen where it leads. Nothing is run.
    """
    for link in reversed((path.absolute(), *path.absolute().parents)):
        if link.is_symlink() and (top := checkout(link.parent)) is not None:
            real = Path(os.path.realpath(link))
            if not real.is_relative_to(top) or ".git" in real.relative_to(top).parts:
                return link
    return None


def refuse_leaving(path: Path) -> None:
    """Raise `Refused` where a link of a checkout leads out of it: whoever opens a pull request could choose where."""
    if (link := leaving(path)) is not None:
        there = os.path.realpath(link)
        summary = f"is a link that leads out of its checkout, to {there}: a commit may have put it there"
        hint = "name the place itself (--state, --data, --out), or take the link away"
        raise Refused(Problem(str(link), summary, hint))


def ignores(path: Path, environ: Mapping[str, str]) -> bool | None:
    """Whether git would leave a path out of a commit; None where it does not say, True outside of a work tree."""
    real = Path(os.path.realpath(path.parent)) / path.name
    top = checkout(real.parent)
    if top is None:
        return True
    try:
        status = _ask(top, environ, "check-ignore", "--quiet", "--", str(real)).end().status
    except CannotRun:
        return None
    return {0: True, 1: False}.get(status)


def tracked(folder: Path, environ: Mapping[str, str]) -> str | None:
    """Name a file that lies in a folder, or is it, and is one of git's; None where there is none, or git does not say.

    Such a file is whatever the last one to write to the repository made of it.
    """
    real = Path(os.path.realpath(folder.parent)) / folder.name
    top = checkout(folder) if folder.is_dir() and not folder.is_symlink() else checkout(folder.parent)
    if top is None or not os.path.lexists(real):
        return None
    try:
        named = os.fspath(_as_it_lies(top, real))
        ended = _ask(top, environ, "--literal-pathspecs", "ls-files", "-z", "--", named).end()
    except (CannotRun, OSError):
        return None
    return os.fsdecode(ended.said.split(b"\0")[0]) or None if ended.status == 0 else None


def origins(path: Path, environ: Mapping[str, str]) -> frozenset[str]:
    """Return the addresses of other repositories that a path's checkout names; empty where git does not say."""
    top = checkout(path.parent)
    if top is None:
        return frozenset()
    try:
        said = _ask(
            top, environ, "config", "--local", "--no-includes", "-z", "--get-regexp", r"^remote\..*\.url$"
        ).end()
    except CannotRun:
        return frozenset()
    return frozenset(item.partition("\n")[2] for item in said.output.split("\0")[:-1])


def _as_it_lies(top: Path, path: Path) -> Path:
    """Spell a path below a work tree as its folders list it, which is how git names it: not all look at case.

    Raises OSError.
    """
    found = top
    for part in path.relative_to(top).parts:
        with os.scandir(found) as listed:
            names = {entry.name: entry.inode() for entry in listed}
        number = (found / part).lstat().st_ino
        found /= part if part in names else next((name for name in names if names[name] == number), part)
    return found


def added(directory: Path, environ: Mapping[str, str]) -> str | None:
    """Return all lines that commits added to a directory; empty without git, None where not every commit is here."""
    real = Path(os.path.realpath(directory))
    top = checkout(real)
    if top is None:
        return ""
    try:
        if _ask(top, environ, "rev-parse", "--is-shallow-repository").end().output != "false\n":
            return None
        ended = _ask(top, environ, "log", "-p", "--format=", "--unified=0", *_PATCH, "--", str(real)).end()
    except CannotRun:
        return None
    return None if ended.status else "\n".join(line[1:] for line in ended.output.split("\n") if line.startswith("+"))


class Revision:
    """The commit that a directory is at. Git is asked when it is made, and waited for when the name is wanted."""

    def __init__(self, directory: Path, read: Collection[str], environ: Mapping[str, str]) -> None:
        """``read`` are the files of desired state, by their names in the directory."""
        self._directory, self._read = Path(os.path.realpath(directory)), read
        self._asked: tuple[Child, ...] = ()
        self._name: str | None = None
        top = checkout(directory)
        if top is None:
            return
        self._below = os.fsencode(self._directory.relative_to(top)) + b"/" if self._directory != top else b""
        try:
            commit = _ask(top, environ, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
            within = ("--", os.fsdecode(self._below)) if self._below else ()
            tree = _ask(top, environ, "ls-tree", "-r", "-z", "--full-tree", "HEAD", *within)
        except CannotRun:
            return
        self._asked = (commit, tree)

    def name(self) -> str:
        """Name the commit, ``+`` behind it where a file of the directory is not as it is there; empty without git."""
        if self._name is None:
            self._name = self._told()
        return self._name

    def _told(self) -> str:
        answers = []
        for child in self._asked:
            with contextlib.suppress(CannotRun):
                answers.append(child.end())
        if len(answers) < len(self._asked) or not answers or any(answer.status for answer in answers):
            return ""
        commit, listed = answers[0].output.strip(), answers[1].said
        return commit[:SHOWN] + ("" if self._is_committed(listed) else "+")

    def _is_committed(self, listed: bytes) -> bool:
        """Whether all files that the commit has are as it has them, and no other one was read."""
        known = set()
        for line in listed.split(b"\0")[:-1]:
            facts, _, path = line.partition(b"\t")
            mode, kind, object_id = facts.decode().split()
            name = os.fsdecode(path.removeprefix(self._below))
            known.add(name)
            if kind == "blob" and not _is_blob(self._directory / name, mode, object_id):
                return False
        return known.issuperset(self._read)


def _is_blob(path: Path, mode: str, object_id: str) -> bool:
    """Whether a file has a blob's content, with whatever line ends."""
    try:
        link = mode == "120000"
        content = os.fsencode(path.readlink()) if link else files.read(path, _LARGEST)
    except (OSError, files.CannotRead):
        return False
    return object_id in {blob(content, len(object_id)), blob(content.replace(b"\r\n", b"\n"), len(object_id))}


def blob(content: bytes, length: int) -> str:
    """Return the name that git gives a file's content: SHA-1 or SHA-256, by the name's length in characters."""
    digest = hashlib.sha1 if length == 40 else hashlib.sha256  # noqa: PLR2004 - what names are made with in git
    return digest(b"blob %d\0" % len(content) + content).hexdigest()


def _ask(top: Path, environ: Mapping[str, str], *arguments: str) -> Child:
    place = (f"--git-dir={top / '.git'}", f"--work-tree={top}")
    return Child(GIT, ["git", *OPTIONS, *place, *arguments], environ, top, limit=_LIMIT)
