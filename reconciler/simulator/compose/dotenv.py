"""How Compose reads values: `$` interpolation and env files, as compose-go does both.

Made from what the real program did with the values our tests try; `tests/simulator/compose/test_compose.py` compares
them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Lookup = Callable[[str], str | None]

_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<brace>\{))")
_BRACED = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<operator>:?[-+?])(?P<word>.*))?")
_SPACES = "\t\v\f\r \x85\xa0"  # what compose-go's parser skips; its rules for a line end differ
_EXPORT = re.compile(rf"export[\t\n\f\r ][{_SPACES}\n]*")
_KEY = re.compile(r"(?P<key>[^=:\n]*)(?P<end>[=:\n]?)")
_UNNAMABLE = re.compile(rf"[^\w.\-\[\]{_SPACES}]")
_QUOTED = {quote: re.compile(rf"{quote}((?:\\.|[^\\{quote}])*){quote}", re.DOTALL) for quote in "\"'"}
_ESCAPE = re.compile(r"\\(?:([abcfnrtv$\"\\])|0(\d{0,3}))")
_MEANING = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    '"': '"',
    "\\": "\\",
    "$": "$$",
}


class InvalidTemplate(ValueError):
    """A `${` that begins nothing Compose understands; its argument is the text."""


class MissingVariable(ValueError):
    """A variable that a text requires (`${NAME:?why}`) is not there; its argument is the message."""


class InvalidEnvFile(ValueError):
    """An env file can't be read; its argument is the message."""


def interpolate(text: str, lookup: Lookup) -> str:
    """Replace every variable of a text; raises `InvalidTemplate` and `MissingVariable`."""
    parts: list[str] = []
    at = 0
    while match := _VARIABLE.search(text, at):
        parts.append(text[at : match.start()])
        at = match.end()
        if match["brace"]:
            end = _closing(text, at)
            parts.append(_braced(text, text[at:end], lookup))
            at = end + 1
        else:
            parts.append("$" if match["dollar"] else lookup(match["name"]) or "")
    return "".join([*parts, text[at:]])


def _closing(text: str, at: int) -> int:
    """Find the brace that closes the one before ``at``."""
    depth = 1
    for index in range(at, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return index
    raise InvalidTemplate(text)


def _braced(text: str, body: str, lookup: Lookup) -> str:
    match = _BRACED.fullmatch(body)
    if match is None:
        raise InvalidTemplate(text)
    name, operator, word = match["name"], match["operator"] or "", match["word"] or ""
    value = lookup(name)
    there = value is not None and (value != "" or not operator.startswith(":"))
    if operator.endswith("+"):
        return interpolate(word, lookup) if there else ""
    if there or not operator:
        return value or ""
    if operator.endswith("?"):
        raise MissingVariable(f"required variable {name} is missing a value: {interpolate(word, lookup)}")
    return interpolate(word, lookup)


def parse(text: str, lookup: Lookup) -> dict[str, str]:
    """Read an env file; raises `InvalidEnvFile`.

    ``lookup`` gives the variables from outside: they win over the file's own where a value names one, and give a key
    without ``=`` its value.
    """
    values: dict[str, str] = {}
    at = _statement(text, 0)
    while at < len(text):
        key, at, inherited = _key(text, at)
        if inherited:
            value = lookup(key)
            values |= {} if value is None else {key: value}
        else:
            values[key], at = _value(text, at, _within(values, lookup))
        at = _statement(text, at)
    return values


def _within(values: Mapping[str, str], lookup: Lookup) -> Lookup:
    def find(name: str) -> str | None:
        outside = lookup(name)
        return values.get(name) if outside is None else outside

    return find


def _statement(text: str, at: int) -> int:
    """Skip blank lines and comments."""
    match = re.compile(r"(?:\s+|#[^\n]*)*").match(text, at)
    return match.end() if match else at


def _key(text: str, at: int) -> tuple[str, int, bool]:
    """Read a name and say where its value begins, and whether it has none and takes the one from outside.

    A last line without any end names nothing: all of it is the value of a variable without a name.
    """
    if export := _EXPORT.match(text, at):
        at = export.end()
    match = _KEY.match(text, at)
    if match is None:
        raise AssertionError(at)  # the pattern takes the empty text too
    line = text.count("\n", 0, at) + 1
    if bad := _UNNAMABLE.search(match["key"]):
        raise InvalidEnvFile(f'line {line}: unexpected character "{bad[0]}" in variable name')
    if not match["end"]:
        return "", _spaces(text, at), False
    key = match["key"].rstrip()
    if " " in key:  # no other blank is looked for: `a<TAB>b` passes for a name
        raise InvalidEnvFile(f"line {line}: key cannot contain a space")
    inherited = match["end"] == "\n"
    return key, match.end() if inherited else _spaces(text, match.end()), inherited


def _spaces(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACES:
        at += 1
    return at


def _value(text: str, at: int, lookup: Lookup) -> tuple[str, int]:
    """Read one value and say where the next statement may begin."""
    quote = text[at : at + 1]
    if quote not in _QUOTED:
        line = text[at:].partition("\n")[0]
        return _expanded(line.partition(" #")[0].rstrip(), lookup), at + len(line)
    match = _QUOTED[quote].match(text, at)
    if match is None:
        raise InvalidEnvFile(f"line {text.count(chr(10), 0, at) + 1}: unterminated quoted value")
    value = re.sub(r"\\(.)", lambda it: it[1] if it[1] == quote else it[0], match[1], flags=re.DOTALL)
    return _expanded(_ESCAPE.sub(_unescape, value), lookup) if quote == '"' else value, match.end()


def _unescape(match: re.Match[str]) -> str:
    return _MEANING.get(match[1], match[0]) if match[1] else chr(int(match[2] or "0", 8))


def _expanded(value: str, lookup: Lookup) -> str:
    try:
        return interpolate(value, lookup)
    except InvalidTemplate as error:
        raise InvalidEnvFile("invalid template: a `${` is not closed, or names no variable") from error
    except MissingVariable as error:
        raise InvalidEnvFile(str(error)) from error
