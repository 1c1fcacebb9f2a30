"""What the start leaves out, `reconciler.__main__`, changes nothing of what is done."""

from __future__ import annotations

import subprocess
import sys

VALUES = """
from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, replace

@dataclass(frozen=True, slots=True, order=True)
class Base:
    name: str
    more: tuple[int, ...] = ()
    secret: str = field(default="hush", repr=False, compare=False)

@dataclass(frozen=True, slots=True)
class Child(Base):
    items: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert self.name

@dataclass(slots=True)
class Open:
    one: int = 1

    def __eq__(self, other: object) -> bool:
        return True

@dataclass
class Own(Open):
    def __repr__(self) -> str:
        return "own"
"""
TRIED = (
    "Base('a')",
    "Base('a', more=(1,), secret='b')",
    "Base()",
    "Base('a', wrong=1)",
    "Base('a') == Base('a', secret='other')",
    "Base('a') == Child('a')",
    "sorted([Base('b'), Base('a', (2,)), Base('a', (1,))])",
    "Base('a') < 1",
    "{Base('a'), Base('a'), Base('b')} == {Base('b'), Base('a')}",
    "hash(Child('a', items=()))  == hash(Child('a', items=()))",
    "hash(Child('a'))",
    "Child('')",
    "Child('a', items=[1]), Child('a').items is Child('a').items",
    "setattr(Base('a'), 'name', 'b')",
    "delattr(Child('a'), 'name')",
    "setattr(Child('a'), 'other', 'b')",
    "replace(Child('a', items=[2]), name='b')",
    "asdict(Child('a'))",
    "[item.name for item in fields(Child)]",
    "Open(), Open(2), Open() == 3, Own(), Own(4).one",
    "setattr(Open(), 'two', 1)",
    "hash(Open())",
    "[Base.__init__.__name__, Base.__repr__.__name__]",
)


PROGRAM = f"""
{VALUES}
for tried in {TRIED!r}:
    for _ in range(2):
        try:
            print(tried, repr(eval(tried)), sep=": ")
        except Exception as error:
            print(tried, type(error).__name__, error, sep=": ")
"""


def told(before: str) -> str:
    done = subprocess.run([sys.executable, "-c", before + PROGRAM], capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.stdout


def test_methods_of_values_that_are_made_when_they_are_called_are_those_of_any_dataclass():
    plain = told("")
    assert len(plain.splitlines()) == 2 * len(TRIED)
    assert told("import reconciler.__main__") == plain
