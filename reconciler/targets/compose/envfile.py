"""The env file that Compose interpolates from: reading it, and writing our own block at its end.

Only the block between our two marker lines is ours; every other byte is kept. The last assignment of a variable wins,
so the block is always moved to the end. Variables that we set once and nobody asks for any more stay in it: absent
means unmanaged, and to drop them would change a running service.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from reconciler import files
from reconciler.problem import Problem, TargetUnreadable

_TELLING = 4  # characters; shorter values (587, on) say nothing and stand everywhere
_ASSIGNMENT = re.compile(rb"[ \t]*(?:export[ \t]+)?([A-Za-z_][\w.\-\[\]]*)[ \t]*[=:][ \t]*")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "$": "\\$", "\n": "\\n", "\r": "\\r"}
_UNESCAPES = {escaped: plain for plain, escaped in _ESCAPES.items()}


def quote(value: str) -> str:
    r"""Write a value in the one form that every Compose reads back as it was: double quotes and escapes.

    ``\r`` is escaped too, since the parser turns a literal CR LF into LF.
    """
    return '"' + re.sub(r'[\\"$\n\r]', lambda match: _ESCAPES[match[0]], value) + '"'


def _unquote(text: str) -> str:
    return re.sub(r'\\[\\"$nr]', lambda match: _UNESCAPES[match[0]], text[1:-1])


@dataclass(frozen=True, slots=True)
class Assignment:
    """A line outside our block that sets a variable. ``line`` counts from 1."""

    variable: str
    line: int


@dataclass(frozen=True, slots=True)
class EnvFile:
    """The file as it was read: its bytes, and what our block in it holds."""

    path: Path
    stack: str
    content: bytes

    @classmethod
    def read(cls, path: Path, stack: str) -> EnvFile:
        """Read the file. Raises `TargetUnreadable` when it is missing or can't be read."""
        try:
            return cls(path, stack, path.read_bytes())
        except FileNotFoundError as error:
            hint = "create it (it may be empty), or correct targets.compose.env_file"
            raise TargetUnreadable(Problem(str(path), "the env file does not exist", hint, scope="compose")) from error
        except OSError as error:
            summary = f"the env file can't be read: {error.strerror}"
            raise TargetUnreadable(Problem(str(path), summary, "make it readable", scope="compose")) from error

    @property
    def _begin(self) -> str:
        return f"# >>> reconciler {self.stack}: written by reconciler, changes here are overwritten"

    @property
    def _end(self) -> str:
        return f"# <<< reconciler {self.stack}"

    @property
    def _newline(self) -> bytes:
        first = self.content.find(b"\n")
        return b"\r\n" if first > 0 and self.content[first - 1 : first] == b"\r" else b"\n"

    def _block(self) -> re.Match[bytes] | None:
        """Find our block; what looks like one inside of somebody's quoted value is none."""
        stack = re.escape(self.stack.encode())
        begin = rb"^# >>> reconciler %s(?:[ :][^\n]*)?\n" % stack
        # Lines behind a begin whose end was taken off are somebody's: a block holds no second begin.
        lines = rb"((?:(?!# >>> reconciler )[^\n]*\n)*?)"
        pattern = re.compile(begin + lines + rb"^# <<< reconciler %s[ \t\r]*(?:\n|\Z)" % stack, re.MULTILINE)
        values = [span for span, _, raw in _assignments(self.content) if b"\n" in raw.rstrip()]
        found = [item for item in pattern.finditer(self.content) if not any(item.start() in span for span in values)]
        return found[-1] if found else None

    @property
    def end_of_ours(self) -> int:
        """The line on which our block ends, 0 without one."""
        block = self._block()
        return self.content.count(b"\n", 0, block.end()) if block else 0

    @property
    def ours(self) -> dict[str, str]:
        """What our block sets, in its order."""
        block = self._block()
        found = {}
        for line in block[1].decode(errors="replace").split("\n") if block else ():
            name, equals, value = line.rstrip("\r").partition("=")
            if equals and not name.startswith("#") and value[:1] == '"' == value[-1:] and len(value) > 1:
                found[name] = _unquote(value)
        return found

    def others(self) -> Iterator[Assignment]:
        """Yield the assignments outside our block, also those whose quoted value spans lines."""
        block = self._block()
        ours = range(*block.span()) if block else range(0)
        for span, name, _ in _assignments(self.content):
            if span.start not in ours:
                yield Assignment(name, self.content.count(b"\n", 0, span.start) + 1)

    def values(self) -> Iterator[str]:
        """Yield all values of four characters or more, without their quotes: what no log line may repeat."""
        for _, _, raw in _assignments(self.content):
            text = raw.decode(errors="replace").strip()
            quoted = len(text) > 1 and text[0] in "\"'" and text[0] == text[-1]
            value = _unquote(text) if quoted else text
            if len(value) >= _TELLING:
                yield value

    def words(self) -> Iterator[str]:
        """Yield the words of all lines' values: Compose quotes parts of a line that it can't read."""
        for line in self.content.decode(errors="replace").splitlines():
            if not line.lstrip().startswith("#"):
                yield from re.findall(
                    rf"[^\s\"'\\$=]{{{_TELLING},}}", re.sub(r"^\s*(export\s+)?[\w.\-]+\s*[=:]", "", line)
                )

    def having(self, values: Mapping[str, str]) -> EnvFile:
        """Return the file with exactly ``values`` in our block, which stands last; without values there is no block."""
        newline = self._newline
        block = self._block()
        rest = self.content if block is None else self.content[: block.start()] + self.content[block.end() :]
        if not values:
            return replace(self, content=rest)
        lines = [self._begin, *(f"{name}={quote(value)}" for name, value in values.items()), self._end]
        if rest and not rest.endswith(b"\n"):
            rest += newline
        return replace(self, content=rest + b"".join(line.encode() + newline for line in lines))

    def replace_on_disk(self, new: EnvFile) -> None:
        """Write ``new`` in place of this content: all of it or nothing, owner and mode kept.

        Raises `TargetUnreadable` when somebody else changed the file since it was read, or when it can't be written;
        it is unchanged then.
        """
        target = self.path.resolve()  # a symbolic link stays one
        try:
            if target.read_bytes() != self.content:
                raise self._unwritable("it was changed by someone else in the meantime", "plan again")
            files.replace(target, new.content, in_place=True)
        except OSError as error:
            hint = {28: "free some space", 30: "make its file system writable"}.get(
                error.errno or 0, "make it writable"
            )
            raise self._unwritable(error.strerror or type(error).__name__, hint) from error

    def _unwritable(self, why: str, hint: str) -> TargetUnreadable:
        return TargetUnreadable(Problem(str(self.path), f"the env file can't be written: {why}", hint))


def _assignments(content: bytes) -> Iterator[tuple[range, str, bytes]]:
    """Yield place, name and raw value of every assignment."""
    position = 3 if content.startswith(b"\xef\xbb\xbf") else 0
    while position < len(content):
        end = _line_end(content, position)
        match = _ASSIGNMENT.match(content, position, end)
        if match:
            end = max(end, _value_end(content, match.end()))
            yield range(position, end), match[1].decode(), content[match.end() : end]
        position = end


def _line_end(content: bytes, position: int) -> int:
    found = content.find(b"\n", position)
    return len(content) if found < 0 else found + 1


def _value_end(content: bytes, position: int) -> int:
    """Find the end of the line on which a value ends that starts here; quoted ones may span lines."""
    opening = content[position : position + 1]
    if opening not in (b'"', b"'"):
        return position
    closing = re.compile(rb"(?:\\.|[^\\%s])*%s" % (opening, opening), re.DOTALL).match(content, position + 1)
    return _line_end(content, closing.end() - 1) if closing else position
