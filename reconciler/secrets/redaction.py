"""The fence round all that is shown: values of secrets are replaced by the secrets' names, in any form, in one pass."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote, quote_plus

from reconciler.problem import printable
from reconciler.resources import SecretRef

SHORTEST = 4  # characters; a shorter value would black out ordinary text
_WORD = 12  # a shorter value of letters alone may be a part of any word or name
_NAME = frozenset("@/-.")  # what names and addresses are made of, besides letters, digits and _
_TELLING = 16  # characters of a line of a key that gives it away
_PART = 8  # characters of a part of an encoding that do: 48 bits, which stand in no key by chance
_ENV_FILE = str.maketrans({"\\": "\\\\", '"': '\\"', "$": "\\$", "\n": "\\n", "\r": "\\r"})
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
# What a reference's name stands in was rendered already: as JSON, Markdown, a log's line. None of these may read more
# than a name in it, so what could end a text or begin an order there is left out, and so is a mention's first sign.
_ACTING = re.compile(r"(?<!\w)[@#]|[^\w./@#+ -]")
_LONGEST = 80  # characters of a name
_MOST = 10  # characters that one is escaped by


@dataclass(slots=True)
class Redaction:
    """The values known so far. ``public`` returns what the directory says in clear, and is asked where one is found.

    Forms are found by their first characters, then by their length: the time for a text does not depend on how many
    values there are.
    """

    public: Callable[[], str] = field(default=str, repr=False)
    _forms: dict[str, dict[int, dict[str, tuple[SecretRef, str]]]] = field(default_factory=dict, repr=False)
    _published: set[str] = field(default_factory=set, repr=False)
    _known: set[tuple[SecretRef, str]] = field(default_factory=set, repr=False)
    _judged: tuple[str, dict[str, bool]] = field(default_factory=lambda: ("", {}), repr=False)

    def hide(self, source: SecretRef, value: str) -> None:
        """Keep a value out of all that is shown; in its place stands what it comes from."""
        if (source, value) in self._known:
            return
        self._known.add((source, value))
        for form in dict.fromkeys(_forms(value)):
            if len(form) >= SHORTEST:
                self._forms.setdefault(form[:SHORTEST], {}).setdefault(len(form), {}).setdefault(form, (source, value))

    def publish(self, text: str) -> None:
        """Let a text be shown although parts of it stand in a secret: an RSA key in PEM has whole lines of `p=`."""
        self._published.add(text)

    def remember(self, other: Redaction) -> None:
        """Keep out what another one keeps out, and let be shown what it lets."""
        for source, value in tuple(other._known):
            self.hide(source, value)
        self._published |= other._published

    def redact(self, text: str) -> str:
        """Replace every value by its secret's name.

        A password such as ``mana`` is a part of ``dns/mana.how`` and of what not: a short word is replaced where it
        stands by itself. What the directory says in clear stays, in whatever form: who wrote it knows it, and where it
        went, that it is a secret, and whose. A pull request could ask so for ten thousand guesses at a time.
        """
        parts: list[str] = []
        done = 0  # up to where the text is dealt with
        for start, end, source in self._found(text):
            if start >= done:
                parts += [text[done:start], _gap(source)]
            done = max(done, end)  # what overlaps is one gap
        return "".join([*parts, text[done:]]) if done else text

    def _found(self, text: str) -> Iterator[tuple[int, int, SecretRef]]:
        """Yield where forms stand, in order; of those that begin at one place the longest."""
        known = self._forms
        for start in range(len(text) - SHORTEST + 1) if known else ():
            lengths = known.get(text[start : start + SHORTEST])
            if lengths is None:
                continue
            for length in sorted(lengths, reverse=True):
                form = text[start : start + length]
                if form not in lengths[length]:
                    continue
                source, value = lengths[length][form]
                if self._applies(form, value, text, start):
                    yield start, start + length, source
                    break

    def _applies(self, form: str, value: str, text: str, start: int) -> bool:
        if self._is_said(form, value):
            return False
        if any(form in public for public in tuple(self._published)):  # other threads publish meanwhile
            return False
        if form != value or len(form) >= _WORD or not form.isalpha():  # an encoding is no part of a name
            return True
        around = text[start - 1 : start] + text[start + len(form) : start + len(form) + 1]
        return not any(char.isalnum() or char == "_" or char in _NAME for char in around)

    def _is_said(self, form: str, value: str) -> bool:
        """Whether the directory says it in clear; looked for once, as it may have megabytes and a word stand often."""
        said, (of, known) = self.public(), self._judged
        if said is not of:
            known = {}
            self._judged = (said, known)  # at once: other threads ask meanwhile
        if form not in known:
            known[form] = value in said or form in said
        return known[form]


def _gap(source: SecretRef) -> str:
    """Return what stands in a secret's place."""
    name = _ACTING.sub("?", source.name)
    return f"[redacted {{{source.source}: {name if len(name) <= _LONGEST else name[: _LONGEST - 1] + '…'}}}]"


def _forms(value: str) -> Iterator[str]:
    """Yield the texts by which a value could be recognised: as it is, escaped, encoded, line by line."""
    if len(value) < SHORTEST:
        return
    yield value
    if not value.isalnum() or not value.isascii():
        seen = () if value.isprintable() else (printable(value, _MOST * len(value)),)  # as reports show it
        for text in (value, *seen):
            yield from (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
            # As in a table of Markdown:
            yield re.sub(r"(?<!\\)(\\*)\|", lambda found: "\\x5c" * len(found[1]) + "\\|", text)
        yield repr(value)[1:-1]
        yield from (quote(value, safe=""), quote(value), quote_plus(value), quote(value, safe="").replace("%", "%25"))
        yield from (value.translate(table) for table in (_ENV_FILE, _HTML))
        yield value.replace("$", "$$")
    data = value.encode(errors="surrogatepass")
    yield base64.b64encode(data).decode().rstrip("=")
    yield base64.urlsafe_b64encode(data).decode().rstrip("=")
    for before in (1, 2):  # behind something else, such as user:password: what the neighbours have no part in
        middle = base64.b64encode(b"\0" * before + data).decode()[4 : (len(data) + before) // 3 * 4]
        if len(middle) >= _PART:
            yield from (middle, middle.translate(str.maketrans("+/", "-_")))
    if len(data) // 3 * 4 >= _PART:
        yield base64.b64encode(data).decode()[: len(data) // 3 * 4]
    lines = value.splitlines()
    if len(lines) > 1:  # a key in PEM: any of its lines gives it away
        yield from (line for line in lines if len(line) >= _TELLING and not line.startswith("-----"))
