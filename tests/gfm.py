"""What GitHub makes of a Markdown text: its own parser (cmark-gfm), and what it reads in the texts of that."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

import cmarkgfm
from cmarkgfm.cmark import Options

_VOID = frozenset({"br", "img", "hr", "input"})
_QUIET = frozenset({"code", "pre", "a"})  # in which GitHub reads nothing more
# https://docs.github.com/en/get-started/writing-on-github/working-with-advanced-formatting/autolinked-references-and-urls
_READ = {
    "mention": r"(?<![\w`])@[A-Za-z0-9]",
    "issue": r"#[0-9]",
    "issue by GH": r"(?i)\bGH-[0-9]",
    "commit": r"\b[0-9a-fA-F]{7,40}\b",
    "emoji": r":[a-z0-9_+-]+:",
    "URL": r"(?i)https?:|www\.",
    "e-mail": r"[\w.+-]+@[\w-]",
    "formula": r"\$",
    "entity": r"&#|&[a-z]+;",
}


@dataclass
class Page(HTMLParser):
    """A rendered text: its elements in order, what stands in them, its comments, and the texts that GitHub reads."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    texts: list[tuple[tuple[str, ...], str]] = field(default_factory=list)
    path: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.path.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.path, tag
        assert self.path.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((tuple(self.path), data))

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.tags}

    @property
    def links(self) -> set[str | None]:
        return {attrs.get("href") for name, attrs in self.tags if name == "a"}

    def within(self, *names: str) -> list[str]:
        """Return the texts in the elements of these names, each with all that stands in it."""
        return [text for path, text in self.texts if set(names) <= set(path)]

    def read(self) -> list[tuple[str, str]]:
        """Return what GitHub would make of its texts: kind and text of each mention, reference, link and so on."""
        seen = [text for path, text in self.texts if not _QUIET & set(path)]
        return [(kind, text) for text in seen for kind, pattern in _READ.items() if re.search(pattern, text)]

    def rows(self) -> list[int]:
        """Return how many cells each row of its tables has."""
        numbers: list[int] = []
        for name, _ in self.tags:
            if name == "tr":
                numbers.append(0)
            elif name in ("td", "th"):
                numbers[-1] += 1
        return numbers


def render(text: str) -> Page:
    """Render a text as a comment is; HTML is kept, so that what would get through is seen."""
    page = Page()
    extensions = ["table", "autolink", "strikethrough", "tasklist"]
    page.feed(cmarkgfm.markdown_to_html_with_extensions(text, options=Options.CMARK_OPT_UNSAFE, extensions=extensions))
    page.close()
    assert page.path == []
    return page
