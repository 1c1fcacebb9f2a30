"""Links from addresses to where they are declared: file and line, at GitHub or as a path in the repository."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath, PurePosixPath
from urllib.parse import quote

from reconciler.desired.load import Directory, place

_SERVER = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?")
_REPOSITORY = re.compile(r"[\w.-]{1,100}/[\w.-]{1,100}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{7,64}")


def actions_base(environ: Mapping[str, str], revision: str) -> str:
    """Return where GitHub shows the files of a revision, as Actions tells a job; empty elsewhere.

    https://docs.github.com/en/actions/reference/workflows-and-actions/variables
    """
    server, repository = environ.get("GITHUB_SERVER_URL", ""), environ.get("GITHUB_REPOSITORY", "")
    commit = revision.removesuffix("+") or environ.get("GITHUB_SHA", "")
    if not (_SERVER.fullmatch(server) and _REPOSITORY.fullmatch(repository) and _COMMIT.fullmatch(commit)):
        return ""
    return f"{server}/{repository}/blob/{commit}"


def is_base(text: str) -> bool:
    """Whether links may begin with a text: the URL of where a repository's top is shown."""
    return re.fullmatch(r"https?://[A-Za-z0-9.:/_~%@+-]+", text) is not None


def links(directory: Directory, addresses: Iterable[str], folder: PurePath, base: str = "") -> dict[str, str]:
    """Map those of the addresses that are declared to a link: to the line of their file.

    ``folder`` is the directory's path in the repository, ``base`` where its top is shown; without it links are
    relative. A file's name was chosen by others: nothing of it ends a link or makes it lead elsewhere.
    """
    found = {}
    for address in addresses:
        where = place(directory, address)
        if where is not None and not {"..", "/", "//"} & set(PurePosixPath(where.file).parts):
            path = quote((folder / where.file).as_posix(), safe="/")
            found[address] = f"{base.rstrip('/')}/{path}#L{where.line}" if base else f"{path}#L{where.line}"
    return found
