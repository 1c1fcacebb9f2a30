"""What a plan is narrowed to or widened by: the options that `plan` and `apply` share, and a saved plan keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import click


@dataclass(frozen=True, slots=True)
class Choice:
    """The addresses and the permission that were given by hand."""

    targets: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    adopt: tuple[str, ...] = ()
    allow_deletes: int | None = None
    check_passwords: bool = False

    @classmethod
    def saved(cls, options: Mapping[str, Any]) -> Self:
        """Read them from a saved plan. Raises ValueError for what no plan holds."""
        lists = {name: options.get(name, []) for name in ("targets", "only", "adopt")}
        allowed = options.get("allow_deletes")
        strings = all(isinstance(item, str) for items in lists.values() if isinstance(items, list) for item in items)
        if not strings or not all(isinstance(items, list) for items in lists.values()):
            raise ValueError("options")
        if allowed is not None and (isinstance(allowed, bool) or not isinstance(allowed, int)):
            raise ValueError("options")
        checked = options.get("check_passwords", False)
        if not isinstance(checked, bool):
            raise ValueError("options")  # noqa: TRY004 (what no plan holds, as above)
        named = {name: tuple(items) for name, items in lists.items()}
        return cls(**named, allow_deletes=allowed, check_passwords=checked)

    def as_dict(self) -> dict[str, Any]:
        """Return them as `connect.work` and a saved plan take them."""
        return asdict(self)


def choices(decorated: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command."""
    for option in (
        click.option(
            "--check-passwords",
            is_flag=True,
            help="Log in once as each account (Stalwart from 0.16 shows no password).",
        ),
        click.option("--allow-deletes", type=click.IntRange(min=0), metavar="N", help="Allow up to N deletions, once."),
        click.option(
            "--adopt", multiple=True, metavar="ADDRESS", help="Take over what exists and differs; repeatable."
        ),
        click.option("--only", multiple=True, metavar="ADDRESS", help="This resource, and what it needs; repeatable."),
    ):
        decorated = option(decorated)
    return decorated
