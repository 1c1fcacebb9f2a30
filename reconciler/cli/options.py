"""The options that every command takes, before or behind its name, and those that `plan` and `apply` share."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

TARGETS = ("stalwart", "cloudflare", "compose")
OUTPUTS = ("text", "json", "markdown")
_META = "reconciler.options"

Decorated = TypeVar("Decorated", bound=Callable[..., Any] | click.Command)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says, wherever on it."""

    state: Path | None = None
    data: Path | None = None
    target: tuple[str, ...] = ()
    output: str = "text"
    no_color: bool = False
    verbose: bool = False

    @classmethod
    def of(cls, ctx: click.Context) -> Options:
        """Gather them from a context."""
        return cls(**ctx.meta.get(_META, {}))

    def colour(self, environ: Mapping[str, str], *, terminal: bool) -> bool:
        """Whether to colour (https://no-color.org: any value but the empty one switches off)."""
        return terminal and not (self.no_color or environ.get("NO_COLOR") or environ.get("TERM") == "dumb")


def _store(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Remember a value in the meta data, which a command shares with its group: the one behind the command wins."""
    stored: dict[str, Any] = ctx.meta.setdefault(_META, {})
    name = str(param.name)
    if value in (None, False, ()):
        return
    stored[name] = (*stored.get(name, ()), *value) if isinstance(value, tuple) else value


_QUIET: dict[str, Any] = {"expose_value": False, "callback": _store}


def common(decorated: Decorated) -> Decorated:
    """Add the options to a command or a group."""
    directory = click.Path(path_type=Path)
    for option in (
        click.option("-v", "--verbose", is_flag=True, help="Show all of a list, log each step.", **_QUIET),
        click.option("--no-color", is_flag=True, help="No colours; NO_COLOR does the same.", **_QUIET),
        click.option("--output", type=click.Choice(OUTPUTS), help="How results are printed (text).", **_QUIET),
        click.option(
            "--target", type=click.Choice(TARGETS), multiple=True, help="This system only; repeatable.", **_QUIET
        ),
        click.option("--data", type=directory, help="Journal, lease, caches (.reconciler beside the state).", **_QUIET),
        click.option("--state", type=directory, help="The directory of YAML (desired-state).", **_QUIET),
    ):
        decorated = option(decorated)
    return decorated


def choices(decorated: Callable[..., Any]) -> Callable[..., Any]:
    """Add what a plan is narrowed to or widened by to a command."""
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


def wants_json(args: list[str]) -> bool:
    """Whether JSON was asked for on a command line that may be wrong: its error is then JSON too."""
    pairs = itertools.pairwise(args)
    return "--output=json" in args or any(pair == ("--output", "json") for pair in pairs)


def environ() -> Mapping[str, str]:
    """Return the environment, which secrets and overrides come from."""
    return os.environ
