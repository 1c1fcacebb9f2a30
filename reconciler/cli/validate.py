"""`reconciler validate`: check the directory alone, without network and secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from reconciler.cli import session
from reconciler.cli.session import Session
from reconciler.problem import InvalidDirectory

if TYPE_CHECKING:
    from reconciler.desired.spec import Spec
    from reconciler.desired.spec.stalwart import Stalwart


@click.command()
@session.command
def command(session: Session) -> int:
    """Check the directory alone: no network, no secrets. Ends with 3 and every mistake where it is invalid."""
    from reconciler.desired.load import doubts
    from reconciler.secrets.tracked import tracked

    try:
        directory = session.directory()
    except InvalidDirectory as error:
        if session.console.output != "json":
            raise
        from reconciler.report import json

        session.console.document(json.problems(error.problems) | {"valid": False})
        return error.exit_code
    found = {name: number for name, number in _counts(directory.spec).items() if number}
    named = {name: _WORDS.get(name, name) for name in found}
    listed = ", ".join(f"{number:,} {named[name][: -1 if number == 1 else None]}" for name, number in found.items())
    document = {
        "format_version": "1.0",
        "valid": True,
        "problems": [],
        "counts": found,
        "desired_hash": directory.digest,
    }
    said = f"{session.settings.state} is valid: {listed or 'nothing is declared'}."
    if doubted := (*doubts(directory), *tracked(directory, session.settings.environ)):
        from reconciler.report import json, text

        document |= json.problems(doubted)
        said = "\n".join([said, *(text.problem(item, session.style) for item in doubted)])
    session.console.result(said, document)
    return 0


_WORDS = {
    "lists": "mailing lists",
    "dkim": "DKIM keys",
    "records": "DNS records",
    "settings": "server settings",
    "providers": "SMTP providers",
}
"""What is called otherwise than by its key."""


def _counts(spec: Spec) -> dict[str, int]:
    """Count each map's entries, and where an entry is a list (keys, records) what is in it."""
    maps = {name: each.values() for name, each in spec if isinstance(each, dict)}
    counts = {name: sum(len(it) if isinstance(it, tuple) else 1 for it in each) for name, each in maps.items()}
    records = counts.pop("dns")
    return counts | {
        "records": records,
        "settings": _words(spec.stalwart),
        "providers": len(spec.smtp.providers),
        "consumers": len(spec.smtp.consumers),
        "links": len(spec.smtp.links),
    }


def _words(server: Stalwart) -> int:
    many = (server.allowed_ips, server.auto_ban.model_fields_set, server.listeners, server.settings, server.objects)
    return sum(word is not None for word in (server.hostname, server.default_domain)) + sum(len(each) for each in many)
