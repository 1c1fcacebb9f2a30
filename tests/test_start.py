"""What the start leaves out, `reconciler.__main__`, changes nothing of what is done."""

from __future__ import annotations

import subprocess
import sys

import pytest

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


PATTERNS = """
import copy, pickle, re

WORD = re.compile(r"(?P<first>[a-z])\\w*", re.IGNORECASE)
BYTES = re.compile(rb"\\d+")

class Holder:
    DIGITS = re.compile(r"\\d+")

def within(text):
    return re.compile(text)
"""
MATCHED = (
    "WORD.fullmatch('Ab')['first'], WORD.match('1'), WORD.search('1 ab').span(), bool(WORD.fullmatch('a b'))",
    "WORD.sub('x', 'a b'), WORD.subn('x', 'a'), WORD.split('1a2'), WORD.findall('a b')",
    "[found[0] for found in WORD.finditer('a b')], [found[0] for found in re.finditer(WORD, 'a b')]",
    "re.sub(WORD, 'x', 'a b'), re.fullmatch(WORD, 'a'), re.compile(WORD).pattern",
    "isinstance(WORD, re.Pattern), WORD.pattern, WORD.flags, WORD.groups, WORD.groupindex",
    "BYTES.fullmatch(b'12'), BYTES.fullmatch('12')",
    "Holder.DIGITS.search('a1'), Holder().DIGITS",
    "WORD == re.compile(WORD.pattern, re.IGNORECASE), hash(WORD) == hash(copy.copy(WORD)), WORD == BYTES, WORD == 1",
    "pickle.loads(pickle.dumps(WORD)), copy.copy(WORD), {WORD: 1}[re.compile(WORD.pattern, re.IGNORECASE)]",
    "WORD.nothing",
    "within('(')",
    "within('a').fullmatch('a')",
)
CHECKED = """
from typing import Annotated
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic_core import CoreConfig, core_schema
from typing_extensions import TypedDict, is_typeddict

class Told(TypedDict, total=False):
    name: str

class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", title="M")
    name: Annotated[str, Field(pattern="^a")]
    told: Told = {}
"""
JUDGED = (
    "CoreConfig(title='a'), CoreConfig()",
    "Model(name='a', told={'name': 'b'})",
    "[error['type'] for error in TypeAdapter(Model).validator.validate_python({}, strict=True)]",
    "Model(name='b')",
    "Model(name='a', told={'name': 1})",
    "Model.model_json_schema()",
    "is_typeddict(Told)",
)


PROGRAM = """
for tried in TRIED:
    for _ in range(2):
        try:
            print(tried, repr(eval(tried)), sep=": ")
        except Exception as error:
            print(tried, type(error).__name__, repr(str(error)), sep=": ")
"""


def told(before: str, given: str, tried: tuple[str, ...]) -> str:
    """What a program prints of what it tries, each thing twice, after ``given``."""
    text = "\n".join((before, given, PROGRAM.replace("TRIED", repr(tried))))
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert not done.stderr
    assert len(done.stdout.splitlines()) == 2 * len(tried)
    return done.stdout


@pytest.mark.parametrize(
    ("given", "tried"), [(VALUES, TRIED), (PATTERNS, MATCHED), (CHECKED, JUDGED)], ids=["values", "patterns", "models"]
)
def test_what_is_made_when_it_is_used_is_as_it_would_be_at_once(given: str, tried: tuple[str, ...]):
    assert told("import reconciler.__main__", given, tried) == told("", given, tried)
