"""What may be repeated of Compose's errors: its own words, and names that stand in the compose files.

Compose puts interpolated values into its errors, quoted and bare, also of files that a compose file names itself. Which
values there are can't be known, so that only what is known is shown: the words below, and names in their usual place.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

# Messages of Compose, its YAML parsers, its schema and the Engine, without what they fill in.
_MESSAGES = """
yaml go-yaml load error in parser scanner composer constructor construct unmarshal errors cannot into while parsing a
scanning flow block node mapping sequence for the next simple key did not find expected content ',' or '}' ']' ':'
values entries characters control violates indentation
found character that cannot start any token tab unknown anchor referenced could not document start end of stream
duplicate already defined at line cycle detected references path recursive alias !!seq !!map !!str cli.named
validating additional properties not allowed must be a mapping string number integer boolean null array list object
does not match pattern unique items elements required property is missing
invalid interpolation format for You may need to escape any $ with another $. containerPort hostPort hostIP proto
port range error while interpolating variable has a value template Invalid failed cast expected type strconv.Atoi
strconv.ParseInt strconv.ParseBool strconv.ParseFloat syntax out
service depends on undefined refers network volume secret config invalid compose project neither nor an image build
context specified declares mutually exclusive `network_mode` `networks` conflicting cannot extend found dependency -> in
env file no such file or directory open stat read is a directory permission denied EOF to
unexpected character key contain space unterminated quoted name decoding due following error(s) size time duration
unexpected int bool float empty provided configuration unsupported external option attribute resource conflict
fatal runtime of memory signal killed
Error response from daemon Container Network Volume Recreate Recreated Starting Started Creating Created Running Waiting
Healthy Error No pull access repository exist bind host address use allocated driver programming connectivity endpoint
create task OCI shim process mount source device left with by container dial tcp unix connect connection refused
timeout context deadline exceeded declared as but docker ip
Docker Is running? Cannot the manifest up be are was and it this
"""
_LONGEST = 1 << 16  # characters that are looked at, the last ones
_SIGNS = frozenset({"','", "'}'", "']'", "':'"})
_EDGES = "\"'`:;,()[]<>"
_HIDDEN = "…"
_SECTIONS = frozenset({"services", "networks", "volumes", "configs", "secrets", "include", "name", "version"})
_BEFORE_NAMES = frozenset({"service", "network", "volume", "config", "secret", "variable"})
_QUOTES = "\"'`"
# At their place in the message no value can stand before these numbers, and so none can pose as one.
_PLACE = re.compile(
    r"\A(?:failed to (?:read|parse) \S+: )?(?:yaml: )?(?:(?:construct|unmarshal) errors:\s+)?(?:line \d+: )?"
    r"(?:go-yaml load error in \w+ (?:\([a-z ]+\) )?at L\d+\.C\d+(?:-(?:L\d+\.)?C\d+)?|line \d+)(?=:)"
)
_NUMBER = re.compile(r"\d+|L\d+\.C\d+(?:-(?:L\d+\.)?C\d+)?")
_TAIL = re.compile(r"(is missing a value|You may need to escape any \$ with another \$\.).*", re.DOTALL)
_WARNINGS = re.compile(r"\A(?:time=[^\n]*\n)+")
_WORDS = frozenset(word.strip(_EDGES) for word in _MESSAGES.split()) - {""}


def own_words(text: str, names: Collection[str], paths: Collection[str]) -> str:
    """Return what Compose says, with ``…`` for each word that is not its own.

    ``names`` are those of services, variables and keys: one is shown where Compose puts names. ``paths`` are shown
    anywhere. Numbers are those of lines, at the beginning.
    """
    text = text if len(text) <= _LONGEST else text[-_LONGEST:]
    text = _TAIL.sub(r"\1", _WARNINGS.sub("", text.strip() + "\n")).strip()
    place = _PLACE.match(text)
    numbered = place.end() if place else 0
    lines, before = [], 0
    for line in text.split("\n"):
        shown = " ".join(_shown(line, max(0, numbered - before), names, paths))
        lines.append(re.sub(rf"{_HIDDEN}(?: {_HIDDEN})+", _HIDDEN, shown))
        before += len(line) + 1
    return "; ".join([line for line in lines if line][-3:])[:500]


def _shown(line: str, numbered: int, names: Collection[str], paths: Collection[str]) -> Iterator[str]:
    previous = ""
    for match in re.finditer(r"(?P<quote>[\"'`])[^\"'`]*(?P=quote)[:;,]?|\S+", line):
        token = match[0]
        core = token.strip(_EDGES)
        named = core in names and (previous in _BEFORE_NAMES or token[0] in _QUOTES)
        number = match.start() < numbered and _NUMBER.fullmatch(core)
        if named or number or token in _SIGNS or core in _WORDS or core in paths or _is_place(core, names):
            yield token
        else:
            quote = token[0] if match["quote"] else ""
            yield f"{quote}{_HIDDEN}{quote}{':' if token.endswith(':') else ''}"
        previous = core


def _is_place(core: str, names: Collection[str]) -> bool:
    """Whether it is the place of an entry: ``services.app.environment.A``, ``services[app].mem_limit``."""
    section, *rest = [part for part in re.split(r"[.\[\]]+", core) if part] if core.strip(".[]") else [""]
    return section in _SECTIONS and all(part in names or re.fullmatch(r"\d{1,2}", part) for part in rest)
