"""From the text of a YAML file to nodes that know file, line and column; every mistake of a file is reported at once.

We compose the nodes ourselves from the parser's events: it is five times faster than the library's ``compose()``,
never recurses (a bomb of brackets is a mistake, not a crash), sees a duplicate key and an explicit tag at their place
and counts what anchors expand to. No constructor ever runs, so a tag can't make anything happen.
"""

from __future__ import annotations

import enum
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ruamel.yaml import events
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from reconciler.desired.syntax import slip
from reconciler.problem import Place, Problem, printable

try:
    from ruamel.yaml.cyaml import CParser  # type: ignore[attr-defined]
except ImportError:  # no wheel and no compiler: six times slower, and the same nodes
    CParser = None

MAX_DEPTH = 64  # nothing we read is deeper than ten
MAX_EXPANDED = 100_000  # nodes that aliases may stand for, in all files of a directory together
MOST_MISTAKES = 1000  # of one file, or of what stands in it: nobody reads more, and some take time to be told

Path = tuple[str | int, ...]

_COLUMN_BITS = 21  # a file has at most 2^20 bytes, so neither a line nor a column number is longer
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
# What YAML 1.2 section 5.1 allows is the rest; a byte order mark is for the head of a file. Two patterns, since one
# takes 8 ms to compile.
_CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_REORDERING = re.compile("[\u202a-\u202e\u2066-\u2069]")  # https://trojansource.codes: a review sees another text
_NO_CHARACTER = re.compile("[\ud800-\udfff\ufeff\ufffe\uffff]")


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """Something wrong at a place; sorts by file and line. ``path`` leads to it through keys and list positions."""

    place: Place
    path: Path
    summary: str
    hint: str = ""

    def problem(self) -> Problem:
        """Turn it into what people read: ``dns.yaml:5:12: dns.mana.how[2].ttl``."""
        return Problem(f"{self.place}: {dotted(self.path)}" if self.path else str(self.place), self.summary, self.hint)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with what is declared. ``{other}`` in the summary stands for the place that ``other`` leads to.

    ``absent`` says that a name was not found, which proves nothing while a file can't be read.
    """

    path: Path
    summary: str
    hint: str = ""
    other: Path = ()
    absent: bool = False


def dotted(path: Path) -> str:
    """Render a path as ``dns.mana.how[2].ttl``."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{printable(step)}" for step in path)
    return text.removeprefix(".")


def is_text(text: str) -> bool:
    """Whether a file can hold a text: it has no NUL and no half a character."""
    return _NO_TEXT.search(text) is None


class Node:
    """A piece of a file; ``mark`` packs its line and column, since there may be a hundred thousand."""

    __slots__ = ("file", "mark")

    def __init__(self, file: str, mark: int) -> None:
        self.file = file
        self.mark = mark

    @property
    def place(self) -> Place:
        """Where it begins."""
        return _place(self.file, self.mark)


class Scalar(Node):
    """A text as written; ``plain`` without quotes, where ``null`` and ``true`` may be more than text."""

    __slots__ = ("plain", "text")

    def __init__(self, file: str, mark: int, text: str, *, plain: bool) -> None:
        self.file = file
        self.mark = mark
        self.text = text
        self.plain = plain

    @property
    def null(self) -> bool:
        """Whether nothing stands here: empty, ``~`` or ``null``."""
        return self.plain and self.text in _NULLS


class Sequence(Node):
    """A list."""

    __slots__ = ("items",)

    def __init__(self, file: str, mark: int) -> None:
        super().__init__(file, mark)
        self.items: list[Node] = []


class Mapping(Node):
    """A map. ``marks`` are the places of the keys, in the order of ``items``; a key is in the file of its value."""

    __slots__ = ("_positions", "items", "marks")

    def __init__(self, file: str, mark: int) -> None:
        super().__init__(file, mark)
        self.items: dict[str, Node] = {}
        self.marks: list[int] = []
        self._positions: dict[str, int] = {}

    def put(self, key: str, mark: int, value: Node) -> None:
        """Add an entry."""
        self.items[key] = value
        self.marks.append(mark)

    def drop(self, key: str) -> None:
        """Take an entry out."""
        del self.marks[list(self.items).index(key)]
        del self.items[key]
        self._positions = {}

    def key_place(self, key: str) -> Place:
        """Say where a key stands. Positions are found out when the first mistake asks, of which there may be many."""
        if len(self._positions) < len(self.items):
            self._positions = {name: at for at, name in enumerate(self.items)}
        return _place(self.items[key].file, self.marks[self._positions[key]])


def _place(file: str, mark: int) -> Place:
    return Place(file, (mark >> _COLUMN_BITS) + 1, (mark & ((1 << _COLUMN_BITS) - 1)) + 1)


# ------------------------------------------------------------------------------------------------ nodes to values
def value(node: Node, *, typed: bool = False) -> Any:
    """Build dicts, lists and texts from nodes; nothing is ``None``.

    A scalar stays the text that was written, so that ``1.10``, ``0123`` and ``no`` reach a text field unharmed; who
    wants a number or a boolean reads it from the text. With ``typed`` they are told apart as YAML 1.2's core schema
    says, for values that go on as JSON.
    """
    if isinstance(node, Scalar):
        return None if node.null else (_typed(node.text) if typed and node.plain else node.text)
    if isinstance(node, Mapping):
        return {key: value(item, typed=typed) for key, item in node.items.items()}
    if isinstance(node, Sequence):
        return [value(item, typed=typed) for item in node.items]
    raise TypeError(node)


def _typed(text: str) -> str | int | float | bool:
    if text in {"true", "True", "TRUE", "false", "False", "FALSE"}:
        return text.lower() == "true"
    if _INTEGER.fullmatch(text) and len(text) < 4000:  # noqa: PLR2004 - Python refuses to convert more digits
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text


# ------------------------------------------------------------------------------------------------- text to nodes
class _Role(enum.Enum):
    """What becomes of the value after a key."""

    ENTRY = enum.auto()
    MERGE = enum.auto()  # ``<<``
    NOTHING = enum.auto()  # a mistake: it is read for the mistakes in it


@dataclass(slots=True)
class _Frame:
    """A list or map that is being read."""

    node: Sequence | Mapping
    anchor: str | None
    before: int  # nodes counted when it began
    height: int = 1
    key: str | None = None
    key_mark: int = 0
    role: _Role = _Role.ENTRY
    merges: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Anchored:
    node: Node
    size: int
    height: int


@dataclass(slots=True)
class Expansion:
    """How many nodes the aliases of the files that are read together may still stand for."""

    left: int = MAX_EXPANDED


def parse(
    text: str, file: str, mistakes: list[Mistake], *, expansion: Expansion | None = None, pure: bool = False
) -> Node | None:
    """Read one file's text; what is wrong goes to ``mistakes``. ``None`` when it holds no document or can't be read.

    ``expansion`` is shared by the files of a directory. ``pure`` takes the parser in Python even where the one in C is
    installed.
    """
    if found := _CONTROL.search(text) or _NO_CHARACTER.search(text):
        what = "which can't stand in YAML"
        mistakes.append(_at_character(text, file, found, what, "remove it; is this a text file?"))
        return None
    if found := _REORDERING.search(text):
        hint = f'remove it, or write it as "\\u{ord(found[0]):04x}"'
        mistakes.append(_at_character(text, file, found, "which shows what follows in another order", hint))
    try:
        return _Composer(file, mistakes, expansion or Expansion()).compose(scan(text, pure=pure))
    except _GiveUp:
        return None
    except MarkedYAMLError as error:
        mistakes.append(_syntax(error, text, file))
    except (YAMLError, AssertionError, ValueError):  # the parser in Python asserts on a %YAML it does not know
        mistakes.append(Mistake(Place(file), (), "is not YAML", "remove the %YAML and %TAG lines, if there are any"))
    return None


def _at_character(text: str, file: str, found: re.Match[str], what: str, hint: str) -> Mistake:
    line, column = text.count("\n", 0, found.start()), found.start() - text.rfind("\n", 0, found.start()) - 1
    return Mistake(Place(file, line + 1, column + 1), (), f"has the character U+{ord(found[0]):04X}, {what}", hint)


def scan(text: str | bytes, *, pure: bool = False) -> Iterator[Any]:
    """Yield the parser's events; their marks count characters. Raises what the library does for what is not YAML.

    Of bytes the parser finds out itself how they are coded.
    """
    if pure or CParser is None:
        from ruamel.yaml import YAML

        yield from YAML(typ="safe", pure=True).parse(text)
        return
    parser = CParser(text)
    while (event := parser.get_event()) is not None:
        yield event


class TooDeep(ValueError):
    """What is nested deeper than anything that we read."""


def shallow(stream: Iterator[Any], deepest: int = MAX_DEPTH) -> Iterator[Any]:
    """Yield a parser's events. Raises `TooDeep`: what each of them takes grows with the levels that it stands below."""
    depth = 0
    for event in stream:
        if isinstance(event, events.CollectionStartEvent):
            depth += 1
            if depth > deepest:
                raise TooDeep
        elif isinstance(event, events.CollectionEndEvent):
            depth -= 1
        yield event


_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


def _syntax(error: MarkedYAMLError, text: str, file: str) -> Mistake:
    """Say what the parser stumbled over, without what stands there, which may be a secret."""
    mark = error.problem_mark or error.context_mark
    place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
    line = text.split("\n")[mark.line] if mark and mark.line <= text.count("\n") else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return Mistake(place, (), "is indented with a tab", "YAML takes spaces only")
    if (found := slip(error, text)) is not None:
        return Mistake(Place(file, found.line + 1, found.column + 1), (), f"is not YAML: {found.summary}", found.hint)
    problem = str(error.problem or error.context or "").strip()
    if "mapping values are not allowed" in problem:
        return Mistake(place, (), "is not YAML: a colon where no key can stand", "put the text into quotes")
    if "cannot start any token" in problem:
        return Mistake(place, (), "is not YAML: a character that can't begin a value", "put the value into quotes")
    # The parser in C quotes single signs (','), the one in Python what it found instead.
    shown = _QUOTED.sub(lambda quoted: quoted.group() if len(quoted.group()) == len("','") else "another text", problem)
    return Mistake(
        place, (), f"is not YAML: {printable(shown)}", "look for an open quote or bracket, or a wrong indentation"
    )


class _GiveUp(Exception):
    """What follows in this file can't be judged."""


class _Composer:
    """Builds the nodes of one file from the parser's events, on a stack of its own."""

    def __init__(self, file: str, mistakes: list[Mistake], expansion: Expansion) -> None:
        self.file = file
        self.mistakes = mistakes
        self.stack: list[_Frame] = []
        self.anchors: dict[str, _Anchored] = {}
        self.count = 0
        self.expansion = expansion
        self.root: Node | None = None

    def compose(self, stream: Iterator[Any]) -> Node | None:
        """Read all events; one document is allowed."""
        documents = 0
        for event in stream:
            kind = type(event)
            if kind is events.ScalarEvent:
                self._scalar(event)
            elif kind is events.MappingStartEvent:
                self._open(event, Mapping(self.file, self._mark(event)))
            elif kind is events.SequenceStartEvent:
                self._open(event, Sequence(self.file, self._mark(event)))
            elif kind is events.MappingEndEvent or kind is events.SequenceEndEvent:
                self._close()
            elif kind is events.AliasEvent:
                self._alias(event)
            elif kind is events.DocumentStartEvent:
                documents += 1
                if documents > 1:
                    self._give_up(self._mark(event), "is a second document", "put it into a file of its own")
        return self.root

    def _mark(self, event: Any) -> int:
        mark = event.start_mark
        return int(mark.line << _COLUMN_BITS | mark.column)

    def _scalar(self, event: Any) -> None:
        # `implicit` says whether the text may be more than text: the parser in C leaves `style` empty when plain
        node = Scalar(self.file, self._mark(event), event.value, plain=not event.style)
        self._begin(event, node)
        if event.style == '"' and _NO_TEXT.search(node.text):  # an escape can write what a file can't hold
            self._mistake(node.mark, "holds a NUL or half a character", "take the escape away")
        if event.anchor:
            self.anchors[event.anchor] = _Anchored(node, 1, 0)
        self._add(node, 0)

    def _begin(self, event: Any, node: Node) -> None:
        self.count += 1
        if event.tag is not None:
            hint = "nothing here is built from tags: take it away, or put a text that begins with ! into quotes"
            self._mistake(node.mark, "has a tag", hint)

    def _open(self, event: Any, node: Sequence | Mapping) -> None:
        self._begin(event, node)
        if len(self.stack) >= MAX_DEPTH:
            self._give_up(node.mark, f"is nested deeper than {MAX_DEPTH} levels", "nothing the format knows is so deep")
        if event.anchor:
            self.anchors.pop(event.anchor, None)
        self.stack.append(_Frame(node, event.anchor, self.count - 1))

    def _close(self) -> None:
        frame = self.stack.pop()
        if isinstance(frame.node, Mapping):
            for merge in frame.merges:
                self._merge(frame.node, merge)
        if frame.anchor:
            self.anchors[frame.anchor] = _Anchored(frame.node, self.count - frame.before, frame.height)
        self._add(frame.node, frame.height)

    def _alias(self, event: Any) -> None:
        # No message repeats the name: `password: *hunter2` is a secret that someone forgot to put into quotes.
        mark, anchored = self._mark(event), self.anchors.get(event.anchor)
        if anchored is None:
            if any(frame.anchor == event.anchor for frame in self.stack):
                self._give_up(mark, "is an alias inside its own anchor", "an anchor can't contain itself")
            hint = "set the anchor (&NAME) before it, or put a text that begins with * into quotes"
            self._give_up(mark, "is an alias of no anchor", hint)
        self.count += anchored.size
        self.expansion.left -= anchored.size
        if self.expansion.left < 0 or len(self.stack) + anchored.height > MAX_DEPTH:
            self._give_up(mark, "anchors explode: too much would stand here", "write out what is meant")
        self._add(anchored.node, anchored.height, mark)

    def _add(self, node: Node, height: int, mark: int | None = None) -> None:
        """Put a finished node where it belongs: the root, the next list position, a key or its value."""
        if not self.stack:
            self.root = node
            return
        frame = self.stack[-1]
        frame.height = max(frame.height, height + 1)
        parent = frame.node
        if isinstance(parent, Sequence):
            parent.items.append(node)
        elif frame.key is None:
            self._key(frame, node, node.mark if mark is None else mark)
        else:
            if frame.role is _Role.ENTRY:
                parent.put(frame.key, frame.key_mark, node)
            elif frame.role is _Role.MERGE:
                frame.merges.append(node)
            frame.key = None

    def _key(self, frame: _Frame, node: Node, mark: int) -> None:
        frame.key_mark = mark
        if not isinstance(node, Scalar):
            self._mistake(mark, "has a list or a map as a key", "a key is text; put a text with braces into quotes")
            frame.key, frame.role = "?", _Role.NOTHING
            return
        if node.null:
            self._mistake(mark, "has nothing as a key", "a key is text; put it into quotes if it is meant")
        frame.key = key = sys.intern(node.text)
        frame.role = _Role.MERGE if key == "<<" and node.plain else _Role.ENTRY
        if frame.role is _Role.MERGE and frame.merges:
            self._mistake(mark, "stands twice", "give one << a list: <<: [*ONE, *TWO]")
        elif frame.role is _Role.ENTRY and isinstance(frame.node, Mapping) and key in frame.node.items:
            self._mistake(mark, "stands twice", f"the first is at {frame.node.key_place(key)}: keep one")
            frame.role = _Role.NOTHING

    def _merge(self, node: Mapping, merge: Node) -> None:
        """Add what ``<<`` brings and the map does not say itself."""
        for source in merge.items if isinstance(merge, Sequence) else [merge]:
            if not isinstance(source, Mapping):
                self._mistake(source.mark, "<< takes a map or a list of maps", "write <<: *NAME, where &NAME is a map")
                continue
            for (key, item), mark in zip(source.items.items(), source.marks, strict=True):
                if key not in node.items:
                    node.put(key, mark, item)

    def _path(self) -> Path:
        steps: list[str | int] = []
        for frame in self.stack:
            if isinstance(frame.node, Sequence):
                steps.append(len(frame.node.items))
            elif frame.key is not None:
                steps.append(frame.key)
        return tuple(steps)

    def _mistake(self, mark: int, summary: str, hint: str) -> None:
        self.mistakes.append(Mistake(_place(self.file, mark), self._path(), summary, hint))
        if len(self.mistakes) > MOST_MISTAKES:
            raise _GiveUp

    def _give_up(self, mark: int, summary: str, hint: str) -> NoReturn:
        self._mistake(mark, summary, hint)
        raise _GiveUp
