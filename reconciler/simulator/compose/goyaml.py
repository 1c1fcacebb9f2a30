"""YAML with the types that Compose sees, which is written in Go."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, events
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scanner import ScannerError

from reconciler.simulator.compose.failure import Failure

try:
    from ruamel.yaml.cyaml import CParser  # type: ignore[attr-defined]
except ImportError:
    CParser = None

_INTEGER = re.compile(r"[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}


class Reset:
    """What ``!reset`` stands for: the entry of an earlier file goes."""


RESET = Reset()


def read_yaml(path: Path) -> Any:
    """Read a YAML file with the types that go-yaml gives: `yes` is a text, `010` is 8; raises `Failure`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise Failure(f"open {path}: no such file or directory") from error
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"failed to parse {path}: {error}") from error
    try:
        return _Document(_events(text)).read()
    except YAMLError as error:
        try:  # `{image: mail:local}`, which go-yaml takes and the parser in C does not
            return _Document(_events(text, pure=True)).read()
        except YAMLError:
            raise Failure(_complaint(error)) from error


def _complaint(error: YAMLError) -> str:
    """Say what is wrong as go-yaml 3 does, line and all: the scanner's is where it stands, the parser's one off.

    Source: `parser.fail` in decode.go of gopkg.in/yaml.v3, which Compose 2.40 reads with.
    """
    if not isinstance(error, MarkedYAMLError):
        return f"yaml: {error}"
    marks = [mark.line for mark in (error.context_mark, error.problem_mark) if mark is not None and mark.line]
    line = marks[0] + isinstance(error, ScannerError) if marks else 0
    return f"yaml: {f'line {line}: ' if line else ''}{error.problem}"


def _events(text: str, *, pure: bool = False) -> Iterator[Any]:
    """Yield what stands in a text; where there is one, from the parser in C, of which go-yaml is a translation."""
    if pure or CParser is None:
        yield from YAML(typ="safe", pure=True).parse(text)
        return
    parser = CParser(text)
    while (event := parser.get_event()) is not None:
        yield event


class _Document:
    """Builds the value of a file from the parser's events."""

    def __init__(self, stream: Iterator[Any]) -> None:
        self._stream = stream
        self._anchors: dict[str, Any] = {}

    def read(self) -> Any:
        """Return the one document's value, None where there is none."""
        found = [self._value(event) for event in self._stream if isinstance(event, events.NodeEvent)]
        if len(found) > 1:
            raise Failure("expected a single document")
        return found[0] if found else None

    def _value(self, event: Any) -> Any:
        if isinstance(event, events.AliasEvent):
            if event.anchor not in self._anchors:
                raise Failure(f"unknown anchor '{event.anchor}' referenced")
            return copy.deepcopy(self._anchors[event.anchor])
        value = self._built(event)
        if event.anchor:
            self._anchors[event.anchor] = value
        return value

    def _built(self, event: Any) -> Any:
        value = self._plain(event)
        return RESET if str(getattr(event, "tag", None) or "") == "!reset" else value

    def _plain(self, event: Any) -> Any:
        if isinstance(event, events.ScalarEvent):
            return event.value if event.style else _scalar(event.value)
        if isinstance(event, events.SequenceStartEvent):
            return [self._value(item) for item in self._until(events.SequenceEndEvent)]
        return self._mapping()

    def _mapping(self) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for event in self._until(events.MappingEndEvent):
            key, value = self._key(event), self._value(next(self._stream))
            if key == "<<" and not getattr(event, "style", ""):
                for source in value if isinstance(value, list) else [value]:
                    merged = {**source, **merged}
            elif key in own:
                raise Failure(f'mapping key "{key}" already defined')
            else:
                own[key] = value
        return {**merged, **own}

    def _key(self, event: Any) -> str:
        if isinstance(event, events.AliasEvent):
            return str(self._value(event))
        if not isinstance(event, events.ScalarEvent):
            raise Failure("a mapping's key is no text")
        if event.anchor:
            self._anchors[event.anchor] = event.value
        return str(event.value)

    def _until(self, end: type[Any]) -> Iterator[Any]:
        """Yield the events that begin what stands in a list or a mapping."""
        for event in self._stream:
            if isinstance(event, end):
                return
            yield event


def _scalar(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        digits = text.replace("_", "")
        octal = re.fullmatch(r"([-+]?)0([0-7]+)", digits)
        return (
            int(f"{octal[1]}0o{octal[2]}", 8) if octal else int(digits, 0 if digits.lstrip("+-")[1:2] in "box" else 10)
        )
    if _FLOAT.fullmatch(text):
        number = float(text)
        return int(number) if number == int(number) and abs(number) < 1e21 else number  # as Go prints them
    if re.fullmatch(r"\d{4}-\d{1,2}-\d{1,2}([Tt ].*)?", text):
        raise Failure(f"{text}: invalid jsonType time.Time")
    return text


def as_text(value: Any) -> str:
    """Write a scalar as Go prints it: 1.50 as 1.5, 1e3 as 1000, true as true."""
    return str(value).lower() if isinstance(value, bool) else str(value)
