"""The page for contributors names files: they have to be there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("CONTRIBUTING.md", "docs/simulator.md", "docs/adr/0006-one-room-for-each-fact.md")


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_there(page: str) -> None:
    text = (ROOT / page).read_text()
    named = {*re.findall(r"`((?:reconciler|tests|docs|bench)/[\w./-]*)`", text)}
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", [*PAGES, "README.md", "docs/format.md", "docs/daemon.md", "docs/security.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    links = [item.partition("#")[0] for item in re.findall(r"\]\((?!https?:)([^)#][^)]*)\)", text)]
    assert [item for item in links if not ((ROOT / page).parent / item).exists()] == []
