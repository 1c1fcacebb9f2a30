"""`reconciler dkim rotate`: the next stage of each key, as far as it is due, written into the YAML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import session
from reconciler.cli.dkim.generate import ALGORITHMS, RECIPIENT_HELP, STORE_HELP, declared_name, inquiry, unknown
from reconciler.cli.session import Session
from reconciler.problem import Problem, ReconcilerError, Severity

if TYPE_CHECKING:
    from reconciler.desired.load import Directory
    from reconciler.desired.spec.mail import Key
    from reconciler.dkim.making import Rotation
    from reconciler.dkim.rotation import KeyFacts, Needs
    from reconciler.resources import Signature


@click.command()
@click.argument("domain")
@click.option("--algorithm", type=click.Choice(ALGORITHMS), help="Only keys of this one (both).")
@click.option("--store", "where", metavar="WHERE", help=STORE_HELP)
@click.option("--recipient", "recipients", multiple=True, metavar="R", help=RECIPIENT_HELP)
@session.command
def command(
    session: Session, *, domain: str, algorithm: str | None, where: str | None, recipients: tuple[str, ...]
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
        seen, reasons = _seen(session, directory, name, rotation.needs(name, keys, today))
        steps = rotation.steps(name, keys, today, seen)
        with session.stop.writing():
            run = Rotation(name, steps)
            run.write(directory, where, recipients, environ=environ, today=today, look=inquiry(session))
    session.console.done()
    _report(session, directory, run, reasons)
    session.stop.check()
    return 1 if any(item.move is rotation.Turn.BLOCKED for item in steps) else 0


def _keys(directory: Directory, domain: str, algorithm: str | None) -> tuple[str, list[Key]]:
    """Return the domain as the directory writes it, and the keys to rotate."""
    command = f"reconciler dkim generate {domain}"
    name = declared_name(directory.spec, domain)
    if name is None:
        raise unknown(domain, list(directory.spec.dkim), f"its first key: {command}", "has no key in the directory")
    keys = [key for key in directory.spec.dkim[name] if algorithm in (None, key.algorithm)]
    if not keys:
        summary = f"has no {algorithm} key" if algorithm else "has no key"
        hint = f"make one: {command}" + (f" --algorithm {algorithm}" if algorithm else "")
        raise ReconcilerError(Problem(f"dkim.{name}", summary, hint))
    return name, keys


# ------------------------------------------------------------------------------------------------ what is asked
def _seen(session: Session, directory: Directory, domain: str, needs: Needs) -> tuple[KeyFacts, tuple[Problem, ...]]:
    """Find out what the next steps depend on; the problems say why Stalwart could not be asked."""
    from reconciler.dkim.rotation import KeyFacts

    answers = inquiry(session)(needs.questions)
    halves = _halves(session, directory, needs.halves)
    unknown = any(key.selector not in halves for key in needs.halves)
    if not (needs.server or unknown):
        return KeyFacts(answers, halves), ()
    server, problems = _server(session, directory, domain)
    return KeyFacts(answers, halves, server), problems


def _halves(session: Session, directory: Directory, keys: Sequence[Key]) -> dict[str, str]:
    """Derive the public halves that the YAML leaves out. A private key that can't be read here tells nothing."""
    from reconciler.secrets import Secrets, public_half

    secrets = Secrets(directory.path, session.settings.environ, directory.text)
    named = ((key, key.private_key) for key in keys)
    halves = {key.selector: public_half(secrets, ref, key.algorithm) for key, ref in named if ref is not None}
    return {selector: half for selector, half in halves.items() if isinstance(half, str)}


def _server(
    session: Session, directory: Directory, domain: str
) -> tuple[tuple[Signature, ...] | None, tuple[Problem, ...]]:
    """Return the signatures that Stalwart has for a domain; None, and why, where it can't be asked."""
    from reconciler.dns.names import host
    from reconciler.resources import Domain, Signature
    from reconciler.stack import Choice

    if session.options.target and "stalwart" not in session.options.target:
        return None, (Problem("Stalwart", "was not asked: it is no target here", "leave --target out"),)
    try:
        stack = session.stack(directory, Choice(("stalwart",)))
    except ReconcilerError as error:
        return None, error.problems
    wanted = [item for item in stack.desired().resources if isinstance(item, Domain | Signature)]
    held, problems = stack.signatures(wanted)
    if held is None:
        return None, problems
    return tuple(item for item in held if item.domain == host(domain)), ()


# ------------------------------------------------------------------------------------------------- what is said
def _report(session: Session, directory: Directory, run: Rotation, reasons: tuple[Problem, ...]) -> None:
    """Say what happened, what to do now, and when the next step is due."""
    problems = [problem for step in run.steps for problem in step.problems]
    blocked = any(problem.severity is Severity.ERROR for problem in problems)
    problems += reasons if blocked else ()
    if session.console.output == "json":
        session.console.document(_document(run, problems))
        return
    session.report(*problems)
    session.console.result("\n".join(_said(directory, run)), {})


def _said(directory: Directory, run: Rotation) -> Iterator[str]:
    from reconciler.dkim.making import cares

    for step in run.steps:
        yield f"{step.algorithm}: {step.said}."
        yield from (f"  {key.words}." for key in run.made if key.selector == step.selector)
        if step.then:
            yield f"  Next: {step.then}."
    yield ""
    if not run.file:
        yield "Nothing was changed."
        return
    yield from cares(directory.spec, run.made)
    yield f"Written to {run.file}. Now: `reconciler plan`, commit, `reconciler apply`."
    if any(step.then for step in run.steps):
        yield f"Then run `reconciler dkim rotate {run.domain}` again: it changes nothing before a step is due."


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
