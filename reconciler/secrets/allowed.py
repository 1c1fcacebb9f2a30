"""Which references may be read at all: who starts the reconciler says so, in ``RECONCILER_SECRETS``.

The directory is written by whoever opens a pull request, and names secrets as it likes. Patterns of paths are held
against what a path leads to in the end: neither ``..`` nor a link gets around them, and a folder that a pattern names
is taken as it is written, since a link in its place may be the pull request's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from reconciler import files
from reconciler.problem import Problem, ReconcilerError
from reconciler.resources import SecretRef

VARIABLE = "RECONCILER_SECRETS"
_SOURCES = ("env", "credential", "file", "sops", "age")
_NAMED = ("env", "credential")  # by a name, not by a path
_GLOB = re.compile(r"\*\*|\*|\?|[^*?]+")
_MEANS = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may be read: the patterns by their source; None where everything may. ``base`` is what paths are seen from.

    A path's pattern names a file, or a folder with all that is in it; ``*`` and ``?`` match within one name, ``**``
    also across folders. Of ``sops:FILE#KEY`` the key may be left out, for all keys.
    """

    base: Path
    patterns: tuple[tuple[str, str], ...] | None = None

    @classmethod
    def read(cls, base: Path | None, environ: Mapping[str, str]) -> Allowed:
        """Read the variable; one that is set and empty allows nothing. Raises `ReconcilerError` for what is none."""
        base, text = base or Path(), environ.get(VARIABLE)
        if text is None:
            return cls(base)
        return cls(base, tuple(_pattern(item) for item in text.replace(",", " ").split()))

    def __call__(self, ref: SecretRef) -> bool:
        """Whether a reference may be read."""
        if self.patterns is None:
            return True
        own = [pattern for source, pattern in self.patterns if source == ref.source]
        if ref.source in _NAMED:
            return any(fnmatchcase(ref.name, pattern) for pattern in own)
        path, _, key = ref.name.partition("#") if ref.source == "sops" else (ref.name, "", "")
        real = str(self.path(path))
        return any(self._covers(*pattern.partition("#")[::2], real, key) for pattern in own)

    def path(self, name: str) -> Path:
        """Return the path to read; where not everything may be read, the one that was judged, without any link."""
        path = self.base / name
        return files.plain(path) if self.patterns is None else Path(os.path.realpath(path))

    def _covers(self, pattern: str, key_pattern: str, real: str, key: str) -> bool:
        folder = os.path.normpath(os.path.join(os.path.realpath(self.base), pattern))  # noqa: PTH118 (keeps links)
        glob = "".join(_MEANS.get(part) or re.escape(part) for part in _GLOB.findall(folder))
        within = re.fullmatch(f"{glob}(/.*)?", real, re.DOTALL) is not None
        return within and fnmatchcase(key, key_pattern or "*")


def _pattern(text: str) -> tuple[str, str]:
    source, colon, pattern = text.partition(":")
    if not colon or not pattern or source not in _SOURCES:
        hint = (
            "write env:NAME, credential:NAME, file:FOLDER/, sops:FOLDER/ or age:FOLDER/, with blanks or commas between"
        )
        raise ReconcilerError(Problem(VARIABLE, "holds what is no pattern of references", hint))
    return source, pattern
