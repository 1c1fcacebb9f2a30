"""What was refused is remembered, on the disk where nobody watches, and never as it is."""

from __future__ import annotations

from reconciler.refusals import Refusals

FACTS = ("http://127.0.0.1:8080", "admin", "correct horse")


def test_it_is_remembered_as_long_as_it_lives():
    refusals = Refusals()
    assert not refusals.holds(*FACTS)
    refusals.add(*FACTS)
    assert refusals.holds(*FACTS)
    assert not refusals.holds(*FACTS[:-1], "another")
    assert not Refusals().holds(*FACTS)


def test_a_file_remembers_it_without_the_password(tmp_path):
    path = tmp_path / "data" / "refusals-mana.json"
    Refusals(path).add(*FACTS)
    again = Refusals(path)
    assert again.holds(*FACTS)
    assert "correct horse" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    again.forget()
    assert again.empty
    assert Refusals(path).empty


def test_facts_are_not_run_together(tmp_path):
    refusals = Refusals()
    refusals.add("host", "ab", "c")
    assert not refusals.holds("host", "a", "bc")


def test_a_damaged_file_costs_its_knowledge_alone(tmp_path):
    path = tmp_path / "refusals-mana.json"
    for text in ("", "{}", '{"key": "zz", "refused": []}', '{"key": "", "refused": 7}', "[" * 100_000):
        path.write_text(text)
        refusals = Refusals(path)
        refusals.add(*FACTS)
        assert Refusals(path).holds(*FACTS)


def test_the_latest_are_kept():
    refusals = Refusals()
    for number in range(300):
        refusals.add(str(number))
    assert refusals.holds("299")
    assert not refusals.holds("0")
