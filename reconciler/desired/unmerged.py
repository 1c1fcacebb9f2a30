"""A directory that is not merged, as far as it counts before that: what decides whom to trust stays the base's. Pure.

Whoever opens a pull request writes the head. So which systems are spoken to, how far a plan may go, and which secrets
are read is what the base says; what the head says otherwise is told and never used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reconciler.desired import objects
from reconciler.desired.checks import Declared, contradictions
from reconciler.desired.comparison import compare
from reconciler.desired.derivation import resolve
from reconciler.desired.load import Directory
from reconciler.desired.spec import Spec, references
from reconciler.desired.spec.mail import Mail
from reconciler.desired.spec.scalars import Model
from reconciler.desired.yaml import dotted
from reconciler.names import host
from reconciler.plan import Unmerged
from reconciler.problem import Place, Problem, ReconcilerError
from reconciler.resources import SecretRef

_BASES = ("stack", "targets", "policy", "daemon", "router")
"""What of a spec is the base's."""

_Path = tuple[str, ...]
_Place = tuple[_Path, SecretRef]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A directory to be planned before it is merged, and what to tell of it.

    ``commit`` is the head's, ``base`` what counts. ``unmerged`` is None for what is merged. ``zones`` are the names
    that the base has in DNS: no others are asked for. ``held`` are systems that can't be asked, with the reason,
    ``problems`` what else there is to know.
    """

    directory: Directory
    commit: str
    base: Spec
    unmerged: Unmerged | None = None
    zones: frozenset[str] = frozenset()
    held: Mapping[str, Problem] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Doubtful:
    """References that do not lead to the base's files: ``unlike`` in the head, ``elsewhere`` in neither of the two."""

    unlike: frozenset[SecretRef] = frozenset()
    elsewhere: frozenset[SecretRef] = frozenset()


def candidate(base: Directory, head: Directory, commits: tuple[str, str], doubtful: Doubtful) -> Candidate:
    """Return a head as it is planned before its merge: ``path`` and the files that it leads to are the base's.

    ``commits`` are those of the two. A reference is held, and so never read, unless the base has it at the same place,
    and the same file. Raises `ReconcilerError` where what the head says does not go with what the base says.
    """
    known = frozenset(_places(base.spec, ()))

    def own(_: _Path, ref: SecretRef) -> SecretRef:
        """An account's password, in what is the base's, is the one that the base says."""
        found = resolve(base.spec, ref)
        return replace(found, held=found in doubtful.elsewhere)

    def held(path: _Path, ref: SecretRef) -> SecretRef:
        apart = ref in doubtful.unlike or ref in doubtful.elsewhere
        return replace(ref, held=apart or (path, ref) not in known)

    spec = head.spec.model_copy(update={name: _mapped(getattr(base.spec, name), (name,), own) for name in _BASES})
    parts = {name: _mapped(value, (name,), held) for name, value in spec if name not in _BASES}
    spec = spec.model_copy(update={name: part for name, part in parts.items() if part is not getattr(spec, name)})
    _check(spec, head)
    unread: dict[SecretRef, Place | None] = {}
    for path, ref in references(spec):
        if ref.held:
            unread.setdefault(ref, head.places.near(path)[0])
    told = None
    if commits[0] != commits[1]:
        differences = (item for item in compare(base, head).differences if item.kind in _BASES)
        told = Unmerged(*commits, tuple(differences), tuple(unread.items()))
    directory = replace(base, spec=spec, places=head.places, files=head.files, digest=head.digest)
    directory = replace(directory, text=f"{base.text}\n{head.text}")
    return Candidate(directory, commits[1], base.spec, told, frozenset(_zones(base.spec)))


def _check(spec: Spec, head: Directory) -> None:
    names = {kind: frozenset(getattr(spec, kind)) for kind in Mail.model_fields}
    found = list(contradictions(spec, Declared(names, frozenset(spec.smtp.providers))))
    if found:
        hint = (
            "it needs what the head says of targets, policy or daemon, which counts once it is merged: merge that first"
        )
        places = ((item, *head.places.near(item.path)) for item in found)
        raise ReconcilerError(
            *(
                Problem(f"{place}: {dotted(path)}", item.summary.replace("{other}", "another one"), hint)
                for item, place, path, _ in places
            )
        )


def _zones(spec: Spec) -> Iterator[str]:
    yield from map(host, spec.dns)
    yield from map(host, spec.dkim)


def _places(value: Any, path: _Path) -> Iterator[_Place]:
    """Yield each reference with its path; the position in a list does not count."""
    found: list[_Place] = []

    def note(path: _Path, ref: SecretRef) -> SecretRef:
        found.append((path, ref))
        return ref

    _mapped(value, path, note)
    yield from found


def _mapped(value: Any, path: _Path, change: Callable[[_Path, SecretRef], SecretRef]) -> Any:
    """Return a value with other references in place of those in it."""
    if isinstance(value, SecretRef):
        return change(path, value)
    if isinstance(value, Model):
        parts = {name: _mapped(item, (*path, name), change) for name, item in value}
        changed = {name: item for name, item in parts.items() if item is not getattr(value, name)}
        return value.model_copy(update=changed) if changed else value
    if isinstance(value, Mapping):
        parts = {name: _mapped(item, (*path, str(name)), change) for name, item in value.items()}
        same = all(parts[name] is item for name, item in value.items())
        return value if same else objects.Parts(parts) if isinstance(value, objects.Parts) else parts
    if isinstance(value, tuple):
        made = tuple(_mapped(item, path, change) for item in value)
        return value if all(new is old for new, old in zip(made, value, strict=True)) else made
    return value
