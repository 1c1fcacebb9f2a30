"""Times on a command line, as types of click's: ``90s``, ``5m``, ``12h``, ``7d``, or a moment in ISO 8601."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click


def seconds(text: str) -> int:
    """Read a time such as ``5m``."""
    from reconciler.desired.spec.targets import duration

    try:
        return duration(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no time: write it like 90s, 5m, 12h or 7d") from None


def moment(text: str) -> datetime:
    """Read a time from now, or a moment, of this machine's zone where it names none; return it in UTC."""
    try:
        return datetime.now(UTC) + timedelta(seconds=seconds(text))
    except click.BadParameter:
        pass
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} is no moment: write it like 2h, 7d or 2026-11-29T18:00") from None
