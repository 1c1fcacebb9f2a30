"""The YAML is edited as a person would: the diff touches the entry and nothing else, or nothing is written."""

from __future__ import annotations

import base64
import datetime as dt
import difflib
import random
import resource
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from properties import tries

from reconciler.desired.edit import AddKey, Edit, SetKey, edit
from reconciler.desired.load import load
from reconciler.problem import InvalidDirectory, ReconcilerError
from reconciler.resources import SecretRef

EXAMPLE = Path(__file__).parents[1] / "example" / "desired-state"
HEAD = "version: 1\nstack: mana\n"
PUBLIC = base64.b64encode(bytes(range(32))).decode()
DAY = dt.date(2026, 11, 22)
FACTS: dict[str, Any] = {
    "selector": "ed202611",
    "algorithm": "ed25519",
    "public_key": PUBLIC,
    "private_key": SecretRef("file", "../secrets/ed202611.mana.how.pem"),
    "stage": "pending",
    "since": DAY,
}
FLOW = (
    f"{{selector: ed202611, algorithm: ed25519, public_key: {PUBLIC}, "
    "private_key: {file: ../secrets/ed202611.mana.how.pem}, stage: pending, since: 2026-11-22}"
)


def block(dash: int, column: int | None = None) -> str:
    column = dash + 2 if column is None else column
    first, *others = FLOW[1:-1].split(", ")
    return f"{' ' * dash}-{' ' * (column - dash - 1)}{first}\n" + "".join(f"{' ' * column}{line}\n" for line in others)


def edited(path: Path, text: str, *edits: Edit) -> str:
    """Edit a directory of one file and return what that file says then."""
    (path / "a.yaml").write_bytes(text.encode())
    edit(load(path), edits).write()
    assert [item.name for item in path.iterdir()] == ["a.yaml"], "nothing is left lying about"
    return (path / "a.yaml").read_bytes().decode()


def changes(before: str, after: str) -> tuple[list[str], list[str]]:
    lines = list(difflib.ndiff(before.splitlines(keepends=True), after.splitlines(keepends=True)))
    return [line[2:] for line in lines if line[0] == "-"], [line[2:] for line in lines if line[0] == "+"]


ADD = AddKey("mana.how", FACTS)
RSA = "{selector: r, algorithm: rsa}"


# ------------------------------------------------------------------------------------------------------- a new entry
@pytest.mark.parametrize(
    ("text", "added"),
    {
        "a block of its own": ("dkim:\n  mana.how:\n    - selector: r\n      algorithm: rsa\n", block(4)),
        "dashes below the key": ("dkim:\n  mana.how:\n  - selector: r\n    algorithm: rsa\n", block(2)),
        "wide dashes": ("dkim:\n  mana.how:\n    -   selector: r\n        algorithm: rsa\n", block(4, 8)),
        "one line an entry": (f"dkim:\n  mana.how:\n    - {RSA}\n", f"    - {FLOW}\n"),
        "blank lines between": (
            f"dkim:\n  mana.how:\n    - {{selector: a, algorithm: rsa, stage: retired}}\n\n    - {RSA}\n",
            f"\n    - {FLOW}\n",
        ),
        "comments below": (
            "dkim:\n  mana.how:\n    - selector: r  # tail\n      algorithm: rsa # x\n      # public_key: A\n",
            block(4),
        ),
        "a dash by itself": ("dkim:\n  mana.how:\n    -\n      selector: r\n      algorithm: rsa\n", block(4, 6)),
        "an explicit key": ("dkim:\n  ? mana.how\n  : - selector: r\n      algorithm: rsa\n", block(4)),
        "an anchor above": ("dkim:\n  mana.how: &k\n    # - x\n    - selector: r\n      algorithm: rsa\n", block(4)),
        "nothing there": ("dkim:\n  mana.how:\n    []\n", None),
        "a new domain": (f"dkim:\n  b.example:\n    - {RSA}\n", "  mana.how:\n" + block(4)),
        "a new domain, flat": (f"dkim:\n    b.example:\n    - {RSA}\n", "    mana.how:\n" + block(4)),
        "an empty key": ("dkim:   # none yet\n", "  mana.how:\n" + block(4)),
        "a block scalar at the end": (
            f"dkim:\n  mana.how:\n    - algorithm: ed25519\n      selector: r\n      public_key: |\n       {PUBLIC}\n",
            block(4),
        ),
    }.values(),
)
def test_an_entry_is_added_in_the_style_of_its_list(tmp_path: Path, text: str, added: str | None) -> None:
    for tail in ("", "# behind\naccounts: {}   # far right\n"):
        before = HEAD + text + tail
        removed, new = changes(before, edited(tmp_path, before, ADD))
        if added is None:
            assert removed == ["    []\n"]
            assert new == [f"    [{FLOW}]\n"]
        else:
            assert removed == []
            assert "".join(new) == added


@pytest.mark.parametrize(
    ("text", "after"),
    [
        (f"dkim: {{mana.how: [{RSA}]}}\n", f"dkim: {{mana.how: [{RSA}, {FLOW}]}}\n"),
        (f"dkim: {{mana.how: [{RSA},]}} # x\n", f"dkim: {{mana.how: [{RSA}, {FLOW},]}} # x\n"),
        ("dkim: {}\n", f"dkim: {{mana.how: [{FLOW}]}}\n"),
        ("dkim: ~\n", "dkim:\n  mana.how:\n" + block(4)),
        (f"dkim: {{b.example: [{RSA}]}}", f"dkim: {{b.example: [{RSA}], mana.how: [{FLOW}]}}"),
        (
            f"dkim:\n  mana.how: [\n    {RSA} # one\n  ]\n",
            f"dkim:\n  mana.how: [\n    {RSA},\n    {FLOW} # one\n  ]\n",
        ),
        (f'{{"dkim": {{"mana.how": [{RSA}]}}}}', f'{{"dkim": {{"mana.how": [{RSA}, {FLOW}]}}}}'),
    ],
)
def test_an_entry_is_added_to_a_list_in_brackets(tmp_path: Path, text: str, after: str) -> None:
    (tmp_path / "0.yaml").write_text(HEAD)
    (tmp_path / "a.yaml").write_text(text)
    edit(load(tmp_path), [ADD]).write()
    assert (tmp_path / "a.yaml").read_text() == after


def test_line_breaks_byte_order_mark_and_a_missing_last_line_break_stay(tmp_path: Path) -> None:
    text = f"\ufeff{HEAD}dkim:\n  mana.how:\n    - {RSA}".replace("\n", "\r\n")
    after = edited(tmp_path, text, ADD, SetKey("mana.how", "r", {"stage": "retired", "since": DAY}))
    changed = RSA[:-1] + ", stage: retired, since: 2026-11-22}"
    assert after == text.replace(RSA, changed) + f"\r\n    - {FLOW}"


def test_the_example_gets_a_key_and_nothing_else(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "state")
    path = tmp_path / "state" / "dkim.yaml"
    before = {item.name: item.read_text() for item in path.parent.iterdir()}
    edit(load(path.parent), [ADD, SetKey("mana.how", "mana2026", {"stage": "active", "since": DAY})]).write()
    after = {item.name: item.read_text() for item in path.parent.iterdir()}
    removed, new = changes(before["dkim.yaml"], after["dkim.yaml"])
    assert removed == []
    assert "".join(new) == "      stage: active\n      since: 2026-11-22\n" + block(4)
    assert after | {"dkim.yaml": ""} == before | {"dkim.yaml": ""}


def test_it_goes_into_the_file_that_holds_the_domain_or_else_the_keys(tmp_path: Path) -> None:
    (tmp_path / "0.yaml").write_text(HEAD)
    (tmp_path / "sub").mkdir()
    made = edit(load(tmp_path), [ADD])
    assert list(made.files) == ["dkim.yaml"]
    assert made.files["dkim.yaml"] == (None, f"dkim:\n  mana.how:\n{block(4)}".encode())
    (tmp_path / "1.yaml").write_text(f"dkim: {{b.example: [{RSA}]}}\n")
    assert list(edit(load(tmp_path), [ADD]).files) == ["1.yaml"]
    (tmp_path / "sub" / "keys.yaml").write_text(f"dkim: {{mana.how: [{RSA}]}}\n")
    made = edit(load(tmp_path), [ADD])
    assert list(made.files) == ["sub/keys.yaml"]
    made.write()
    assert load(tmp_path).digest == made.directory.digest
    assert [key.selector for key in made.directory.spec.dkim["mana.how"]] == ["r", "ed202611"]


def test_a_new_file_is_no_more_closed_than_others_and_never_takes_a_secrets_place(tmp_path: Path) -> None:
    (tmp_path / "0.yaml").write_text(HEAD)
    edit(load(tmp_path), [ADD]).write()
    assert stat.S_IMODE((tmp_path / "dkim.yaml").stat().st_mode) == stat.S_IMODE((tmp_path / "0.yaml").stat().st_mode)
    (tmp_path / "dkim.yaml").write_text("sops: {}\nkey: ENC[x]\n")
    with pytest.raises(ReconcilerError, match="no file of desired state"):
        edit(load(tmp_path), [ADD])


@pytest.mark.parametrize(
    ("selector", "written"),
    [("s1", "s1"), ("2026", '"2026"'), ("1e5", '"1e5"'), ("on", '"on"'), ("null", '"null"'), ("2026.a", "2026.a")],
)
def test_what_another_parser_takes_for_no_text_is_quoted(tmp_path: Path, selector: str, written: str) -> None:
    said = edited(tmp_path, f"{HEAD}dkim: {{}}\n", AddKey("mana.how", {"selector": selector, "algorithm": "rsa"}))
    assert f"[{{selector: {written}, algorithm: rsa}}]" in said
    ref = SecretRef("sops", "../my secrets/x.sops.yaml#a.b")
    facts = {"selector": "r", "algorithm": "ed25519", "public_key": "+" + PUBLIC[1:], "private_key": ref}
    said = edited(tmp_path, f"{HEAD}dkim: {{}}\n", AddKey("mana.how", facts))
    assert f'public_key: +{PUBLIC[1:]}, private_key: {{sops: "../my secrets/x.sops.yaml#a.b"}}' in said


# ------------------------------------------------------------------------------------------------------ other values
@pytest.mark.parametrize(
    ("entry", "after"),
    [
        ("{selector: r, algorithm: rsa, stage: active}", "{selector: r, algorithm: rsa, stage: retired, since: DAY}"),
        (
            "{selector: r, stage: 'active', algorithm: rsa}",
            "{selector: r, stage: 'retired', algorithm: rsa, since: DAY}",
        ),
        (
            '{selector: r, algorithm: rsa, "stage": "active", since: "2026-01-01"} # x',
            '{selector: r, algorithm: rsa, "stage": "retired", since: "DAY"} # x',
        ),
        (
            "selector: r\n      stage: &s active   # now\n      algorithm: rsa",
            "selector: r\n      stage: &s retired   # now\n      algorithm: rsa\n      since: DAY",
        ),
        (
            "selector: r\n      stage: >-\n        active\n\n      algorithm: rsa",
            "selector: r\n      stage: retired\n\n      algorithm: rsa\n      since: DAY",
        ),
        (
            "selector: r\n      algorithm: rsa\n      since: 2025-01-01",
            "selector: r\n      algorithm: rsa\n      since: DAY\n      stage: retired",
        ),
        (
            "&k\n      selector: r\n      algorithm: rsa",
            "&k\n      selector: r\n      algorithm: rsa\n      stage: retired\n      since: DAY",
        ),
    ],
)
def test_a_field_is_set_where_it_stands_or_behind_the_last(tmp_path: Path, entry: str, after: str) -> None:
    text = f"{HEAD}dkim:\n  mana.how:\n    - {entry}\n    # more\n    - {{selector: q, algorithm: ed25519}}\n"
    said = edited(tmp_path, text, SetKey("mana.how", "r", {"stage": "retired", "since": DAY}))
    assert said == text.replace(entry, after.replace("DAY", "2026-11-22"))


def test_an_alias_is_replaced_where_it_stands_and_what_it_names_stays(tmp_path: Path) -> None:
    text = f"{HEAD}x-s: &s active\nx-k: &k {{algorithm: rsa, stage: active}}\ndkim:\n  mana.how:\n"
    text += "    - {selector: r, <<: *k}\n    - {selector: q, algorithm: ed25519, stage: *s}\n"
    said = edited(
        tmp_path,
        text,
        SetKey("mana.how", "q", {"stage": "retired"}),
        SetKey("mana.how", "r", {"stage": "retired"}),
    )
    assert said == text.replace("*s}", "retired}").replace("*k}", "*k, stage: retired}")


@pytest.mark.parametrize(
    "text",
    [
        f"dkim:\n  b.example: &k\n    - {RSA}\n  mana.how: *k\n",
        f"x-k: &k [{RSA}]\ndkim: {{mana.how: *k}}\n",
        f"x-k: &k {{mana.how: [{RSA}]}}\ndkim: *k\n",
        f"dkim:\n  mana.how: &k\n    - {RSA}\n  b.example: *k\n",
        f"x-k: &k {{mana.how: [{RSA}]}}\ndkim: {{<<: *k}}\n",
    ],
)
def test_what_an_anchor_would_change_besides_is_left_to_a_person(tmp_path: Path, text: str) -> None:
    for one in (ADD, SetKey("mana.how", "r", {"stage": "retired", "since": DAY})):
        (tmp_path / "a.yaml").write_text(HEAD + text)
        with pytest.raises(ReconcilerError, match="can't be edited") as caught:
            edit(load(tmp_path), [one])
        assert "write it by hand: to " in str(caught.value)
        assert (tmp_path / "a.yaml").read_text() == HEAD + text


def test_an_edit_that_makes_the_directory_invalid_writes_nothing(tmp_path: Path) -> None:
    text = f"{HEAD}dkim:\n  mana.how:\n    - {RSA}\n"
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InvalidDirectory, match="public_key: is missing"):
        edit(load(tmp_path), [SetKey("mana.how", "r", {"stage": "retiring", "since": DAY})])
    with pytest.raises(InvalidDirectory, match="stands"):
        edit(load(tmp_path), [AddKey("mana.how", FACTS | {"selector": "r"})])
    assert (tmp_path / "a.yaml").read_text() == text


# ---------------------------------------------------------------------------------------------------------- the files
def test_mode_and_link_stay_and_a_change_meanwhile_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "keys.txt"
    real.write_text(f"{HEAD}dkim:\n  mana.how:\n    - {RSA}\n")
    real.chmod(0o640)
    (tmp_path / "a.yaml").symlink_to("real/keys.txt")
    edit(load(tmp_path), [ADD]).write()
    assert (tmp_path / "a.yaml").is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert real.read_text().endswith(block(4) if "- selector" in real.read_text() else f"- {FLOW}\n")
    made = edit(load(tmp_path), [SetKey("mana.how", "r", {"stage": "retired"})])
    real.write_text(real.read_text() + "# a person was here\n")
    with pytest.raises(ReconcilerError, match="changed meanwhile"):
        made.write()
    assert real.read_text().endswith("# a person was here\n")


def test_a_file_that_is_read_only_stays(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"{HEAD}dkim:\n  mana.how:\n    - {RSA}\n")
    (tmp_path / "a.yaml").chmod(0o444)
    with pytest.raises(ReconcilerError, match="can't be written: it is read-only"):
        edit(load(tmp_path), [ADD]).write()
    assert [item.name for item in tmp_path.iterdir()] == ["a.yaml"]
    assert "ed202611" not in (tmp_path / "a.yaml").read_text()


def test_a_disk_without_room_is_an_error_and_leaves_all_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"{HEAD}dkim:\n  mana.how:\n    - {RSA}\n")
    made, before = edit(load(tmp_path), [ADD]), (tmp_path / "a.yaml").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # root's writes fail, too
    try:
        with pytest.raises(ReconcilerError, match="can't be written"):
            made.write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.yaml": before}


# ------------------------------------------------------------------------------------------------------- any file
FIELDS = st.fixed_dictionaries(
    {"stage": st.sampled_from(["retired", "active"])},
    optional={"since": st.just("2026-01-02"), "public_key": st.just(PUBLIC)},
)


@st.composite
def a_file(draw: Any) -> str:
    """Write a directory of keys with odd spaces, comments, quotes and both styles."""
    rnd = random.Random(draw(st.integers(0, 2**32)))
    indent, offset = draw(st.integers(1, 5)), draw(st.integers(0, 4))
    dash, gap = indent + offset, draw(st.integers(1, 4))
    lines = [*HEAD.splitlines(), "dkim:" + rnd.choice(["", "  # keys"])]
    for domain in draw(st.lists(st.sampled_from(["mana.how", "b.example", '"c.example"']), unique=True, min_size=1)):
        lines += rnd.choice([[], [""], ["# between"]])
        lines.append(" " * indent + domain + ":" + rnd.choice(["", " # list"]))
        for number in range(draw(st.integers(1, 3))):
            facts = {"selector": f"s{number}", "algorithm": "ed25519"} | draw(FIELDS)
            facts["stage"] = "active" if number == 0 else "retired"
            pairs = [
                f"{name}: {rnd.choice(['', chr(34), chr(39)]) if 0 else ''}{value}" for name, value in facts.items()
            ]
            pairs = [pair.replace(": ", ": '") + "'" if rnd.random() < 0.3 else pair for pair in pairs]
            lines += rnd.choice([[], [], [""], [" " * dash + "# above"]])
            if rnd.random() < 0.4:
                lines.append(f"{' ' * dash}-{' ' * gap}{{{', '.join(pairs)}}}" + rnd.choice(["", " # tail"]))
            else:
                column = dash + 1 + gap
                first, *others = pairs
                lines.append(f"{' ' * dash}-{' ' * gap}{first}")
                lines += [" " * column + line + rnd.choice(["", "   # why"]) for line in others]
                lines += rnd.choice([[], [" " * column + "# below"]])
    lines += rnd.choice([[], ["", "# end"], ["accounts: {}"]])
    return rnd.choice(["\n", "\r\n"]).join(lines) + rnd.choice(["", "\n"])


@settings(max_examples=tries(150), deadline=None)
@given(text=a_file(), which=st.integers(0, 2), data=st.data())
def test_any_edit_touches_only_its_lines(
    tmp_path_factory: pytest.TempPathFactory, text: str, which: int, data: Any
) -> None:
    path = tmp_path_factory.mktemp("any")
    (path / "a.yaml").write_bytes(text.encode())
    before = load(path)
    domain = data.draw(st.sampled_from(sorted(before.spec.dkim)))
    selector = data.draw(st.sampled_from([key.selector for key in before.spec.dkim[domain]]))
    change = SetKey(domain, selector, {"stage": "retired", "since": DAY})
    edits: list[Edit] = [[ADD], [change], [change, AddKey(domain, FACTS)]][which]  # type: ignore[list-item]
    made = edit(before, edits)  # which compares what both say
    made.write()
    assert load(path).digest == made.directory.digest
    after = (path / "a.yaml").read_bytes().decode()
    old, new = text.splitlines(keepends=True), after.splitlines(keepends=True)
    kept = [line.rstrip("\r\n") for line in old]
    changed = [line for line in kept if line not in [item.rstrip("\r\n") for item in new]]
    assert len(changed) <= 2 * sum(isinstance(one, SetKey) for one in edits)
    assert all("stage" in line or "since" in line or "{" in line for line in changed)
    assert ("\r\n" in after) == ("\r\n" in text)
    assert after.endswith("\n") == text.endswith("\n") or which == 0
