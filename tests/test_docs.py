"""The page for contributors names files: they have to be there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("CONTRIBUTING.md", "docs/faults.md", "docs/simulator.md", "docs/adr/0006-one-room-for-each-fact.md")


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_there(page: str) -> None:
    text = (ROOT / page).read_text()
    named = {*re.findall(r"`((?:reconciler|tests|docs|bench)/[\w./-]*)`", text)}
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    "page",
    ["README.md", "CONTRIBUTING.md", *(str(page.relative_to(ROOT)) for page in sorted(ROOT.glob("docs/**/*.md")))],
)
def test_every_link_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    links = [item.partition("#")[0] for item in re.findall(r"\]\((?!https?:)([^)#][^)]*)\)", text)]
    assert [item for item in links if not ((ROOT / page).parent / item).exists()] == []


def test_every_fault_has_a_test_that_is_there_or_a_reason() -> None:
    """At most three of the matrix are excused (issue 12)."""
    rows = re.findall(r"(?m)^\| (\d+) \|.*\| (.*) \|$", (ROOT / "docs/faults.md").read_text())
    assert [int(number) for number, _ in rows] == list(range(1, 32))
    assert sum("excused:" in held for _, held in rows) <= 3
    for number, held in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)`::((?:`\w+`(?:, )?)+)", held)
        assert named or "excused:" in held, number
        for file, tests in named:
            text = (ROOT / file).read_text()
            missing = [
                name
                for name in re.findall(r"\w+", tests)
                if not re.search(rf"(?m)^ *(def|class) {name}\b|^{name} =", text)
            ]
            assert missing == [], (number, file)
