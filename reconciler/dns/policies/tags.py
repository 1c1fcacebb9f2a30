"""Lists of tags, ``NAME=VALUE; NAME=VALUE``: the form of every policy but SPF (RFC 6376 section 3.2). Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from reconciler.dns.policies.reading import MOST_FAULTS, Fault, is_printable, nearest

_BLANKS = " \t\r\n"
_RUN_ON = re.compile(r"(?<![ \t,])[ \t,]+(?=(\w+)[ \t]*=)")  # what may be the next tag, where a semicolon is missing


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag: ``name`` as its grammar knows it, ``value``, the ``piece`` of the text it is, and where that begins."""

    name: str
    value: str
    piece: str
    at: int

    def fault(self, cause: str, hint: str = "", value: str | None = None, *, breaks: bool = True) -> Fault:
        """Say what is wrong with it; ``value`` is the one that is right, where that is evident."""
        return Fault(self.piece, cause, hint, self.at, value and f"{self.name}={value}", breaks)

    def useless(self, cause: str) -> Fault:
        """Say that it does nothing, and can be taken out."""
        return Fault(self.piece, cause, at=self.at, instead="", breaks=False)


@dataclass(frozen=True, slots=True)
class Grammar:
    """What is particular to one policy's list.

    ``version`` is its first tag, as it must be written. ``known`` are the names of the others, ``gone`` those it once
    had, with what each meant. ``names`` is the pattern of a name, which counts in any case where ``folded``; blanks may
    stand around ``=`` where ``spaced``. ``optional`` says that the version may be left out, ``free`` which tags hold
    prose, ``extended`` that others' tags may stand in it, ``repeated`` that a second tag of one name does no harm.
    """

    version: str
    known: tuple[str, ...]
    names: str = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}"  # RFC 8460 section 3, RFC 8461 section 3.1
    gone: Mapping[str, str] | None = None
    folded: bool = False
    spaced: bool = False
    optional: bool = False
    free: Collection[str] = ()
    extended: bool = False
    repeated: bool = False


def read(text: str, grammar: Grammar) -> tuple[list[Tag], list[Fault], bool]:
    """Read a list: its tags in order, what is wrong with it, and whether its version is right.

    Values are judged by who knows the tags.
    """
    tags: list[Tag] = []
    seen = set[str]()
    faults: list[Fault] = []
    for tag in _split(text, faults):
        for part in _parted(tag, grammar, faults):
            if len(faults) >= MOST_FAULTS:
                break
            named = _named(part, grammar, faults) if "=" in part.piece else _no_tag(text, part, grammar, tags, faults)
            if named is not None and named.name in seen:
                cause, hint = f"stands beside another {named.name}=", "make one of the two"
                faults.append(Fault(part.piece, cause, hint, part.at, breaks=not grammar.repeated))
            if named is not None:
                seen.add(named.name)
                tags.append(named)
    versioned = _versioned(text, tags, grammar, faults)
    return tags, faults, versioned


def by_name(tags: Iterable[Tag]) -> dict[str, Tag]:
    """Return tags by their names, of a doubled one the first."""
    named: dict[str, Tag] = {}
    for tag in tags:
        named.setdefault(tag.name, tag)
    return named


def _split(text: str, faults: list[Fault]) -> Iterator[Tag]:
    """Yield what stands between semicolons, unread; there may be one at the end, and not two in a row."""
    start, items = 0, text.split(";")
    for index, item in enumerate(items):
        piece = item.strip(_BLANKS)
        at = start + len(item) - len(item.lstrip(_BLANKS))
        if piece:
            yield _tag(piece, at)
        elif 0 < index < len(items) - 1 and len(faults) < MOST_FAULTS:
            faults.append(Fault(f";{item}", "is a semicolon too many", at=start - 1, instead=""))
        start += len(item) + 1


def _parted(tag: Tag, grammar: Grammar, faults: list[Fault]) -> Iterator[Tag]:
    """Part what holds several tags, where a blank or a comma stands in place of a semicolon."""
    start, free = 0, tag.name.strip(_BLANKS) in grammar.free
    for found in () if free else _RUN_ON.finditer(tag.piece):
        if found[1].lower() in grammar.known and found.start() > start and len(faults) < MOST_FAULTS:
            cause = f"has no semicolon before {found[1]}="
            faults.append(Fault(found[0], cause, at=tag.at + found.start(), instead="; "))
            yield _tag(tag.piece[start : found.start()], tag.at + start)
            start = found.end()
    yield _tag(tag.piece[start:], tag.at + start)


def _tag(piece: str, at: int) -> Tag:
    name, _, value = piece.partition("=")
    return Tag(name, value, piece, at)


def _named(tag: Tag, grammar: Grammar, faults: list[Fault]) -> Tag | None:
    """Read one tag's name, and tell of what is wrong with its form; None where it is no tag."""
    name, value = tag.name.strip(_BLANKS), tag.value.strip(_BLANKS)
    name = name.lower() if grammar.folded else name
    if not re.fullmatch(grammar.names, name):
        faults.append(Fault(tag.piece, "has no name that a tag may have", "take it out", tag.at))
        return None
    found = Tag(name, value, tag.piece, tag.at)
    if not grammar.spaced and (tag.name != name or tag.value != value):
        faults.append(found.fault("has a blank beside its =, where none may stand", value=value or None))
    if grammar.gone and name in grammar.gone:
        faults.append(found.useless(f"is no tag any more: {grammar.gone[name]}"))
    elif name != "v" and name not in grammar.known:
        faults += _unknown(found, grammar)
    return found


def _no_tag(text: str, tag: Tag, grammar: Grammar, tags: Sequence[Tag], faults: list[Fault]) -> Tag | None:
    """Judge what has no ``=``; return the tag that it evidently is."""
    name, colon, value = (part.strip(_BLANKS) for part in tag.piece.partition(":"))
    name = name.lower()
    last = tags[-1].name if tags else ""
    if colon and value and name in grammar.known:
        faults.append(Fault(tag.piece, "has a colon in place of =", at=tag.at, instead=f"{name}={value}"))
        return Tag(name, value, tag.piece, tag.at)
    if name == "mailto" and last in ("rua", "ruf"):
        start = text.rfind(";", 0, tag.at)
        piece = text[start : tag.at + len(tag.piece)]
        cause = f"is parted from the other addresses of {last}= by more than a comma"
        faults.append(Fault(piece, cause, at=start, instead=f",{tag.piece}"))
    else:
        hint = "write its name before it, or take it out"
        faults.append(Fault(tag.piece, "is no tag, which is written NAME=VALUE", hint, tag.at))
    return None


def _unknown(tag: Tag, grammar: Grammar) -> Iterator[Fault]:
    """Judge a tag that nobody knows: receivers ignore it, so where it is like a known one it is most likely a slip."""
    meant = nearest(tag.name, grammar.known)
    if meant or not grammar.extended:
        instead = f"{meant}={tag.value}" if meant else None
        hint = f"take it out: known are {', '.join(f'{name}=' for name in grammar.known)}"
        yield Fault(tag.piece, "is no tag that receivers know: they ignore it", hint, tag.at, instead, breaks=False)


def _versioned(text: str, tags: Sequence[Tag], grammar: Grammar, faults: list[Fault]) -> bool:
    """Judge the version: to the letter and before all else, or receivers take the whole text for none."""
    tag, right = by_name(tags).get("v"), grammar.version.partition("=")[2]
    if tag is None:
        if not grammar.optional:
            faults.append(Fault("", f"does not begin with {grammar.version}", instead=f"{grammar.version}; "))
        return grammar.optional
    if tag.value != right:
        faults.append(tag.fault(f"is another version than {grammar.version}", f"write {grammar.version}"))
        return False
    if text[: tag.at].strip(_BLANKS):
        hint = f"write {grammar.version}; before all else"
        faults.append(tag.fault("does not stand first", hint))
        return False
    if not grammar.spaced and not text.startswith(grammar.version):
        faults.append(Fault("", f"does not begin with {grammar.version} to the letter", f"write {grammar.version};"))
        return False
    return True


def one_of(tag: Tag, words: tuple[str, ...]) -> Iterator[Fault]:
    """Judge the value of a tag that is one of some words, in any case."""
    value = tag.value.lower()
    if value not in words:
        meant = nearest(value, [word for word in words if word.isalpha()])
        meant = meant or next((word for word in words if value.isalpha() and value.startswith(word)), "")
        cause = f"is not one of {', '.join(words[:-1])} and {words[-1]}"
        yield tag.fault(cause, f"write {tag.name}={words[0]}", meant or None)


def printed(tags: Iterable[Tag]) -> Iterator[Fault]:
    """Tell of values that hold what no value may, and of empty ones."""
    for tag in tags:
        if not is_printable(tag.piece.replace("\t", " ")):
            yield tag.fault("holds a character that can't stand here", "write it in printable ASCII")
        elif not tag.value:
            yield tag.fault("has no value", "give it one, or take it out")
