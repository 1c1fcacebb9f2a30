"""From a directory to a `Spec` and the places of everything in it; every mistake of all files is reported at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from collections.abc import Mapping as Map
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from reconciler.address import Address
from reconciler.desired import checks, files, objects
from reconciler.desired.apps import APPS
from reconciler.desired.checks import Declared, contradictions, near
from reconciler.desired.raw_keys import list_of
from reconciler.desired.spec import Spec
from reconciler.desired.spec.mail import UNSAID, Mail
from reconciler.desired.spec.scalars import REQUIRED, Model, is_free
from reconciler.desired.yaml import (
    MOST_MISTAKES,
    Expansion,
    Finding,
    Mapping,
    Mistake,
    Node,
    Scalar,
    Sequence,
    dotted,
    parse,
    value,
)
from reconciler.desired.yaml import Path as Steps
from reconciler.names import relative
from reconciler.problem import InvalidDirectory, Place, Problem, Severity, printable
from reconciler.resources import SECRET_FILES

__all__ = ["Directory", "Place", "Places", "declaration", "explain", "load", "place"]

# Maps whose entries may be spread over files, and `smtp`, which holds two of them.
_MAPS = frozenset((name,) for name, declared in Spec.model_fields.items() if isinstance(declared.default, dict))
_SPREAD = _MAPS | {("smtp",), ("smtp", "providers"), ("smtp", "consumers")}


class Places:
    """Where everything stands: ``places.of("dns", "mana.how", 2, "ttl")``. It keeps nodes and looks when asked."""

    def __init__(self, root: Mapping) -> None:
        self._root = root

    def of(self, *path: str | int) -> Place | None:
        """Say where something stands: a scalar or a list's entry itself, anything else by its key."""
        place, _, found = self.near(path)
        return place if found else None

    def texts(self) -> Iterator[str]:
        """Yield every key and value, as it is meant; what many aliases stand for once."""
        nodes, seen = list[Node]([self._root]), set[int]()
        while nodes:
            node = nodes.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, Mapping):
                yield from node.items
                nodes += node.items.values()
            elif isinstance(node, Sequence):
                nodes += node.items
            elif isinstance(node, Scalar):
                yield node.text

    def near(self, path: Steps, *, key: bool = False) -> tuple[Place, Steps, bool]:
        """Say where something stands, or what it is missing from; the path as written; and whether it is there.

        ``key`` asks for the place of the last key in place of its value's. Steps that only the models have (the
        index of what may be one thing or a list of them) are left out of the path.
        """
        node: Node = self._root
        place, shown = node.place, list[str | int]()
        for at, step in enumerate(path):
            if isinstance(node, Mapping) and isinstance(step, str):
                shown.append(step)
                if step not in node.items:
                    return place, (*shown, *path[at + 1 :]), False
                child = node.items[step]
                by_key = not isinstance(child, Scalar) or child.null or (key and at == len(path) - 1)
                place = node.key_place(step) if by_key else child.place
            elif isinstance(node, Sequence) and isinstance(step, int):
                shown.append(step)
                if step >= len(node.items):
                    return place, tuple(shown), False
                child = node.items[step]
                place = child.place
            else:
                continue
            node = child
        return place, tuple(shown), True


@dataclass(frozen=True, slots=True)
class Directory:
    """A valid directory. ``files`` are relative to ``path``; ``digest`` is the SHA-256 of their names and contents.

    ``text`` is all they say as it is written, for who must know what is public anyway. ``given`` are those that do not
    lie there.
    """

    path: Path
    spec: Spec
    places: Places
    files: tuple[str, ...]
    digest: str
    text: str = field(repr=False)
    given: Map[str, bytes] = field(default_factory=lambda: MappingProxyType({}), repr=False)


def load(path: Path, overlay: Map[str, bytes] = MappingProxyType({}), *, alone: bool = False) -> Directory:
    """Read a directory. Raises `InvalidDirectory` with every problem of all its files, by file and line.

    ``overlay`` holds files as they are going to be, by their names in the directory: it counts in place of them, and
    ``alone`` in place of all that is there.
    """
    mistakes: list[Mistake] = []
    read = files.read_files(path, mistakes, overlay, alone=alone)
    lost = bool(mistakes)
    used, root, unread = _join_files(read, mistakes)
    places, spec = Places(root), None
    if used:
        spec = _validate(_values(root), places, mistakes, complete=not (lost or unread))
    if mistakes or spec is None:
        raise InvalidDirectory(*_problems(mistakes, read))
    given = {file.name: file.content for file in used if file.name in overlay}
    return replace(_directory(path, spec, places, used), given=given)


def salvage(path: Path) -> tuple[Directory | None, tuple[Problem, ...]]:
    """Read as much of a directory as is valid by itself, and return every mistake that `load` would raise with it.

    What is wrong, and what relies on that, counts as not there; None where nothing is left.
    """
    try:
        return load(path), ()
    except InvalidDirectory as error:
        problems = error.problems
    used, root, _ = _join_files(files.read_files(path, []), [])
    while used:
        values = _values(root)
        spec, wrong = _judged(values)
        if spec is not None and not wrong:
            return _directory(path, spec, Places(root), [file for file in used if _is_text(file)]), problems
        entries = {entry for steps in wrong if (entry := _entry(values, steps))}
        if not entries:
            break
        for entry in sorted(entries, key=_position, reverse=True):
            _take_out(root, entry)
    return None, problems


def _judged(values: Any) -> tuple[Spec | None, set[Steps]]:
    """Build the models; return paths to what is wrong in them, or, where nothing is, to what does not fit together."""
    try:
        spec = Spec.model_validate(values)
    except ValidationError as error:
        return None, {_steps(details["loc"]) for details in error.errors(include_url=False, include_input=False)}
    return spec, {finding.path for finding in contradictions(spec, _declared(values))}


def _is_text(file: files.File) -> bool:
    return files.text(file, []) is not None


def _take_out(root: Mapping, path: Steps) -> None:
    node: Node = root
    for step in path[:-1]:
        node = node.items[step]  # type: ignore[attr-defined]
    if isinstance(node, Mapping):
        node.drop(str(path[-1]))
    elif isinstance(node, Sequence):
        del node.items[int(path[-1])]


def _directory(path: Path, spec: Spec, places: Places, used: Iterable[files.File]) -> Directory:
    text = "\n".join(file.content.decode() for file in used)
    return Directory(path, spec, places, tuple(file.name for file in used), _digest(used), text)


def doubts(directory: Directory) -> tuple[Problem, ...]:
    """Return a warning of each thing in a valid directory that is most likely a slip of the pen."""
    findings = islice(checks.doubts(directory.spec), MOST_MISTAKES)
    found = (_locate(finding, directory.places, {}).problem() for finding in findings)
    return tuple(replace(item, severity=Severity.WARNING) for item in found)


def _problems(mistakes: list[Mistake], read: list[files.File]) -> Iterator[Any]:
    if not mistakes:  # only secrets, or only comments
        names = ", ".join(file.name for file in read[:3])
        mistakes = [Mistake(Place(names), (), "say nothing of a desired state", "write one with `reconciler init`")]
    seen = set()
    for mistake in sorted(
        set(mistakes), key=lambda item: (item.place, [str(step) for step in item.path], item.summary)
    ):
        problem = mistake.problem()
        if (problem.where, problem.summary) not in seen:
            seen.add((problem.where, problem.summary))
            yield problem


def _digest(used: Iterable[files.File]) -> str:
    digest = hashlib.sha256()
    for file in used:
        digest.update(f"{file.name}\0{len(file.content)}\0".encode())
        digest.update(file.content)
    return digest.hexdigest()


# --------------------------------------------------------------------------------------------- many files, one tree
def _join_files(read: list[files.File], mistakes: list[Mistake]) -> tuple[list[files.File], Mapping, bool]:
    """Put the files' maps together. Those with a top-level ``sops`` key are secrets, whatever else is in them.

    Returns the files that are desired state, the whole, and whether a file could not be understood.
    """
    used: list[files.File] = []
    unread, expansion = False, Expansion()
    root: Mapping | None = None
    for file in read:
        own: list[Mistake] = []
        text = files.text(file, own)
        node = parse(text, file.name, own, expansion=expansion) if text is not None else None
        if isinstance(node, Mapping) and "sops" in node.items:
            continue
        mistakes.extend(own)
        unread = unread or (node is None and bool(own))
        used.append(file)
        root = root or Mapping(file.name, 0)
        if isinstance(node, Mapping):
            _join(root, node, (), mistakes)
        elif node is not None and not (isinstance(node, Scalar) and node.null):
            mistakes.append(Mistake(node.place, (), "must be a map", "write KEY: VALUE lines, such as accounts:"))
    return used, root or Mapping(".", 0), unread


def _join(into: Mapping, node: Mapping, path: Steps, mistakes: list[Mistake]) -> None:
    for (key, item), mark in zip(node.items.items(), node.marks, strict=True):
        here, spread = (*path, key), (*path, key) in _SPREAD
        there = into.items.get(key)
        if there is None:
            into.put(key, mark, _copy(item, here) if spread else item)
        elif spread and isinstance(item, Mapping) and isinstance(there, Mapping):
            _join(there, item, here, mistakes)
        elif spread and isinstance(item, Scalar) and item.null:
            continue
        elif spread and isinstance(there, Scalar) and there.null:
            into.items[key] = _copy(item, here)
            into.marks[list(into.items).index(key)] = mark
        elif not is_free(key):
            hint = f"the first is at {into.key_place(key)}: keep one"
            mistakes.append(Mistake(node.key_place(key), here, "stands twice", hint))


def _copy(node: Node, path: Steps) -> Node:
    """Copy a map that others are going to be joined to: an alias may stand for it elsewhere."""
    if not isinstance(node, Mapping):
        return node
    copy = Mapping(node.file, node.mark)
    _join(copy, node, path, [])
    return copy


def _values(root: Mapping) -> dict[str, Any]:
    values: dict[str, Any] = value(root)
    stalwart = root.items.get("stalwart")
    if isinstance(stalwart, Mapping) and "objects" in stalwart.items:  # they go on as JSON
        values["stalwart"]["objects"] = value(stalwart.items["objects"], typed=True)
    return values


# -------------------------------------------------------------------------------------------------- tree to models
def _validate(values: dict[str, Any], places: Places, mistakes: list[Mistake], *, complete: bool) -> Spec | None:
    """Build the models and check them as a whole. Wrong entries are left out, so that the rest is checked, too.

    Unless ``complete``, what is not there may stand in a file that can't be read: that is no mistake then.
    """
    declared = _declared(values)
    kept: dict[Steps, list[int]] = {}
    try:
        spec = Spec.model_validate(values)
    except ValidationError as error:
        wrong = list(islice(explain(error, places), MOST_MISTAKES + 1))
        mistakes.extend(mistake for mistake, path in wrong if complete or path != ("stack",) or "stack" in values)
        if len(wrong) > MOST_MISTAKES:
            return None
        kept = _leave_out(values, {path for _, path in wrong})
        try:
            spec = Spec.model_validate(values)
        except ValidationError:
            return None
    found = (finding for finding in contradictions(spec, declared) if complete or not finding.absent)
    mistakes.extend(_locate(finding, places, kept) for finding in islice(found, MOST_MISTAKES))
    return spec


def _declared(values: Any) -> Declared:
    mail = {kind: _names(values, kind) for kind in Mail.model_fields}
    return Declared(mail, _names(values, "smtp", "providers"))


def _names(values: Any, *path: str) -> frozenset[str]:
    for step in path:
        values = values.get(step) if isinstance(values, dict) else None
    return frozenset(values) if isinstance(values, dict) else frozenset()


def explain(error: ValidationError, places: Places, root: type[Model] = Spec) -> Iterator[tuple[Mistake, Steps]]:
    """Yield what is wrong with a model, ``root``, each with the path as it was written; ``places`` are of its YAML."""
    misplaced = set[Steps]()
    for details in error.errors(include_url=False, include_input=False):
        path = _steps(details["loc"])
        if (word := _misplaced(path, root)) is not None:
            if word not in misplaced:
                place, shown, _ = places.near(word, key=True)
                hint = "indent it one level more, below the entry that it belongs to"
                yield Mistake(place, shown, "is a word of an entry, and stands among the entries", hint), word
            misplaced.add(word)
            continue
        key = details["type"] == "extra_forbidden" or details["loc"][-1:] == ("[key]",)
        for within, summary, hint in _wording(details, path, root):
            place, shown, _ = places.near((*path, *within), key=key or bool(within))
            yield Mistake(place, shown, summary, hint), path


def _steps(location: tuple[str | int, ...]) -> Steps:
    return tuple(step for step in location if step != "[key]")


def _wording(details: ErrorDetails, path: Steps, root: type[Model]) -> Iterator[tuple[Steps, str, str]]:
    """Yield what is wrong: where from the path on, a summary and a hint."""
    kind, context = details["type"], details.get("ctx", {})
    if kind == "wrong":
        yield from context["errors"]
    elif kind == "missing":
        yield (), REQUIRED, f"write {path[-1]}: ..."
    elif kind == "extra_forbidden":
        known = _known(path[:-1], root)
        said = UNSAID.get((str(path[0]), str(path[-1])), "") if len(path) == 3 else _belonging(path)  # noqa: PLR2004 (of an entry)
        yield (), "is not known", said or near(str(path[-1]), known) or _listing(known)
    elif kind == "literal_error":
        known = context["expected"].replace("'", "")
        yield (), f"must be {known}", f"write {path[-1]}: {known.replace(' or ', ', ').partition(', ')[0]}"
    else:
        yield (), details["msg"], ""


def _belonging(path: Steps) -> str:
    """Say where a key belongs that no word of the format is like: an address that stands at the left."""
    return "indent it below accounts:, groups: or lists:" if len(path) == 1 and "@" in str(path[0]) else ""


def _listing(known: list[str]) -> str:
    return f"known are {', '.join(known)}" if known else ""


def _misplaced(path: Steps, root: type[Model]) -> Steps | None:
    """Return the path to a word of an entry's that stands where the names of entries do, if ``path`` leads there.

    That is what one level less of indentation makes of it.
    """
    model: type[Model] | None = root
    named = False
    for length, step in enumerate(path, 1):
        fields = _fields(model) if model else {}
        if isinstance(step, int):
            continue
        if named:
            if step in fields:
                return path[:length]
            named = False
        elif step in fields:
            model, named = _model_in(fields[step]), _holds_names(fields[step])
        else:
            return None
    return None


def _holds_names(annotation: Any) -> bool:
    """Whether what is annotated is a map from names of the user's own."""
    origin = get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, Map):
        return True
    return any(map(_holds_names, get_args(annotation)))


def _known(path: Steps, root: type[Model]) -> list[str]:
    """Name the keys of the map that a path leads to."""
    model: type[Model] | None = root
    for step in path:
        if model is not None and step in (fields := _fields(model)):
            model = _model_in(fields[str(step)])
    return list(_fields(model)) if model else []


def _fields(model: type[Model]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _model_in(annotation: Any) -> type[Model] | None:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


# ----------------------------------------------------------------------------------------- leaving wrong entries out
_ENTRY_DEPTH = {"accounts": 2, "dkim": 3, "dns": 3, "smtp": 3, "stalwart": 2, "targets": 2, "policy": 1}


def _leave_out(values: dict[str, Any], wrong: set[Steps]) -> dict[Steps, list[int]]:
    """Take the entries out that paths lead into. Returns which positions are left of the lists they were in."""
    entries = {entry for path in wrong if (entry := _entry(values, path))}
    kept: dict[Steps, list[int]] = {}
    for path in sorted(entries, key=_position, reverse=True):
        parent: Any = values
        for step in path[:-1]:
            parent = parent[step]
        if isinstance(parent, list):
            kept.setdefault(path[:-1], list(range(len(parent)))).remove(path[-1])  # type: ignore[arg-type]
        del parent[path[-1]]
    if not isinstance(values.get("stack"), str):
        values["stack"] = "x"  # only the length of comments depends on it
    return kept


def _position(path: Steps) -> list[str]:
    return [str(step).rjust(9) for step in path]


def _entry(values: Any, path: Steps) -> Steps:
    """Shorten a path to the entry it leads into, as far as that exists."""
    entry: list[str | int] = []
    for step in path[: _ENTRY_DEPTH.get(str(path[0]), 2)]:
        there = isinstance(values, dict) and step in values
        there = there or (isinstance(values, list) and isinstance(step, int) and step < len(values))
        if not there:
            break
        entry.append(step)
        values = values[step]
    return tuple(entry)


def _locate(finding: Finding, places: Places, kept: dict[Steps, list[int]]) -> Mistake:
    place, shown, _ = places.near(_original(finding.path, kept))
    other, other_shown, _ = places.near(_original(finding.other, kept))
    summary = finding.summary.replace("{other}", f"{other} ({dotted(other_shown)})")
    return Mistake(place, shown, printable(summary, 400), finding.hint)


def _original(path: Steps, kept: dict[Steps, list[int]]) -> Steps:
    for container, positions in kept.items():
        depth = len(container)
        if path[:depth] == container and len(path) > depth:
            path = (*container, positions[int(path[depth])], *path[depth + 1 :])
    return path


# ------------------------------------------------------------------------------- from an address to where it stands
def declaration(directory: Directory, address: str) -> str:
    """Name file and line, of several candidates all; empty where the directory says nothing of that address."""
    found = [directory.places.of(*path) for path in paths(directory.spec, address)]
    return ", ".join(dict.fromkeys(str(item) for item in found if item is not None))


def paths(spec: Spec, address: str) -> tuple[Steps, ...]:
    """Return the paths to what says something of an address, each once."""
    return tuple(dict.fromkeys(_paths(spec, address)))


def place(directory: Directory, address: str) -> Place | None:
    """Return where an address is declared first; None where the directory says nothing of it."""
    found = (directory.places.of(*path) for path in paths(directory.spec, address))
    return next((item for item in found if item is not None), None)


def _paths(spec: Spec, address: str) -> Iterator[Steps]:
    named = Address.parse(address)
    match named.kind, named.parts:
        case kind, [name] if f"{kind}s" in spec.addressees:
            yield f"{kind}s", name
        case "domain", [name]:
            yield from _domain(spec, name)
        case "dkim", [domain, selector]:
            yield from _key(spec, domain, selector)
        case "dns", [zone, type, name]:
            yield from _record(spec, zone, type, name)
        case "smtp", [service, *name]:
            yield from _variable(spec, service, "/".join(name))
        case "stalwart", ["allowed_ips", *_]:  # a network is an entry of a list
            yield "stalwart", "allowed_ips"
        case "stalwart", ["objects", _]:
            yield from _object(spec, "/".join(named.parts))
        case "stalwart", words:
            yield ("stalwart", *words)
            if base := list_of(words[-1]):  # a YAML list
                yield ("stalwart", *words[:-1], base)


def _domain(spec: Spec, name: str) -> Iterator[Steps]:
    """A domain follows from what is at home in it: its entry, the setting, the first account, group, list, or a key."""
    if name in spec.domains:
        yield "domains", name
    if spec.stalwart.default_domain == name:
        yield "stalwart", "default_domain"
    homes = [(kind, key) for kind, entries in spec.addressees.items() for key in entries]
    yield from [home for home in homes if home[1].endswith(f"@{name}")][:1]
    if name in spec.dkim:
        yield "dkim", name


def _key(spec: Spec, domain: str, selector: str) -> Iterator[Steps]:
    for index, key in enumerate(spec.dkim.get(domain, ())):
        if key.selector == selector:
            yield "dkim", domain, index


def _record(spec: Spec, zone: str, type: str, name: str) -> Iterator[Steps]:
    for index, record in enumerate(spec.dns.get(zone, ())):
        if record.type.upper() == type and relative(record.name, zone) == name:
            yield "dns", zone, index
    for label, provider in spec.smtp.providers.items():
        for index, record in enumerate(provider.dns.get(zone, ())):
            if record.type.upper() == type and relative(record.name, zone) == name:
                yield "smtp", "providers", label, "dns", zone, index
    selector, dkim, below = name.partition("._domainkey")
    if dkim:
        yield from _key(spec, f"{below.strip('.')}.{zone}".lstrip("."), selector)


def _object(spec: Spec, named: str) -> Iterator[Steps]:
    for name, entries in spec.stalwart.objects.items():
        for entry, fields in entries.items():
            for field_name in fields:
                if objects.word(name, entry, field_name) == named:
                    yield "stalwart", "objects", name, entry, field_name


def _variable(spec: Spec, service: str, name: str) -> Iterator[Steps]:
    if (consumer := spec.smtp.consumers.get(service)) is not None:
        secret = name.removeprefix(SECRET_FILES)
        if name in consumer.env:
            yield "smtp", "consumers", service, "env", name
        elif secret in consumer.secrets:
            yield "smtp", "consumers", service, "secrets", secret
        elif consumer.app is not None and name in APPS[consumer.app].variables:
            yield "smtp", "consumers", service, "app"
    for index, link in enumerate(spec.smtp.links):
        if f"{service}.{name}" in link.ends:
            yield "smtp", "links", index
