"""A directory from what is live: everything is read, then decided, then stored and written; no system is changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.importing import directory
from reconciler.importing.directory import document
from reconciler.importing.dns import keys, records
from reconciler.importing.draft import Draft
from reconciler.importing.found import ADMINISTRATOR, TOKEN, Found, Request, read
from reconciler.importing.mail import HEADS, accounts, domains, shared
from reconciler.importing.smtp import smtp, submissions
from reconciler.importing.targets import reconciler, stalwart
from reconciler.problem import Problem
from reconciler.resources import SecretRef
from reconciler.secrets.store import open_store
from reconciler.settings import Settings
from reconciler.target import Progress, Reveal

__all__ = ["Request", "Result", "import_", "write"]


@dataclass(frozen=True, slots=True)
class Result:
    """What was written: each file with what is in it, each secret's reference, and what a person has to know.

    ``environment`` names the variables that the directory refers to.
    """

    out: Path
    files: Mapping[str, str]
    secrets: tuple[SecretRef, ...]
    notes: tuple[Problem, ...]
    environment: tuple[str, ...]


def import_(
    request: Request,
    settings: Settings,
    reveal: Reveal,
    *,
    hide: Callable[[SecretRef, str], None] = lambda _ref, _value: None,
    progress: Progress = lambda _: None,
) -> Result:
    """Read what is live and write the directory. ``hide`` is told every secret that is found.

    Raises `ReconcilerError`: `TargetUnreadable`, or `Refused` for an empty or lost server.
    """
    request.check(settings.environ)
    return write(read(request, settings, reveal, progress), hide, progress)


def write(
    found: Found,
    hide: Callable[[SecretRef, str], None] = lambda _ref, _value: None,
    progress: Progress = lambda _: None,
) -> Result:
    """Write what was found. Secrets are stored first: a run after a killed one finds them equal and goes on.

    Raises `ReconcilerError`; `Refused` where a secret's name holds another value, which is never overwritten.
    """
    request = found.request
    with directory.beside(request.out, found.environ) as place:
        draft = Draft(open_store(request.store, place, found.environ, request.recipients), hide)
        contents = _contents(found, draft)
        progress("Writing the directory")
        refs = tuple(draft.store.put(name, value) for name, value in draft.secrets.items())
        files = {name: document(content, *_HEADS[name]) for name, (content, _) in contents.items()}
        directory.write(place, files, request.out)
    described = {name: what for name, (_, what) in contents.items()}
    needed = tuple(ref.name for ref, wanted in ((ADMINISTRATOR, found.server), (TOKEN, found.zones)) if wanted)
    notes = (*(found.server.omitted if found.server else ()), *draft.notes)
    return Result(request.out, described, refs, notes, needed)


_HEADS = {
    "reconciler.yaml": ("Where the systems are, and how far the reconciler may go with them.",),
    **HEADS,
    "dkim.yaml": (
        "The public key is what DNS publishes, so a plan of DNS needs no secret.",
        "The private key is what Stalwart signs with; `reconciler dkim generate` writes both.",
    ),
    "dns.yaml": ("Keyed by Cloudflare zone. The DKIM records follow from dkim.yaml.",),
    "smtp.yaml": ("Who delivers the mail of which service. Switching is one line and a pull request.",),
    "stalwart.yaml": ("What a recreated volume would lose, in words that mean the same for every server version.",),
}


def _contents(found: Found, draft: Draft) -> dict[str, tuple[dict[str, Any], str]]:
    """Decide on every file: its content, and in a few words what that is. Those without content are left out."""
    senders = submissions(found, draft)
    people = accounts(found, senders, draft)
    others = shared(found, draft)
    signing = keys(found, draft)
    homes = domains(found, signing.content, draft)
    zones = records(found, signing.derived, draft)
    consumers = smtp(found, senders, draft)
    server = stalwart(found, draft)
    number = sum(map(len, zones.values()))
    services = ", ".join(consumers.get("consumers", ()))
    contents = {
        "reconciler.yaml": (reconciler(found), f"where the systems are; the stack is called {found.stack}"),
        "accounts.yaml": ({"accounts": people} if people else {}, _count(len(people), "account")),
        "groups.yaml": (others, ", ".join(_count(len(entries), name[:-1]) for name, entries in others.items())),
        "domains.yaml": ({"domains": homes} if homes else {}, _count(len(homes), "domain")),
        "dkim.yaml": ({"dkim": signing.content} if signing.content else {}, _count(signing.count, "key")),
        "dns.yaml": ({"dns": zones} if number else {}, f"{_count(number, 'record')} of {', '.join(zones)}"),
        "smtp.yaml": ({"smtp": consumers} if consumers else {}, f"who delivers the mail of {services}"),
        "stalwart.yaml": ({"stalwart": server} if server else {}, f"settings: {', '.join(server)}"),
    }
    return {name: entry for name, entry in contents.items() if entry[0]}


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
