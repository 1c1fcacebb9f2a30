"""`reconciler dkim`: what is where, a new key, and the next step of a rotation."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import session
from reconciler.cli.session import Session, common
from reconciler.keys import ALGORITHMS
from reconciler.problem import Problem, ReconcilerError, Severity

if TYPE_CHECKING:
    from reconciler.desired.load import Directory
    from reconciler.desired.spec import Spec
    from reconciler.desired.spec.mail import Key
    from reconciler.dkim.findings import Standing
    from reconciler.dkim.making import NewKey, Rotation
    from reconciler.stack import Stack

_STORE_HELP = "file:FOLDER, age:FOLDER or sops:FILE (where the other keys are, else file:../secrets)."
_RECIPIENT_HELP = "Who can decrypt a new age file or sops file; repeatable."


class _InOrder(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return list(self.commands)


@click.group(cls=_InOrder, short_help="List, make and rotate DKIM keys.")
@common
def command() -> None:
    """DKIM keys: what is where, a new one, and the next step of a rotation."""


# ------------------------------------------------------------------------------------------------------------ list
@command.command("list", short_help="Show each key, where it signs and is published.")
@click.argument("domains", nargs=-1, metavar="[DOMAIN]...")
@session.command
def _list(session: Session, *, domains: tuple[str, ...]) -> int:
    """Show each key: its stage, whether the server signs with it, whether every name server publishes it.

    Shows the keys of every DOMAIN that is declared or that Stalwart has, or of the given ones. What is wrong stands
    below with what to do. AGE counts the days of a stage or, where `since` is not declared, since the month in the
    selector; DNS says how many of the authoritative name servers show the key.

    Ends with 0, whatever it finds, or 1 where Stalwart or a name server could not be asked.
    """
    stack = _stack(session)
    found, problems, readable = stack.standings()
    found = _chosen(found, domains, readable=readable)
    session.console.done()
    complete = (readable or "stalwart" not in stack.chosen) and not any(item.unread for item in found)
    _show(session, found, problems, complete=complete)
    return 0 if complete else 1


def _stack(session: Session, directory: Directory | None = None) -> Stack:
    """Connect to Stalwart alone where it takes part: the rest is asked of the name servers."""
    from reconciler.stack import Choice

    directory, chosen = directory or session.directory(), session.options.target
    takes_part = directory.spec.targets.stalwart is not None and (not chosen or "stalwart" in chosen)
    return session.stack(directory, Choice(("stalwart",)) if takes_part else None)


def _chosen(found: tuple[Standing, ...], domains: Sequence[str], *, readable: bool) -> tuple[Standing, ...]:
    """Keep the keys of some domains. Raises ReconcilerError for a domain of which there is none."""
    wanted = [_domain(name) for name in domains]
    known = {item.domain for item in found}
    for name in wanted:
        if name not in known:
            summary = "no key of it is declared" + (", and the server has none" if readable else "")
            hint = f"make one: reconciler dkim generate {name}"
            if known:
                hint += f"; there are keys of {', '.join(sorted(known))}"
            raise ReconcilerError(Problem(name, summary, hint))
    return tuple(item for item in found if not wanted or item.domain in wanted)


def _domain(name: str) -> str:
    from reconciler.names import host

    try:
        return host(name)
    except ValueError as error:
        raise ReconcilerError(Problem(name, str(error), "name a domain such as example.com")) from None


def _show(session: Session, found: tuple[Standing, ...], problems: tuple[Problem, ...], *, complete: bool) -> None:
    from reconciler.report import dkim

    if session.console.output == "json":
        session.console.document(dkim.document(found, problems, complete=complete))
    elif session.console.output == "markdown":
        session.console.text(dkim.page(found, [item.redacted(session.console.redact) for item in problems]))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        session.console.text(dkim.table(found, session.style, problems, width))


_DRY_RUN = click.option(
    "--dry-run/--no-dry-run",
    default=None,
    envvar="RECONCILER_DRY_RUN",
    help="Say what would be done, and write nothing. So it is by itself where RECONCILER_TODAY pretends a day.",
)


def _previews(session: Session, dry_run: bool | None) -> bool:  # noqa: FBT001 (click's value)
    """Whether nothing is to be written: a pretended day must not come to stand in the directory."""
    return "RECONCILER_TODAY" in session.settings.overrides if dry_run is None else dry_run


# -------------------------------------------------------------------------------------------------------- generate
@command.command("generate", short_help="Make a key, and write its entry.")
@click.argument("domain")
@click.option("--algorithm", type=click.Choice(ALGORITHMS), help="The first of both that the domain has no key of.")
@click.option("--selector", metavar="S", help="The key's name in DNS (such as ed202611).")
@click.option("--store", "where", metavar="WHERE", help=_STORE_HELP)
@click.option("--recipient", "recipients", multiple=True, metavar="R", help=_RECIPIENT_HELP)
@click.option("--pending", is_flag=True, help="Only publish it for now, also where no other key signs.")
@_DRY_RUN
@session.command
def _generate(
    session: Session,
    *,
    domain: str,
    algorithm: str | None,
    selector: str | None,
    where: str | None,
    recipients: tuple[str, ...],
    pending: bool,
    dry_run: bool | None,
) -> int:
    """Make a key for DOMAIN: store its private half and write its entry with the public one.

    It is active where no other key of its algorithm signs, else pending: `reconciler dkim rotate` lets it take over.
    Nothing is overwritten, and nothing but files is written. A run that was killed is ended by running it again.
    """
    from reconciler.desired.edit import edit, editing
    from reconciler.dkim.making import Order, make, next_algorithm, next_stage

    selector = _spelled(selector)
    today, environ = session.settings.today, session.settings.environ
    with editing(session.settings.state) as directory:
        name = _as_written(directory.spec, domain)
        algorithm = algorithm or next_algorithm(directory.spec, name)
        stage = next_stage(directory.spec, name, algorithm)
        stage = "pending" if pending else stage
        if _previews(session, dry_run):
            preview = f"Would make an {algorithm} key for {name}, {stage}. Nothing was written."
            session.console.result(preview, {"format_version": "1.0", "domain": name, "stage": stage, "dry_run": True})
            return 0
        session.console.step(f"Making a key for {name}")
        with session.stop.writing():
            order = Order(name, algorithm, selector, where, recipients)
            key = make(directory, order, environ, today, _stack(session, directory).look)
            made = edit(directory, [key.entry(stage, today)])
            made.write()
    session.console.done()
    file = next(iter(made.files))
    said = _said_of_key(key, stage, file, made.directory.spec, session.naming())
    session.console.result("\n".join(said), _key_document(session, key, stage, file))
    session.stop.check()
    return 0


def _as_written(spec: Spec, text: str) -> str:
    """Return a domain as the directory writes it. One that it says nothing of at all is a slip of the pen."""
    from reconciler.desired.derivation import zone_of

    name = _domain_name(text)
    known = {account.rpartition("@")[2].lower() for account in spec.accounts if "@" in account}
    known |= {item for item in (spec.stalwart.default_domain, *spec.dkim, *spec.dns) if item}
    if known and name not in {_domain_name(item) for item in known} and zone_of(name, spec.dns) is None:
        hint = "declare an account of it, or its zone under dns"
        raise _unknown(text, sorted(known), hint, "the directory knows no such domain")
    return _declared_name(spec, name) or name


def _declared_name(spec: Spec, domain: str) -> str | None:
    """Return a domain as the directory writes it below ``dkim``; None where it does not."""
    from reconciler.names import host

    wanted = _domain_name(domain)
    return next((name for name in spec.dkim if host(name) == wanted), None)


def _domain_name(domain: str) -> str:
    """Normalise a domain of the command line. Raises `ReconcilerError`."""
    from reconciler.names import host

    try:
        return host(domain)
    except ValueError as error:
        raise ReconcilerError(Problem("DOMAIN", str(error), "write it like mana.how")) from None


def _unknown(domain: str, known: Sequence[str], hint: str, summary: str) -> ReconcilerError:
    """Make the error for a domain that the directory does not know, or has no key of."""
    from reconciler.desired.checks import near

    return ReconcilerError(Problem(domain, summary, near(_domain_name(domain), known) or hint))


def _spelled(selector: str | None) -> str | None:
    """Spell a selector as the directory does; refuse what it could not hold, before a key is stored under it."""
    from pydantic import ValidationError

    from reconciler.desired.spec.mail import Key

    if selector is None:
        return None
    try:
        return Key.model_validate({"selector": selector, "algorithm": "ed25519"}).selector
    except ValidationError:
        hint = "write a-z, 0-9, - and _, such as ed202611"
        raise ReconcilerError(Problem(f"--selector {selector}", "is no selector", hint)) from None


def _said_of_key(key: NewKey, stage: str, file: str, spec: Spec, named: str) -> list[str]:
    from reconciler.dkim.making import cares, lacks_rsa, publishes

    published = "That publishes it." if publishes(spec, key.domain) else "Publish it, too."
    then = "The server signs with it at once."
    if stage == "pending":
        then = f"Then, as soon as every name server shows it: `reconciler dkim rotate {key.domain}`."
    lines = [
        f"The {key.algorithm} key {key.selector} of {key.domain} is {stage}, as {file} says now.",
        f"{key.words}.",
        *cares(spec, [key]),
        "",
        f"Now: `reconciler plan{named}`, commit, `reconciler apply{named}`.",
        f"{published} {then}",
    ]
    if lacks_rsa(spec, key.domain):
        lines += [
            "",
            "Microsoft and Yahoo do not verify Ed25519, so the domain needs an RSA key, too:",
            f"  reconciler dkim generate {key.domain} --algorithm rsa",
        ]
    return lines


def _key_document(session: Session, key: NewKey, stage: str, file: str) -> dict[str, Any]:
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


# ---------------------------------------------------------------------------------------------------------- rotate
@command.command("rotate", short_help="Write the next step of keys where it is due.")
@click.argument("domain")
@click.option("--algorithm", type=click.Choice(ALGORITHMS), help="Only keys of this one (both).")
@click.option("--store", "where", metavar="WHERE", help=_STORE_HELP)
@click.option("--recipient", "recipients", multiple=True, metavar="R", help=_RECIPIENT_HELP)
@_DRY_RUN
@session.command
def _rotate(
    session: Session,
    *,
    domain: str,
    algorithm: str | None,
    where: str | None,
    recipients: tuple[str, ...],
    dry_run: bool | None,
) -> int:
    """Write the next stage of DOMAIN's keys, where it is due, and say when the one after is.

    Where no rotation is under way it begins one: a new key is pending until every authoritative name server shows it.
    Then it is active and the old one retiring, which is retired seven full days later. Until a stage is due nothing is
    changed; when the last one is reached, running it again begins the next rotation.

    Ends with 0, or 1 where a name server, or Stalwart, had to be asked and could not be: nothing is written then for
    that algorithm.
    """
    from reconciler.desired.edit import editing
    from reconciler.dkim import rotation
    from reconciler.dkim.making import Rotation

    with editing(session.settings.state) as directory:
        name, keys = _keys(directory, domain, algorithm)
        today, environ = session.settings.today, session.settings.environ
        stack = _stack(session, directory)
        seen, reasons = stack.key_facts(name, rotation.needs(name, keys, today))
        steps = rotation.steps(name, keys, today, seen)
        with session.stop.writing():
            run = Rotation(name, steps)
            preview = _previews(session, dry_run)
            if not preview:
                run.write(directory, where, recipients, environ=environ, today=today, look=stack.look)
    session.console.done()
    _report(session, directory, run, reasons, preview=preview)
    session.stop.check()
    return 1 if any(item.move is rotation.Turn.BLOCKED for item in steps) else 0


def _keys(directory: Directory, domain: str, algorithm: str | None) -> tuple[str, list[Key]]:
    """Return the domain as the directory writes it, and the keys to rotate."""
    command = f"reconciler dkim generate {domain}"
    name = _declared_name(directory.spec, domain)
    if name is None:
        raise _unknown(domain, list(directory.spec.dkim), f"its first key: {command}", "has no key in the directory")
    keys = [key for key in directory.spec.dkim[name] if algorithm in (None, key.algorithm)]
    if not keys:
        summary = f"has no {algorithm} key" if algorithm else "has no key"
        hint = f"make one: {command}" + (f" --algorithm {algorithm}" if algorithm else "")
        raise ReconcilerError(Problem(f"dkim.{name}", summary, hint))
    return name, keys


def _report(
    session: Session, directory: Directory, run: Rotation, reasons: tuple[Problem, ...], *, preview: bool
) -> None:
    """Say what happened, what to do now, and when the next step is due."""
    problems = [problem for step in run.steps for problem in step.problems]
    blocked = any(problem.severity is Severity.ERROR for problem in problems)
    problems += reasons if blocked else ()
    if session.console.output == "json":
        session.console.document(_document(run, problems) | ({"dry_run": True} if preview else {}))
        return
    session.report(*problems)
    session.console.result("\n".join(_said(directory, run, session.naming(), preview=preview)), {})


def _said(directory: Directory, run: Rotation, named: str, *, preview: bool) -> Iterator[str]:
    from reconciler.dkim.making import cares

    for step in run.steps:
        yield f"{step.algorithm}: {step.said}."
        yield from (f"  {key.words}." for key in run.made if key.selector == step.selector)
        if step.then:
            yield f"  Next: {step.then}."
    yield ""
    if preview:
        yield "That is a preview: nothing was written."
        return
    if not run.file:
        yield "Nothing was changed."
        return
    yield from cares(directory.spec, run.made)
    yield f"Written to {run.file}. Now: `reconciler plan{named}`, commit, `reconciler apply{named}`."
    if any(step.then for step in run.steps):
        yield f"Then run `reconciler dkim rotate {run.domain}{named}` again: it changes nothing before a step is due."


def _document(run: Rotation, problems: Sequence[Problem]) -> dict[str, Any]:
    from reconciler.report import json

    steps = [
        {
            "algorithm": step.algorithm,
            "move": str(step.move),
            "selector": step.selector,
            "said": step.said,
            "next": step.then,
            "due": step.due.isoformat() if step.due else None,
            "changes": {
                name: {field: str(value) for field, value in facts.items()} for name, facts in step.changes.items()
            },
        }
        for step in run.steps
    ]
    return json.problems(problems) | {"domain": run.domain, "file": run.file or None, "steps": steps}
