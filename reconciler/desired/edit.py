"""Edits the YAML as a person would: a key is added, or its stage changed, and nothing else moves.

The text is spliced where the parser's events say that a thing stands, and never written anew: a round trip through
nodes would realign comments and rewrap lines. What comes out is read again before anything is replaced, and must say
what was said before but for the edits: whatever an anchor or a merge would change besides is refused.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import events

from reconciler import files as disk
from reconciler.desired.load import Directory, load
from reconciler.desired.spec import Spec
from reconciler.desired.spec.mail import Key
from reconciler.desired.yaml import scan
from reconciler.problem import InvalidDirectory, LeaseHeld, Problem, ReconcilerError
from reconciler.resources import SecretRef

NEW_FILE = "dkim.yaml"

Value = str | dt.date | SecretRef
Facts = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class AddKey:
    """A new entry below ``dkim.DOMAIN``; ``domain`` as the directory writes it, ``facts`` in the order of the YAML."""

    domain: str
    facts: Facts


@dataclass(frozen=True, slots=True)
class SetKey:
    """Other values for fields of a declared key."""

    domain: str
    selector: str
    facts: Facts


Edit = AddKey | SetKey


@dataclass(frozen=True, slots=True)
class Edited:
    """A directory as it is going to be. ``files`` are what is there now (None: nothing) and what will be, by name."""

    directory: Directory
    files: Mapping[str, tuple[bytes | None, bytes]] = field(repr=False)

    def write(self) -> None:
        """Replace the files, each at once and whole. Raises `ReconcilerError`; what then is there is as it was."""
        for name, (before, after) in self.files.items():
            path = Path(os.path.realpath(self.directory.path / name))  # a link inside the directory stays one
            if _content(path) != before:
                raise ReconcilerError(Problem(name, "was changed meanwhile, so nothing was written", "run it again"))
            try:
                if before is None:
                    disk.create(path, after, disk.usual_mode())
                else:
                    disk.replace(path, after)
            except OSError as error:
                hint = "let there be room, and reconciler's user write it; then run it again"
                raise ReconcilerError(Problem(str(path), f"can't be written: {error.strerror}", hint)) from None


@contextlib.contextmanager
def editing(path: Path) -> Iterator[Directory]:
    """Yield a directory as it is, and let nobody else edit it until what follows from that is written.

    Raises `LeaseHeld` where another command takes too long, and as `load` does.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(disk.locked(path))
        except BlockingIOError:
            raise LeaseHeld(Problem(str(path), "another command is editing it", "wait for it to end")) from None
        except OSError:  # what is wrong with it, `load` says better
            held.close()
        yield load(path)


def edit(directory: Directory, edits: Sequence[Edit]) -> Edited:
    """Return what edits make of a directory; nothing is written yet.

    Raises `InvalidDirectory` where it would not be valid any more, and `ReconcilerError` where an edit can't be made
    without changing something else; both say what to write by hand.
    """
    files: dict[str, tuple[bytes | None, bytes]] = {}
    for one in edits:
        name = _file(directory, one.domain, files)
        before, now = files.get(name) or _read(directory, name)
        files[name] = (before, _spliced(now, one))
    try:
        made = load(directory.path, {name: after for name, (_, after) in files.items()})
    except InvalidDirectory as error:
        problem = Problem(", ".join(files), "can't be edited: it would not be valid any more", _by_hand(edits))
        raise InvalidDirectory(problem, *error.problems) from None
    if _said(made.spec) != _expected(directory.spec, edits) or _rest(made.spec) != _rest(directory.spec):
        summary = "can't be edited: an anchor, an alias or a merge (<<) would change more than the entry"
        raise ReconcilerError(Problem(", ".join(files), summary, _by_hand(edits)))
    return Edited(made, files)


def entry(facts: Facts) -> list[str]:
    """Write an entry as lines, as a person would."""
    return [f"{name}: {_written(value)}" for name, value in facts.items()]


# ------------------------------------------------------------------------------------------------------------ files
def _file(directory: Directory, domain: str, files: Iterable[str]) -> str:
    """Name the file to edit: the one that holds the domain's keys, else one with ``dkim``, else a new one."""
    place = directory.places.of("dkim", domain) or directory.places.of("dkim")
    return place.file if place is not None else next(iter(files), NEW_FILE)


def _read(directory: Directory, name: str) -> tuple[bytes | None, bytes]:
    content = _content(directory.path / name)
    if content is not None and name not in directory.files:
        hint = f"write `dkim: {{}}` into another file of {directory.path}, and run it again"
        raise ReconcilerError(Problem(name, "is no file of desired state (it has a `sops` key)", hint))
    return content, content or b""


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReconcilerError(Problem(str(path), f"can't be read: {error.strerror}", "let us read it")) from None


# ---------------------------------------------------------------------------------------------------- what is meant
def _facts(key: Key) -> dict[str, Any]:
    return {name: getattr(key, name) for name in Key.model_fields}


def _said(spec: Spec) -> dict[str, list[dict[str, Any]]]:
    return {domain: [_facts(key) for key in entries] for domain, entries in spec.dkim.items()}


def _expected(spec: Spec, edits: Iterable[Edit]) -> dict[str, list[dict[str, Any]]]:
    said = _said(spec)
    blank = {name: field.default for name, field in Key.model_fields.items()}
    for one in edits:
        if isinstance(one, AddKey):
            said.setdefault(one.domain, []).append(blank | dict(one.facts))
        else:
            next(item for item in said[one.domain] if item["selector"] == one.selector).update(one.facts)
    return said


def _rest(spec: Spec) -> Spec:
    return spec.model_copy(update={"dkim": {}})


def _by_hand(edits: Iterable[Edit]) -> str:
    said = []
    for one in edits:
        where = f"to {one.selector}" if isinstance(one, SetKey) else "to the list"
        said.append(f"{where} of dkim.{one.domain}: {{{', '.join(entry(one.facts))}}}")
    return f"write it by hand: {'; '.join(said)}"


# ------------------------------------------------------------------------------------------------------------- text
@dataclass(slots=True)
class _Span:
    """Where a node stands, in characters; ``end`` is behind the last one that is seen of it, its brackets included.

    A map's ``items`` are its keys and values by turns.
    """

    start: int
    end: int
    kind: type
    flow: bool = False
    text: str = ""
    items: list[_Span] = field(default_factory=list)

    def get(self, name: str) -> tuple[_Span, _Span] | None:
        """Find a key of a map, and its value."""
        pairs = zip(self.items[::2], self.items[1::2], strict=True)
        return next((pair for pair in pairs if self.kind is dict and pair[0].text == name), None)


def _tree(text: str) -> _Span | None:
    """Compose the spans of a text that is known to be valid."""
    root: _Span | None = None
    stack: list[_Span] = []
    last = 0
    for event in scan(text):
        start, end = event.start_mark.index, event.end_mark.index
        if isinstance(event, events.MappingEndEvent | events.SequenceEndEvent):
            span = stack.pop()
            span.end = last = max(end, last) if span.flow else last
            continue
        if isinstance(event, events.CollectionStartEvent):
            kind = dict if isinstance(event, events.MappingStartEvent) else list
            span = _Span(start, end, kind, flow=bool(event.flow_style))
        elif isinstance(event, events.AliasEvent):
            span = _Span(start, end, type(None))
        elif isinstance(event, events.ScalarEvent):
            seen = len(text[:end].rstrip())  # a block scalar ends behind empty lines, an empty one anywhere
            span = _Span(start, seen, str, text=event.value) if seen > start else _Span(last, last, str)
        else:
            continue
        last = max(last, span.end)
        if stack:
            stack[-1].items.append(span)
        root = root or span
        if span.kind in (dict, list):
            stack.append(span)
    return root


def _spliced(content: bytes, one: Edit) -> bytes:
    mark = b"\xef\xbb\xbf" if content.startswith(b"\xef\xbb\xbf") else b""
    text = content.removeprefix(mark).decode()
    first = text.find("\n")
    lines = "\r\n" if first > 0 and text[first - 1] == "\r" else "\n"
    text = _added(text, one, lines) if isinstance(one, AddKey) else _changed(text, one, lines)
    return mark + text.encode()


# ------------------------------------------------------------------------------------------------------ a new entry
def _added(text: str, one: AddKey, lines: str) -> str:
    root = _tree(text)
    dkim = root.get("dkim") if root else None
    if dkim is None:
        body = ["dkim:", f"  {_quoted(one.domain)}:", *_block(one.facts, 4, 6)]
        head = text if not text or text.endswith("\n") else text + lines
        return head + lines.join([*body, ""])
    domain = dkim[1].get(one.domain)
    if domain is None:
        return _new_domain(text, dkim, one, lines)
    if domain[1].kind is list and domain[1].items:
        return _appended(text, domain[1], one.facts, lines)
    if domain[1].kind is list:
        return _insert(text, domain[1].start + text[domain[1].start :].index("[") + 1, _flow(one.facts))
    raise _no_list(one)


def _no_list(one: Edit) -> ReconcilerError:
    """Say that what stands below a domain is an alias, whose anchor may serve others."""
    summary = "can't be edited: its keys are written with an alias"
    return ReconcilerError(Problem(f"dkim.{one.domain}", summary, _by_hand([one])))


def _new_domain(text: str, dkim: tuple[_Span, _Span], one: AddKey, lines: str) -> str:
    name, value = _quoted(one.domain), dkim[1]
    if value.kind is dict and value.flow:
        return _into_flow(text, value, f"{name}: [{_flow(one.facts)}]", "{")
    if value.kind is dict:
        column = _column(text, value.items[0].start)
        dash = column + _offset(text, value, column)
        body = [f"{' ' * column}{name}:", *_block(one.facts, dash, dash + 2)]
        return _insert(text, _behind(text, value.end, column), lines + lines.join(body))
    if value.kind is str:
        column = _column(text, dkim[0].start) + 2
        return _below(text, dkim, [f"{' ' * column}{name}:", *_block(one.facts, column + 2, column + 4)], lines)
    raise _no_list(one)


def _offset(text: str, dkim: _Span, column: int) -> int:
    """Return how far the lists of other domains are indented; two where there is none to follow."""
    lists = (item for item in dkim.items[1::2] if item.kind is list and not item.flow)
    return next((_dash(text, item) - column for item in lists), 2)


def _appended(text: str, keys: _Span, facts: Facts, lines: str) -> str:
    """Add an item to a list that has some, in the style of the last."""
    last = keys.items[-1]
    own_line = not text[_line_start(text, last.start) : last.start].strip(" ")
    if keys.flow:
        between = lines + " " * _column(text, last.start) if own_line else " "
        return _insert(text, last.end, f",{between}{_flow(facts)}")
    dash = _dash(text, keys)
    flat = last.kind is dict and last.flow
    body = [f"{' ' * dash}- {_flow(facts)}"] if flat else _block(facts, dash, _inner(text, last, dash))
    gap = [""] if len(keys.items) > 1 and not _line_before(text, keys.items[-1], dash).strip() else []
    return _insert(text, _behind(text, last.end, dash + 1), lines + lines.join([*gap, *body]))


def _inner(text: str, item: _Span, dash: int) -> int:
    """Return the column that an item's keys begin at."""
    return _column(text, item.items[0].start) if item.kind is dict and item.items else dash + 2


def _line_before(text: str, item: _Span, dash: int) -> str:
    """Return the line above an item's dash; comments above it belong to the item."""
    above = text[: _line_start(text, item.start)].splitlines()
    while above and above[-1].lstrip().startswith("#") and len(above[-1]) - len(above[-1].lstrip()) >= dash:
        above.pop()
    return above[-1] if above else "#"


def _block(facts: Facts, dash: int, column: int) -> list[str]:
    """Write an entry as a block: its dash in one column, its keys in another."""
    first, *others = entry(facts)
    return [f"{' ' * dash}-{' ' * (column - dash - 1)}{first}", *(f"{' ' * column}{line}" for line in others)]


def _flow(facts: Facts) -> str:
    return f"{{{', '.join(entry(facts))}}}"


def _into_flow(text: str, span: _Span, item: str, bracket: str) -> str:
    if span.items:
        return _insert(text, span.items[-1].end, f", {item}")
    return _insert(text, text.index(bracket, span.start) + 1, item)


def _below(text: str, pair: tuple[_Span, _Span], body: list[str], lines: str) -> str:
    """Put lines below a key that has nothing behind it, or ``null``."""
    key, value = pair
    colon = text.index(":", key.end) + 1
    if value.end > colon:
        text = text[:colon] + text[value.end :]
    return _insert(text, _line_end(text, colon), lines + lines.join(body))


# -------------------------------------------------------------------------------------------------- another value
def _changed(text: str, one: SetKey, lines: str) -> str:
    for name, value in one.facts.items():
        found = _entry(text, one)
        if found is None:
            raise _no_list(one)
        there = found.get(name)
        text = _over(text, there, value) if there else _beside(text, found, f"{name}: {_written(value)}", lines)
    return text


def _entry(text: str, one: SetKey) -> _Span | None:
    """Find the map of a key; None where an alias or a merge stands in the way."""
    span = _tree(text)
    for name in ("dkim", one.domain):
        pair = span.get(name) if span else None
        span = pair[1] if pair else None
    for item in span.items if span and span.kind is list else ():
        selector = item.get("selector")
        if selector is not None and selector[1].text == one.selector:
            return item
    return None


def _over(text: str, pair: tuple[_Span, _Span], value: Value) -> str:
    """Put a value in the place of another: its quotes and its anchor stay."""
    key, old = pair
    colon = text.index(":", key.end) + 1
    if old.end <= colon:  # nothing stands there
        return _insert(text, colon, f" {_written(value)}")
    anchor = re.match(r"&\S+\s+", text[old.start : old.end])
    start = old.start + (anchor.end() if anchor else 0)
    quote = text[start] if text[start] in "'\"" else ""
    new = f"{quote}{value}{quote}" if quote and not isinstance(value, SecretRef) else _written(value)
    return text[:start] + new + text[old.end :]


def _beside(text: str, found: _Span, line: str, lines: str) -> str:
    """Add a line to an entry, behind its last field."""
    if found.flow:
        return _into_flow(text, found, line, "{")
    column = _column(text, found.items[0].start)
    return _insert(text, _line_end(text, found.end), f"{lines}{' ' * column}{line}")


# ---------------------------------------------------------------------------------------------------------- places
def _insert(text: str, at: int, new: str) -> str:
    return text[:at] + new + text[at:]


def _line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def _line_end(text: str, at: int) -> int:
    """Return where the line ends, before its break."""
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    return end - 1 if text[at:end].endswith("\r") else end


def _column(text: str, at: int) -> int:
    return at - _line_start(text, at)


_DASH = re.compile(r"^ *(?=-\s)", re.MULTILINE)


def _dash(text: str, keys: _Span) -> int:
    """Return the column of a block list's dashes. It begins at the first of them, or at an anchor on a line above."""
    below = _DASH.search(text, keys.start) if text[keys.start] == "&" else None
    return _column(text, below.end() if below else keys.start)


def _behind(text: str, end: int, column: int) -> int:
    """Return the end of the line where something ends, and of the comments below that are indented as it is."""
    at = _line_end(text, end)
    while comment := re.compile(rf"\r?\n {{{column},}}#[^\n\r]*").match(text, at):
        at = comment.end()
    return at


# ---------------------------------------------------------------------------------------------------------- values
_PLAIN = re.compile(r"[\w./+][\w./@+=#-]*")  # base64 among it
_NO_TEXT = re.compile(
    r"[-+.\d][\d_.]*(e[-+]?\d+)?|[-+]?\.(inf|nan)|0[xo][\da-f]+|~|null|true|false|yes|no|on|off|y|n", re.IGNORECASE
)


def _written(value: Value) -> str:
    if isinstance(value, SecretRef):
        return f"{{{value.source}: {_quoted(value.name)}}}"
    return value.isoformat() if isinstance(value, dt.date) else _quoted(value)


def _quoted(text: str) -> str:
    """Put a text into quotes where another YAML parser could take it for something else."""
    plain = _PLAIN.fullmatch(text) and not _NO_TEXT.fullmatch(text)
    return text if plain else json.dumps(text, ensure_ascii=False)
