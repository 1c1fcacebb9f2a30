"""Whether a file with a secret is one of git's: then whoever has the repository has the secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reconciler import git
from reconciler.desired.load import Directory
from reconciler.desired.spec import references
from reconciler.problem import Problem, Severity


def tracked(directory: Directory, environ: Mapping[str, str]) -> Iterator[Problem]:
    """Yield a warning for each file of a ``{file: PATH}`` that git tracks; nothing of it is read."""
    seen: set[str] = set()
    for path, ref in references(directory.spec):
        if ref.source != "file" or ref.name in seen:
            continue
        seen.add(ref.name)
        if git.tracked(directory.path / ref.name, environ) is not None:
            place = directory.places.of(*path)
            where = f"{place}: {ref.name}" if place else ref.name
            hint = (
                f"git rm --cached {ref.name}, name it in .gitignore, and take another secret: commits keep the old one"
            )
            yield Problem(where, "holds a secret, and git tracks it", hint, Severity.WARNING)
