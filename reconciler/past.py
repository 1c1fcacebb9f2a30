"""What of all that is live was once this directory's: what was applied from here, and what its commits declared.

A mark says which stack wrote a record, and not which directory; an account bears no mark at all.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from reconciler.address import Address
from reconciler.journal import Entry, Written
from reconciler.resources import Record, Resource


def applied(entries: Iterable[Entry], asked: Collection[Resource]) -> frozenset[Resource]:
    """Return those that an apply from here made, adopted or changed, and did not remove again; records by value."""
    contents, others = set[tuple[str, object]](), dict[str, bool]()
    for row in _in_force(entries):
        address = str(Address.parse(row.address).place)
        others[address] = row.actions != ("delete",)
        contents.add((address, (row.after or {}).get("content")))
    return frozenset(
        item
        for item in asked
        if ((item.address, item.content) in contents if isinstance(item, Record) else others.get(item.address, False))
    )


def zones(entries: Iterable[Entry]) -> frozenset[str]:
    """Return the zones in which records are left that an apply from here made, adopted or changed."""
    stays = dict[str, bool]()
    for row in _in_force(entries):
        if Address.parse(row.address).kind == Record.kind:
            stays[row.address] = row.actions != ("delete",)
    return frozenset(Address.parse(name).parts[0] for name, there in stays.items() if there)


def _in_force(entries: Iterable[Entry]) -> Iterator[Written]:
    """Yield what was written and may be in force, the oldest first."""
    yield from (row for entry in entries for row in entry.written if row.status in ("done", "unknown"))


def committed(text: str, asked: Collection[Resource]) -> frozenset[Resource]:
    """Return those that a text of YAML seems to declare, however it is written: by name and value, or by address."""
    words = frozenset(word.strip(":") for word in re.split(r"""[\s"'{}\[\],]+""", text.lower()))
    squeezed = _squeezed(text)
    return frozenset(
        item
        for item in asked
        if (_declares(words, squeezed, item) if isinstance(item, Record) else Address.parse(item.address).name in words)
    )


def _declares(words: Collection[str], squeezed: str, record: Record) -> bool:
    key, found, _ = record.name.partition("._domainkey")
    if found and key in words:  # the record of a key follows from its selector
        return True
    values = [str(value) for _, value in record.data or () if isinstance(value, str)]
    value = max(values, key=len) if values else str(record.content)
    return _squeezed(value)[:60] in squeezed and (record.name == "@" or record.name in words)


def _squeezed(text: str) -> str:
    """Leave out what folding and quoting add to a text."""
    return re.sub(r"""[\s"'\\]+""", "", text).lower()
