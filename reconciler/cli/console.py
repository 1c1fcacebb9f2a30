"""What is printed, and where: results to standard output, everything else to standard error."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

import click

PATIENCE = 1.0  # seconds a step may take before a terminal shows it
_ERASE = "\r\x1b[K"
# What a log of GitHub Actions, Azure Pipelines or TeamCity takes for an order wherever it stands, or at a line's begin:
# to mask words of the lines below, or to set what the next step reads.
_ORDER = re.compile(r"(?<=#)#(?=[a-z]*\[)|^(?P<blank>[^\S\n]*):(?=:)", re.IGNORECASE | re.MULTILINE)
_COLOURS = re.compile(r"\x1b\[[0-9;]{0,12}m")
_LINE_ENDS_AND_COLOURS = re.compile(rf"(\n|\t|{_COLOURS.pattern})")


class Console:
    """Two streams and one rule for each.

    ``redact`` replaces secrets that were revealed and passes over everything that is printed: the second fence, the
    first being that nothing printed holds a value by type. So it is with characters that would move a cursor, hide or
    reorder what is read: reports escape them, and what is left of them here is shown, too. What the log of a CI would
    carry out is escaped here alone.
    """

    def __init__(self, output: str = "text", *, colour: bool = False, verbose: bool = False) -> None:
        self.output, self.colour, self.verbose = output, colour, verbose
        self.redact: Callable[[str], str] = lambda text: text
        self.failure: OSError | None = None
        self._progress = _Progress(sys.stderr)
        self._log: Any = None

    def text(self, text: str) -> None:
        """Print a result. A reader that has gone away is no error, and a full disk must not end an apply midway."""
        self._progress.erase()
        if self.failure is None and text:
            self._print(self.redact(text))

    def _print(self, text: str) -> None:
        try:
            shown = _encodable(_harmless(text, colour=self.colour), sys.stdout)
            click.echo(shown, color=self.colour, nl=not text.endswith("\n"))
            sys.stdout.flush()
        except OSError as error:  # BrokenPipeError among them
            self.failure = error
            _discard(sys.stdout)

    def document(self, document: Mapping[str, Any]) -> None:
        """Print a result as JSON."""
        from reconciler.report import json

        self._progress.erase()
        if self.failure is None:
            self._print(json.dumps(json.redacted(document, self.redact)))

    def result(self, text: str, document: Mapping[str, Any]) -> None:
        """Print a result in the form that was asked for; as Markdown it is fenced text."""
        if self.output == "json":
            self.document(document)
        elif self.output == "markdown":
            from reconciler.report import prose

            self.text(prose.fenced(text))
        else:
            self.text(text)

    def note(self, text: str) -> None:
        """Print a line that is no result to standard error."""
        self._progress.erase()
        with contextlib.suppress(OSError):
            colour = self.colour and sys.stderr.isatty()
            click.echo(_encodable(_harmless(self.redact(text), colour=colour), sys.stderr), err=True, color=colour)

    def step(self, text: str) -> None:
        """Tell what is being waited for: on a terminal after a second, with -v at once and as a log line."""
        if self.verbose:
            self.log(text)
        else:
            self._progress.show(_harmless(self.redact(text)))

    def done(self) -> None:
        """Nothing is being waited for any more."""
        self._progress.erase()

    def log(self, event: str, **facts: Any) -> None:
        """Write a log line, with -v only."""
        if not self.verbose:
            return
        if self._log is None:
            self._log = _logger(self)
        self._log.info(event, **facts)

    @property
    def broken(self) -> bool:
        """Whether a result could not be printed for another reason than a reader that has gone away."""
        return self.failure is not None and self.failure.errno not in (errno.EPIPE, errno.ECONNRESET)


class _Progress:
    """One line on a terminal that appears when a step takes long, and is gone when the step is."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream if stream.isatty() else None
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._drawn = False

    def show(self, text: str) -> None:
        if self._stream is not None:
            self.erase()
            self._schedule(text, time.monotonic())

    def erase(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._drawn and self._stream is not None:
                self._write(_ERASE)
                self._drawn = False

    def _schedule(self, text: str, since: float) -> None:
        self._timer = threading.Timer(PATIENCE, self._draw, (text, since))
        self._timer.daemon = True
        self._timer.start()

    def _draw(self, text: str, since: float) -> None:
        with self._lock:
            if self._timer is not threading.current_thread():
                return  # erased, or replaced by the next step, meanwhile
            self._write(f"{_ERASE}{text} … {time.monotonic() - since:.0f} s")
            self._drawn = True
            self._schedule(text, since)

    def _write(self, text: str) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(_encodable(text, self._stream))
                self._stream.flush()


def _harmless(text: str, *, colour: bool = True) -> str:
    """Show what a terminal or the log of a CI would act on, but line ends and our colours.

    Without ``colour`` these go first: what stands on either side of one would become an order when they went later.
    """
    text = text if colour else _COLOURS.sub("", text)
    text = _ORDER.sub(lambda order: f"{order['blank'] or ''}\\x{ord(order[0][-1]):02x}", text)
    parts = _LINE_ENDS_AND_COLOURS.split(text)
    if all(map(str.isprintable, parts[::2])):  # nothing to escape
        return text
    from reconciler.report import values

    return "".join(part if number % 2 else values.escape(part) for number, part in enumerate(parts))


def _encodable(text: str, stream: IO[str]) -> str:
    """Escape what the stream's encoding lacks: an arrow must not end a program where the locale is ASCII."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, errors="backslashreplace").decode(encoding)


def _discard(stream: IO[str]) -> None:
    """Let all further output go nowhere, also what is flushed when the interpreter ends."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _logger(console: Console) -> Any:
    import structlog

    def redacted(_logger: Any, _method: str, line: Any) -> str:
        return _harmless(console.redact(str(line)))

    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(colors=console.colour and sys.stderr.isatty()),
            redacted,
        ],
    )
