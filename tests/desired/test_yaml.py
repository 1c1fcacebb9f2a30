"""Nodes and places: the parser in C and the one in Python say the same of whatever a file may hold."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from properties import tries

from reconciler.desired import yaml
from reconciler.desired.yaml import Mapping, Mistake, Scalar, Sequence, parse, value

pytestmark = pytest.mark.parametrize("pure", [False, True], ids=["c", "python"])


def read(text: str, *, pure: bool) -> tuple[yaml.Node | None, list[str]]:
    mistakes: list[Mistake] = []
    node = parse(text, "f.yaml", mistakes, pure=pure)
    return node, [str(mistake.problem()) for mistake in mistakes]


def good(text: str, *, pure: bool, typed: bool = False) -> object:
    node, problems = read(text, pure=pure)
    assert problems == []
    assert node is not None
    return value(node, typed=typed)


def test_the_parser_in_c_is_there(pure: bool) -> None:
    assert yaml.CParser is not None


def test_scalars_keep_what_was_written(pure: bool) -> None:
    text = "a: 1.10\nb: 0123\nc: no\nd: off\ne: true\nf: ~\ng:\nh: 'null'\n1: 2\n"
    want = {"a": "1.10", "b": "0123", "c": "no", "d": "off", "e": "true", "f": None, "g": None, "h": "null", "1": "2"}
    assert good(text, pure=pure) == want


def test_typed_scalars_follow_yaml_1_2(pure: bool) -> None:
    text = "[1, -2, 0x1F, 0o17, 1.5, 1e3, true, False, no, off, null, '1', 1_000, 0123, .inf]"
    assert good(text, pure=pure, typed=True) == [
        *(1, -2, 31, 15, 1.5, 1000.0, True, False, "no", "off", None, "1", "1_000", 123, ".inf"),
    ]


def test_places_count_characters_from_one(pure: bool) -> None:
    node, problems = read("é😀: {ü: 'x',\n  y: [1, 22]}\n", pure=pure)
    assert isinstance(node, Mapping)
    assert not problems
    inner = node.items["é😀"]
    assert isinstance(inner, Mapping)
    assert str(node.key_place("é😀")) == "f.yaml:1:1"
    assert str(inner.items["ü"].place) == "f.yaml:1:9"
    assert str(inner.key_place("y")) == "f.yaml:2:3"
    sequence = inner.items["y"]
    assert isinstance(sequence, Sequence)
    assert str(sequence.items[1].place) == "f.yaml:2:10"


def test_a_duplicate_key_names_both_places(pure: bool) -> None:
    _, problems = read("a:\n  - x: 1\n    y: 2\n    x: 3\n", pure=pure)
    assert problems == ["f.yaml:4:5: a[0].x: stands twice (the first is at f.yaml:2:5: keep one)"]


def test_all_mistakes_of_a_file_at_once(pure: bool) -> None:
    _, problems = read("a: !!python/object:os.system x\nb: !x [1]\nc: 1\nc: 2\n? [d]\n: 1\n", pure=pure)
    assert [problem.split(" ")[0] for problem in problems] == [
        "f.yaml:1:4:",
        "f.yaml:2:4:",
        "f.yaml:4:1:",
        "f.yaml:5:3:",
    ]


def test_anchors_and_merge_keys(pure: bool) -> None:
    text = (
        "x-a: &a {ttl: 60, name: x}\nx-b: &b {ttl: 70}\none: {<<: *a, name: y}\ntwo: {<<: [*b, *a]}\nthree: [*a, *a]\n"
    )
    got = good(text, pure=pure)
    assert isinstance(got, dict)
    assert got["one"] == {"name": "y", "ttl": "60"}
    assert got["two"] == {"ttl": "70", "name": "x"}
    assert got["three"] == [{"ttl": "60", "name": "x"}] * 2


def test_a_quoted_merge_key_is_a_key(pure: bool) -> None:
    assert good("'<<': 1", pure=pure) == {"<<": "1"}


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(20)
)
DEEP = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [[[[[[[[*a{i - 1}]]]]]]]]\n" for i in range(1, 200))
HUNTER = "hunter2"


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        (BOMB, "f.yaml:6:8", "anchors explode"),
        (DEEP, "f.yaml:9:17", "anchors explode"),
        ("[" * 100_000, "f.yaml:1:65", "nested deeper than 64"),
        ("{a: " * 100_000, "f.yaml:1:257", "nested deeper than 64"),
        ("- " * 100_000, "f.yaml:1:129", "nested deeper than 64"),
        ("a: &a [*a]", "f.yaml:1:8", "inside its own anchor"),
        ("a: {<<: 1}", "f.yaml:1:9", "<< takes a map"),
        ("a: 1\n---\nb: 2", "f.yaml:2:1", "a second document"),
        ("a: x\x00", "f.yaml:1:5", "U+0000"),
        ("a:\n\tb: 1", "f.yaml:2:1", "a tab"),
        (f"password: *{HUNTER}", "f.yaml:1:11", "an alias of no anchor"),
        (f"password: !{HUNTER}", "f.yaml:1:11", "has a tag"),
        (f"password: !{HUNTER}!x y", "f.yaml:1:11", "is not YAML"),
        (f"password: @{HUNTER}", "f.yaml:1:11", "can't begin a value"),
        (f"password: a: {HUNTER}", "f.yaml:1:12", "a colon where no key can stand"),
        (f"password: '{HUNTER}", "f.yaml:1:19", "is not YAML"),
        (f'password: "\\{HUNTER}"', "f.yaml:1:1", "is not YAML"),
        (f"password: [{HUNTER}", "f.yaml:", "is not YAML"),
        ("a: 1 # \u2066", "f.yaml:1:8", "U+2066"),
        ("a: [x\u202e]", "f.yaml:1:6", "U+202E"),
        ('a: "x\\0"', "f.yaml:1:4", "a NUL or half a character"),
        ("%YAML 1.9\n---\na: 1", "f.yaml", "is not YAML"),
    ],
)
def test_hostile_text_is_one_mistake_at_its_place(pure: bool, text: str, where: str, what: str) -> None:
    _, problems = read(text, pure=pure)
    assert len(problems) == 1
    assert problems[0].startswith(where)
    assert what in problems[0]
    assert HUNTER not in problems[0]
    assert "(" in problems[0]


SLIPS = {
    "a line too deep below a value": (
        "accounts:\n  a@x.org:\n    quota: 1G\n      password: {env: hunter2}\n",
        "f.yaml:4:7: is not YAML: is indented further than line 3",
        "indent it as line 3: 4 blanks",
    ),
    "an entry at the left": (
        "accounts:\n  a@x.org:\n    quota: 1G\nhunter2@x.org:\n    quota: 1G\n  c@x.org:\n    quota: 1G\n",
        "f.yaml:4:1: is not YAML: stands too far left: it ends what line 6 still belongs to",
        "indent it, and what belongs to it",
    ),
    "a word of the format at the left is none": (
        "accounts:\n  a@x.org:\n    quota: 1G\ndns:\n    x.org:\n      []\n  y.org:\n    []\n",
        "f.yaml:7:3: is not YAML: is indented by 2 blanks",
        "indent it by 0 or 4",
    ),
    "an entry one blank too far left": (
        "accounts:\n  a@x.org:\n    quota: 1G\n hunter2@x.org:\n    quota: 1G\n",
        "f.yaml:4:2: is not YAML: is indented by 1 blank",
        "indent it by 0 or 2",
    ),
    "a list's entry of which one line is out": (
        "dns:\n  x.org:\n    - type: A\n     name: www\n      content: hunter2\n",
        "f.yaml:4:6: is not YAML: is indented by 5 blanks",
        "indent it by 4 or 6",
    ),
    "no colon behind an entry": (
        "accounts:\n  a@x.org:\n    quota: 1G\n  hunter2@x.org\n    quota: 1G\n",
        "f.yaml:4:3: is not YAML: has no colon",
        "end a key with a colon",
    ),
    "no colon behind the first word": ("accounts\n  a@x.org:\n    quota: 1G\n", "f.yaml:1:1", "has no colon"),
    "no colon behind a word": (
        "accounts:\n  a@x.org:\n    quota hunter2\n    locked: no\n",
        "f.yaml:3:5: is not YAML: has no colon",
        "end a key",
    ),
    "no blank behind a dash": (
        "dns:\n  x.org:\n    -{type: A}\n    - {type: A}\n",
        "f.yaml:3:5",
        "a dash without a blank",
    ),
    "an open bracket": (
        "accounts:\n  a@x.org:\n    password: {env: hunter2\n  b@x.org:\n    quota: 1G\n",
        "f.yaml:3:15: is not YAML: opens a bracket that is not closed",
        "close the bracket",
    ),
    "an open quote": (
        'accounts:\n  a@x.org:\n    description: "hunter2\n  b@x.org:\n    quota: 1G\n',
        "f.yaml:3:18: is not YAML: opens a quote that is not closed",
        "close the quote",
    ),
    "a colon in a text": (
        "accounts:\n  a@x.org:\n    description: hunter2: b\n",
        "f.yaml:3:25: is not YAML: a colon where no key can stand",
        "put the text into quotes",
    ),
}


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_is_told_where_it_was_made(pure: bool, name: str) -> None:
    text, where, what = SLIPS[name]
    _, problems = read(text, pure=pure)
    assert len(problems) == 1
    assert problems[0].startswith(where)
    assert what in problems[0]
    assert HUNTER not in problems[0]


def test_nothing_is_no_document(pure: bool) -> None:
    assert read("", pure=pure) == (None, [])
    assert read("# only a comment\n", pure=pure) == (None, [])


trees = st.recursive(
    st.text(
        st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\ufeff\ufffe\uffff\u2028\u2029\x85")
    ),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abcdé<>-.", min_size=1), inner),
    max_leaves=20,
)


@settings(deadline=None, max_examples=tries(60))
@given(tree=trees)
def test_json_reads_back_and_every_scalar_stands_at_its_place(pure: bool, tree: object) -> None:
    text = json.dumps(tree, ensure_ascii=False, indent=1)
    node, problems = read(text, pure=pure)
    assert problems == []
    assert node is not None
    assert value(node) == tree
    lines = text.split("\n")
    for scalar in scalars(node):
        place = scalar.place
        assert json.JSONDecoder().raw_decode(lines[place.line - 1][place.column - 1 :])[0] == scalar.text


def scalars(node: yaml.Node) -> list[Scalar]:
    if isinstance(node, Scalar):
        return [node]
    children = node.items.values() if isinstance(node, Mapping) else node.items if isinstance(node, Sequence) else []
    return [scalar for child in children for scalar in scalars(child)]


@settings(deadline=None, max_examples=tries(60))
@given(text=st.text(st.sampled_from("ab:- []{},&*!|>'\"%@`#?\n\t<"), max_size=40))
def test_any_text_is_read_or_is_a_mistake(pure: bool, text: str) -> None:
    node, problems = read(text, pure=pure)
    if node is not None:
        value(node, typed=True)
    assert all(problem.startswith("f.yaml") for problem in problems)
