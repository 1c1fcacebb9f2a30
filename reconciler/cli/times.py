"""Times on a command line (``90s``, ``5m``, ``12h``, ``7d``, or a moment in ISO 8601), and where to listen."""

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


def endpoint(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, int] | None:
    """Read where to listen; port 0 lets the system choose one."""
    from reconciler import url

    if value is None:
        return None
    host, _, port = value.rpartition(":")
    try:
        return (url.endpoint(f"{host}:1")[0], 0) if port == "0" else url.endpoint(value)
    except ValueError:
        raise click.BadParameter("write it like 127.0.0.1:9780") from None
