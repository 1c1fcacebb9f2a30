"""`reconciler dkim generate`: a new key, its private half in a store and its entry in the YAML."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import session
from reconciler.cli.session import Session
from reconciler.problem import Problem, ReconcilerError, Refused, Severity

if TYPE_CHECKING:
    from reconciler.desired.spec import Spec
    from reconciler.desired.spec.mail import Key
    from reconciler.dkim.making import NewKey
    from reconciler.dns.publication import Answers, Look, Question

ALGORITHMS = ("ed25519", "rsa")
STORE_HELP = "file:FOLDER, age:FOLDER or sops:FILE (where the other keys are, else file:../secrets)."
RECIPIENT_HELP = "Who can decrypt a new age file or sops file; repeatable."


@click.command()
@click.argument("domain")
@click.option("--algorithm", type=click.Choice(ALGORITHMS), help="The first of both that the domain has no key of.")
@click.option("--selector", metavar="S", help="The key's name in DNS (such as ed202611).")
@click.option("--store", "where", metavar="WHERE", help=STORE_HELP)
@click.option("--recipient", "recipients", multiple=True, metavar="R", help=RECIPIENT_HELP)
@click.option("--pending", is_flag=True, help="Only publish it for now, also where no other key signs.")
@session.command
def command(
    session: Session,
    *,
    domain: str,
    algorithm: str | None,
    selector: str | None,
    where: str | None,
    recipients: tuple[str, ...],
    pending: bool,
) -> int:
    """Make a key for DOMAIN: store its private half and write its entry with the public one.

    It is active where no other key of its algorithm signs, else pending: `reconciler dkim rotate` lets it take over.
    Nothing is overwritten, and nothing but files is written. A run that was killed is ended by running it again.
    """
    from reconciler.desired.edit import edit, editing
    from reconciler.dkim.making import Order, make

    _check_selector(selector)
    with editing(session.settings.state) as directory:
        name = _domain(directory.spec, domain)
        entries = directory.spec.dkim.get(name, ())
        algorithm = algorithm or _missing(name, entries)
        stage = "pending" if pending or _at(entries, algorithm, "active") else "active"
        _check_room(name, entries, algorithm)
        session.console.step(f"Making a key for {name}")
        with session.stop.writing():
            order = Order(name, algorithm, selector, where, recipients)
            key = make(directory, order, session.settings.environ, session.settings.today, inquiry(session))
            made = edit(directory, [key.entry(stage, session.settings.today)])
            made.write()
    session.console.done()
    file = next(iter(made.files))
    said = _said(key, stage, file, made.directory.spec)
    session.console.result("\n".join(said), _document(session, key, stage, file))
    session.stop.check()
    return 0


def _domain(spec: Spec, text: str) -> str:
    """Return a domain as the directory writes it. One that it says nothing of at all is a slip of the pen."""
    from reconciler.desired.resources import zone_of

    name = _domain_name(text)
    known = {account.rpartition("@")[2].lower() for account in spec.accounts if "@" in account}
    known |= {item for item in (spec.stalwart.default_domain, *spec.dkim, *spec.dns) if item}
    if known and name not in {_domain_name(item) for item in known} and zone_of(name, spec.dns) is None:
        hint = "declare an account of it, or its zone under dns"
        raise unknown(text, sorted(known), hint, "the directory knows no such domain")
    return declared_name(spec, name) or name


def declared_name(spec: Spec, domain: str) -> str | None:
    """Return a domain as the directory writes it below ``dkim``; None where it does not."""
    from reconciler.dns.names import host

    wanted = _domain_name(domain)
    return next((name for name in spec.dkim if host(name) == wanted), None)


def _domain_name(domain: str) -> str:
    """Normalise a domain of the command line. Raises `ReconcilerError`."""
    from reconciler.dns.names import host

    try:
        return host(domain)
    except ValueError as error:
        raise ReconcilerError(Problem("DOMAIN", str(error), "write it like mana.how")) from None


def unknown(domain: str, known: Sequence[str], hint: str, summary: str) -> ReconcilerError:
    """Make the error for a domain that the directory does not know, or has no key of."""
    from reconciler.desired.checks import near

    return ReconcilerError(Problem(domain, summary, near(_domain_name(domain), known) or hint))


def inquiry(session: Session) -> Look:
    """Return how to ask the name servers, which is told while it lasts."""
    from reconciler.observe import nameservers

    def ask(questions: Collection[Question]) -> Answers:
        return nameservers.look(questions, nameservers=session.settings.nameservers, progress=session.console.step)

    return ask


def _check_selector(selector: str | None) -> None:
    """Refuse what the directory could not hold, before a key is stored under it."""
    from pydantic import ValidationError

    from reconciler.desired.spec.mail import Key

    try:
        Key.model_validate({"selector": selector or "any", "algorithm": "ed25519"})
    except ValidationError:
        hint = "write a-z, 0-9 and -, such as ed202611"
        raise ReconcilerError(Problem(f"--selector {selector}", "is no selector", hint)) from None


def _at(entries: Any, algorithm: str, *stages: str) -> list[Key]:
    return [key for key in entries if key.algorithm == algorithm and key.stage in stages]


def _missing(domain: str, entries: Any) -> str:
    for algorithm in ALGORITHMS:
        if not _at(entries, algorithm, "active", "pending"):
            return algorithm
    hint = f"`reconciler dkim rotate {domain}` replaces them; or name one with --algorithm"
    raise ReconcilerError(Problem(f"dkim.{domain}", "has a key of each algorithm", hint))


def _check_room(domain: str, entries: Any, algorithm: str) -> None:
    """Refuse a second key that waits: only one can take over."""
    for key in _at(entries, algorithm, "pending"):
        hint = f"`reconciler dkim rotate {domain}` lets it take over; or delete its entry"
        where = f"dkim/{domain}/{key.selector}"
        raise Refused(Problem(where, f"is pending already, as the next {algorithm} key", hint, Severity.REFUSED))


def _said(key: NewKey, stage: str, file: str, spec: Spec) -> list[str]:
    from reconciler.dkim.making import cares, publishes

    published = "That publishes it." if publishes(spec, key.domain) else "Publish it, too."
    then = "The server signs with it at once."
    if stage == "pending":
        then = f"Then, as soon as every name server shows it: `reconciler dkim rotate {key.domain}`."
    lines = [
        f"The {key.algorithm} key {key.selector} of {key.domain} is {stage}, as {file} says now.",
        f"{key.words}.",
        *cares(spec, [key]),
        "",
        "Now: `reconciler plan`, commit, `reconciler apply`.",
        f"{published} {then}",
    ]
    if not _at(spec.dkim[key.domain], "rsa", "active", "pending"):
        lines += [
            "",
            "Microsoft and Yahoo do not verify Ed25519, so the domain needs an RSA key, too:",
            f"  reconciler dkim generate {key.domain} --algorithm rsa",
        ]
    return lines


def _document(session: Session, key: NewKey, stage: str, file: str) -> dict[str, Any]:
    return {
        "format_version": "1.0",
        "domain": key.domain,
        "selector": key.selector,
        "algorithm": key.algorithm,
        "public_key": key.public_key,
        "private_key": {key.private_key.source: key.private_key.name},
        "found": key.found,
        "stage": stage,
        "since": session.settings.today.isoformat(),
        "file": file,
        "problems": [],
    }
