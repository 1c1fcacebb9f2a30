"""What of all that is live was once this directory's: what was applied from here, and what its commits declared.

A mark says which stack wrote a record, and not which directory; an account bears no mark at all.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from reconciler.journal import Entry
from reconciler.resources import Record, Resource

_LIMIT = 10.0  # seconds
_MOST = 1 << 25  # bytes of changes that are read, the newest first
_OPTIONS = (
    *("-c", "safe.bareRepository=explicit", "-c", "core.fsmonitor=false", "-c", "protocol.allow=never"),
    *("-c", f"core.hooksPath={os.devnull}", "-c", f"core.attributesFile={os.devnull}"),
)
_GIVEN = {"LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1", "GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none"}


def applied(entries: Iterable[Entry], asked: Collection[Resource]) -> frozenset[Resource]:
    """Return those that an apply from here made, adopted or changed, and did not remove again; records by value."""
    contents, others = set[tuple[str, object]](), dict[str, bool]()
    for row in (row for entry in entries for row in entry.written if row.status in ("done", "unknown")):
        address = row.address.partition("[")[0]
        others[address] = row.actions != ("delete",)
        contents.add((address, (row.after or {}).get("content")))
    return frozenset(
        item
        for item in asked
        if ((item.address, item.content) in contents if isinstance(item, Record) else others.get(item.address, False))
    )


def committed(text: str, asked: Collection[Resource]) -> frozenset[Resource]:
    """Return those that a text of YAML seems to declare, however it is written: by name and value, or by address."""
    words = frozenset(word.strip(":") for word in re.split(r"""[\s"'{}\[\],]+""", text.lower()))
    squeezed = _squeezed(text)
    return frozenset(
        item
        for item in asked
        if (_declares(words, squeezed, item) if isinstance(item, Record) else item.address.partition("/")[2] in words)
    )


def _declares(words: Collection[str], squeezed: str, record: Record) -> bool:
    key, found, _ = record.name.partition("._domainkey")
    if found and key in words:  # the record of a key follows from its selector
        return True
    values = [str(value) for _, value in record.data or () if isinstance(value, str)]
    value = max(values, key=len) if values else str(record.content)
    return _squeezed(value)[:60] in squeezed and (record.name == "@" or record.name in words)


def _squeezed(text: str) -> str:
    """Leave out what folding and quoting add to a text."""
    return re.sub(r"""[\s"'\\]+""", "", text).lower()


def commits(directory: Path, environ: Mapping[str, str]) -> str | None:
    """Return all lines that commits added to a directory; empty without git, None where not every commit is here.

    Others write to the repository: nothing that it configures runs, and nothing is fetched.
    """
    real = Path(os.path.realpath(directory))
    top = next((above for above in (real, *real.parents) if os.path.lexists(above / ".git")), None)
    if top is None:
        return ""
    if _git(top, environ, "rev-parse", "--is-shallow-repository") != "false\n":
        return None
    options = (
        "--no-show-signature",
        "--no-ext-diff",
        "--no-textconv",
        "--submodule=short",
        "--no-color",
        "--no-renames",
    )
    said = _git(top, environ, "log", "-p", "--format=", "--unified=0", *options, "--", str(real))
    return said and "\n".join(line[1:] for line in said.split("\n") if line.startswith("+"))


def _git(top: Path, environ: Mapping[str, str], *arguments: str) -> str | None:
    passed = {name: environ[name] for name in ("PATH", "HOME") if name in environ}
    place = (f"--git-dir={top / '.git'}", f"--work-tree={top}")
    try:
        done = subprocess.run(
            ["git", "--no-pager", *_OPTIONS, *place, *arguments],
            cwd=top,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_LIMIT,
            check=False,
            env=passed | _GIVEN,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout[:_MOST].decode(errors="replace") if done.returncode == 0 else None
