"""YAML with the types that Compose sees, which is written in Go."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from reconciler.simulator.compose.failure import Failure

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
        with path.open(encoding="utf-8") as stream:
            node = YAML(typ="safe", pure=True).compose(stream)
    except FileNotFoundError as error:
        raise Failure(f"open {path}: no such file or directory") from error
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise Failure(f"failed to parse {path}: {error}") from error
    return _built(node) if node is not None else None


def _built(node: Node) -> Any:
    if node.tag == "!reset":
        return RESET
    if isinstance(node, ScalarNode):
        return _scalar(node) if not node.style else node.value
    if isinstance(node, SequenceNode):
        return [_built(item) for item in node.value]
    assert isinstance(node, MappingNode)
    return _mapping(node)


def _mapping(node: MappingNode) -> dict[str, Any]:
    own: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    for key, value in node.value:
        if key.value == "<<" and not key.style:
            for source in value.value if isinstance(value, SequenceNode) else [value]:
                merged = {**_built(source), **merged}
        elif key.value in own:
            raise Failure(f'mapping key "{key.value}" already defined')
        else:
            own[str(key.value)] = _built(value)
    return {**merged, **own}


def _scalar(node: ScalarNode) -> Any:
    text: str = node.value
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
