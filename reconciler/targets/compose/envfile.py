"""The env file that Compose interpolates from: reading it, and writing our own block at its end.

Only the block between our two marker lines is ours; every other byte is kept. The last assignment of a variable wins,
so the block is always moved to the end. Variables that we set once and nobody asks for any more stay in it: absent
means unmanaged, and to drop them would change a running service.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from reconciler import fence, files
from reconciler.problem import Problem, Severity, TargetUnreadable
from reconciler.targets.compose.project import variables

_LARGEST = 1 << 20  # bytes
_MARK = b"\xef\xbb\xbf"
_NO_ASSIGNMENT = re.compile(
    rb"(#.*|(export[ \t]+)?[A-Za-z_][\w.\-\[\]]*)?", re.DOTALL
)  # Compose takes a bare name, too
_NAME_ANOTHER = "name the project's env file as targets.compose.env_file"
_PLAIN_FORM = "name a file in plain UTF-8 as targets.compose.env_file: a list's last one is written, and wins"
_NOT_THEIRS = {".git", files.FOLDER}  # folders of git and of ours: what lies there is believed
_CHANGED = "it was changed by someone else in the meantime"
_BLOCK = re.compile(
    rb"^# >>> reconciler ([a-z0-9-]+)[^\n]*\n(?:(?!# >>> reconciler )[^\n]*\n)*?# <<< reconciler \1[ \t\r]*(?:\n|\Z)",
    re.MULTILINE,
)
_DOTENVX = re.compile("dotenv_public_key")  # and _PRODUCTION and the like
_BARE = re.compile(rb"[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)[ \t]*")
_PUT = re.compile(r"\$(?:\{([A-Za-z_]\w*)(?::?-([^{}]*))?\}|([A-Za-z_]\w*))")
_UNDER_WAY = "# recreating: "
_AT_REST = "# recreating, not to be started: "
_FORMER = "# before: "
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
        """Read the file. Raises `TargetUnreadable` when it is missing or can't be read, or is no env file."""
        try:
            found = cls(path, stack, _content(path))
        except FileNotFoundError as error:
            hint = "create it (it may be empty), or correct targets.compose.env_file"
            raise TargetUnreadable(Problem(str(path), "the env file does not exist", hint, scope="compose")) from error
        except OSError as error:
            summary = f"the env file can't be read: {error.strerror}"
            raise TargetUnreadable(Problem(str(path), summary, "make it readable", scope="compose")) from error
        if form := found._form():
            summary = f"{form}, and nothing is written into it"
            raise TargetUnreadable(Problem(str(path), summary, _PLAIN_FORM, Severity.REFUSED, "compose"))
        if line := found.foreign_line():
            summary = f"is no env file: line {line} is none of NAME=VALUE, and nothing is written into other files"
            raise TargetUnreadable(Problem(str(path), summary, _NAME_ANOTHER, Severity.REFUSED, "compose"))
        return found

    def _form(self) -> str:
        """Say how the file is written where that is not as plain text; nothing of it is repeated."""
        if self.content.startswith((b"\xff\xfe", b"\xfe\xff")):
            return "the env file is in UTF-16"
        names = {name.lower() for _, name, _ in _assignments(self.content)}
        if names & {"sops_mac", "sops_version"}:
            return "the env file is encrypted by sops"
        return "the env file is encrypted by dotenvx" if any(map(_DOTENVX.match, names)) else ""

    def foreign_line(self) -> int:
        """Return the first line, from 1, that no env file has; 0 where there is none."""
        position = 0
        for span, _, _ in (*_assignments(self.content), (range(len(self.content), 0), "", b"")):
            for line in self.content[position : span.start].removeprefix(_MARK).splitlines(keepends=True):
                if b"\0" in line or not _NO_ASSIGNMENT.fullmatch(line.strip()):
                    return self.content.count(b"\n", 0, self.content.index(line, position)) + 1
            position = span.stop
        return 0

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

    @property
    def recreating(self) -> tuple[str, ...]:
        """The services that are being recreated, or were when it was interrupted."""
        return tuple(name for line in self._comments(_UNDER_WAY) for name in line.split())

    @property
    def resting(self) -> tuple[str, ...]:
        """The services that are being made anew and were stopped, so that nothing starts them."""
        return tuple(name for line in self._comments(_AT_REST) for name in line.split())

    @property
    def interrupted(self) -> tuple[str, ...]:
        """All that is being made anew, or was when it was interrupted."""
        return (*self.recreating, *self.resting)

    @property
    def formerly(self) -> dict[str, str]:
        """What our block set before services began to be recreated, in its order."""
        found = self.ours
        for line in self._comments(_FORMER):
            name, equals, value = line.partition("=")
            found[name] = _unquote(value)
            if not equals:
                del found[name]
        return found

    def _comments(self, beginning: str) -> list[str]:
        block = self._block()
        lines = block[1].decode(errors="replace").splitlines() if block else []
        return [line.removeprefix(beginning) for line in lines if line.startswith(beginning)]

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

    def theirs(self) -> dict[str, str]:
        """Map the variables in the blocks of other stacks to the stack."""
        return {
            name: match[1].decode()
            for match in _BLOCK.finditer(self.content)
            if match[1].decode() != self.stack
            for _, name, _ in _assignments(match[0])
        }

    def made_of(self, variable: str) -> Iterator[Assignment]:
        """Yield the assignments whose values take a variable in, themselves or through another one."""
        taken, ours = {variable}, self._block()
        for span, name, raw in _assignments(self.content):
            within = ours is not None and span.start in range(*ours.span())
            text = raw.decode(errors="replace")
            if not within and not text.startswith("'") and taken & set(variables(text)):
                taken.add(name)
                yield Assignment(name, self.content.count(b"\n", 0, span.start) + 1)

    def takes(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield the variables of the file, each with those that its value takes in; a bare name takes its own."""
        for _, name, raw in _assignments(self.content):
            text = raw.decode(errors="replace")
            yield name, () if text.startswith("'") else tuple(variables(text))
        for line in self.content.splitlines():
            if found := _BARE.fullmatch(line):
                yield found[1].decode(), (found[1].decode(),)

    def plain(self, variable: str) -> str | None:
        """Return what the file gives a variable, where it says so without another one; None where that can't be told.

        A line whose end could be a comment tells nothing.
        """
        found = [raw for _, name, raw in _assignments(self.content) if name == variable]
        text = found[-1].decode(errors="replace").strip() if found else "$"
        if len(text) > 1 and text[0] in "\"'" and text[0] == text[-1]:
            inner = text[1:-1]
            return None if text[0] in inner or "\\" in inner or ("$" in inner and text[0] == '"') else inner
        return None if re.search(r"[\"'$#\\]", text) else text

    def filled(self, text: str) -> str:
        """Put the file's own values into a text, as far as they can be told."""
        return _PUT.sub(lambda it: self.plain(it[1] or it[3]) or (it[2] if it[2] is not None else it[0]), text)

    def values(self) -> Iterator[str]:
        """Yield all values of four characters or more, without their quotes: what no log line may repeat."""
        for _, _, raw in _assignments(self.content):
            text = raw.decode(errors="replace").strip()
            quoted = len(text) > 1 and text[0] in "\"'" and text[0] == text[-1]
            value = _unquote(text) if quoted else text
            if len(value) >= _TELLING:
                yield value

    def having(
        self,
        values: Mapping[str, str],
        recreating: Collection[str] = (),
        former: Mapping[str, str] | None = None,
        resting: Collection[str] = (),
    ) -> EnvFile:
        """Return the file with exactly ``values`` in our block; without any there is no block.

        It stands last, so that it holds, unless nothing behind it sets one of them: then it stays where it is, and what
        stands behind and is made of them stays so. ``recreating`` names the services that are about to be recreated,
        ``resting`` those that are not started then, ``former`` what the block held before: who is killed meanwhile
        leaves word of all.
        """
        newline, block = self._newline, self._block()
        word = self._word(values, recreating, resting, former or {})
        lines = [self._begin, *word, *_assigned(values), self._end] if values or word else []
        whole = b"".join(line.encode() + newline for line in lines)
        if block and not any(it.variable in values and it.line > self.end_of_ours for it in self.others()):
            return replace(self, content=self.content[: block.start()] + whole + self.content[block.end() :])
        rest = self.content if block is None else self.content[: block.start()] + self.content[block.end() :]
        if whole and rest and not rest.endswith(b"\n"):
            rest += newline
        return replace(self, content=rest + whole)

    @staticmethod
    def _word(
        values: Mapping[str, str], recreating: Collection[str], resting: Collection[str], former: Mapping[str, str]
    ) -> list[str]:
        word = [f"{mark}{' '.join(names)}" for mark, names in ((_UNDER_WAY, recreating), (_AT_REST, resting)) if names]
        for name in values if word else ():
            if name not in former:
                word.append(f"{_FORMER}{name}")
            elif former[name] != values[name]:
                word.append(f"{_FORMER}{name}={quote(former[name])}")
        return word

    @contextlib.contextmanager
    def held(self, *, as_it_was: bool = True) -> Iterator[EnvFile]:
        """Yield the file as it is now, while nobody else of us writes it.

        Raises `TargetUnreadable`; with ``as_it_was`` also where more than other stacks' blocks is not as it was read.
        """
        with contextlib.ExitStack() as lock:
            try:
                lock.enter_context(files.locked(self.path.resolve().parent))
            except OSError as error:
                raise self._unwritable(error.strerror or type(error).__name__, "try again") from None
            now = EnvFile.read(self.path, self.stack)
            if as_it_was and now.without_other_stacks() != self.without_other_stacks():
                raise self._unwritable(_CHANGED, "plan again")
            yield now

    def without_other_stacks(self) -> bytes:
        """Return the content but for the blocks of other stacks."""
        rest = _BLOCK.sub(lambda match: match[0] if match[1] == self.stack.encode() else b"", self.content)
        return rest.rstrip(b"\r\n")

    @property
    def changed(self) -> int | None:
        """When the file was changed last, in nanoseconds since 1970; None where that is not told."""
        try:
            return self.path.stat().st_mtime_ns
        except OSError:
            return None

    def replace_on_disk(self, new: EnvFile, changed: int | None = None) -> None:
        """Write ``new`` in place of this content: all of it or nothing, owner and mode kept.

        ``changed`` is the time of its last change where it is as it was then: whoever goes by that sees none.

        Raises `TargetUnreadable` when somebody else changed the file since it was read, or when it can't be written;
        it is unchanged then.
        """
        target = self.path.resolve()  # a symbolic link stays one
        try:
            if target.read_bytes() != self.content:
                raise self._unwritable(_CHANGED, "plan again")
            fence.before_write()
            files.replace(target, new.content, in_place=True)
            if changed is not None:
                os.utime(target, ns=(changed, changed))
        except OSError as error:
            hint = {28: "free some space", 30: "make its file system writable"}.get(
                error.errno or 0, "make it writable"
            )
            raise self._unwritable(error.strerror or type(error).__name__, hint) from error

    def _unwritable(self, why: str, hint: str) -> TargetUnreadable:
        return TargetUnreadable(Problem(str(self.path), f"the env file can't be written: {why}", hint))


def _assigned(values: Mapping[str, str]) -> Iterator[str]:
    yield from (f"{name}={quote(value)}" for name, value in values.items())


def check_place(path: Path, directory: Path) -> None:
    """Raise `TargetUnreadable` for an env file outside the project's folder: whoever writes the directory names it.

    Nothing is read.
    """
    folder, real = directory.resolve(), path.resolve()
    if not real.is_relative_to(folder):
        leads = f" (to {real})" if path.is_symlink() else ""
        summary = f"the env file leads out of the compose project's folder {folder}{leads}"
    elif real.suffix in {".yaml", ".yml"} or _NOT_THEIRS & {part.lower() for part in real.relative_to(folder).parts}:
        summary = "is no env file, and nothing is written into other files"
    else:
        return
    hint = f"keep it in that folder: {_NAME_ANOTHER}"
    raise TargetUnreadable(Problem(str(path), summary, hint, Severity.REFUSED, "compose"))


def _content(path: Path) -> bytes:
    """Read a regular file, of a sensible size. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise OSError(errno.EFBIG, f"it is larger than {_LARGEST >> 20} MiB")
    return content


def _assignments(content: bytes) -> Iterator[tuple[range, str, bytes]]:
    """Yield place, name and raw value of every assignment."""
    position = len(_MARK) if content.startswith(_MARK) else 0
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
