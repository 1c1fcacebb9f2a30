"""`reconciler simulate`: the embedded Stalwart, Cloudflare, Docker Engine, name servers and Brevo, to try things on."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import session
from reconciler.cli.session import Session, environ
from reconciler.problem import Problem, ReconcilerError

if TYPE_CHECKING:
    from reconciler.desired.load import Directory
    from reconciler.resources import SecretRef
    from reconciler.simulator.stage import Generation, Project, Stage


@click.command()
@click.option("--port", type=click.IntRange(1, 65530), help="The first of six ports; free ones otherwise.")
@click.option(
    "--generation",
    type=click.Choice(["rest", "jmap"]),
    default="rest",
    help="Which Stalwart: 0.15 (rest) or 0.16 (jmap).",
)
@click.option(
    "--schema",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Another release's schema, as its /api/schema answers: jmap is judged by it.",
)
@session.command
def command(session: Session, *, port: int | None, generation: Generation, schema: Path | None) -> int:
    """Serve simulated systems for this directory until Ctrl-C.

    Stalwart starts empty, Cloudflare has the directory's zones without a record, two name servers show what is there,
    Brevo knows the zones as sender domains, and the containers are those of the compose file. Nothing of it stays.
    `apply` then writes the env file: start this in a copy of the whole folder, and plan and apply in the same copy.
    """
    import subprocess  # here and below: `--help` asks every command for its first line, and must be quick
    import threading

    directory = session.directory()
    project = _project(directory)
    values = _secrets(directory, project)
    document = _document(schema) if schema else None
    with _taken(port):
        stage = _stage(directory, project, values, port, generation, schema=document)
    if stage.project is not None and (missing := [it for it in stage.project.files if not it.exists()]):
        summary = "there is no such file, so the simulator knows no containers"
        raise ReconcilerError(Problem(str(missing[0]), summary, "correct targets.compose.file, or remove it"))
    try:
        with _taken(port):
            stage.start()
        session.console.text("\n".join(_words(stage, values, session.naming())))
        threading.Event().wait()  # until a signal ends it
    except subprocess.CalledProcessError as error:
        summary = f"the simulated Compose can't bring it up: {error.stderr.strip() or error.stdout.strip()}"
        file = str(stage.project.files[0]) if stage.project else "compose"
        raise ReconcilerError(Problem(file, summary, "take out what it does not know, in a copy")) from None
    finally:
        stage.stop()
    return 0


@contextlib.contextmanager
def _taken(port: int | None) -> Iterator[None]:
    """Name ports that another program has."""
    from reconciler.simulator.stage import PORTS

    try:
        yield
    except OSError as error:
        if error.errno != errno.EADDRINUSE or port is None:
            raise
        summary = f"one of the ports {port} to {port + PORTS - 1} is taken by another program"
        raise ReconcilerError(Problem(f"--port {port}", summary, "name another one, or leave --port out")) from None


def _secrets(directory: Directory, project: Project | None) -> dict[str, str]:
    """Map every variable the directory refers to to its value: the environment's, the env file's, or a new one."""
    import secrets

    from reconciler.desired.spec import references

    known = {**(project.variables() if project else {}), **environ()}
    names = sorted({ref.name for _, ref in references(directory.spec) if ref.source == "env"})
    values = {name: known.get(name) or secrets.token_urlsafe(24).lstrip("-_") for name in names}
    server = directory.spec.targets.stalwart
    if server and server.recovery and server.recovery.source == "env" and not known.get(server.recovery.name):
        # Without containers to say otherwise, the stage lets its administrator in as the recovery administrator.
        values[server.recovery.name] = f"admin:{_value(server.password[0], values) or values[server.recovery.name]}"
    return values


def _project(directory: Directory) -> Project | None:
    from reconciler.simulator.stage import Project

    target = directory.spec.targets.compose
    if target is None:
        return None
    compose, env_files, place = target.places(directory.path)
    return Project(*([file.resolve() for file in paths] for paths in (compose, env_files)), directory=place)


def _stage(
    directory: Directory,
    project: Project | None,
    values: dict[str, str],
    port: int | None,
    generation: Generation,
    *,
    schema: Mapping[str, Any] | None,
) -> Stage:
    from reconciler.simulator.stage import DEFAULT_BREVO_KEY, DEFAULT_TOKEN, PORTS, Stage

    targets = directory.spec.targets
    admin = _value(targets.stalwart.password[0], values) if targets.stalwart else None
    token = _value(targets.cloudflare[0].token, values) if targets.cloudflare else None
    keys = (item.api_key for item in directory.spec.smtp.providers.values() if item.api_key)
    return Stage(
        directory.spec.dns,
        project,
        token=token or DEFAULT_TOKEN,
        admin_password=admin or "",
        brevo_key=next((value for ref in keys if (value := _value(ref, values))), DEFAULT_BREVO_KEY),
        ports=range(port, port + PORTS) if port else (0,) * PORTS,
        generation=generation if schema is None else "jmap",
        schema=schema,
    )


def _document(path: Path) -> Mapping[str, Any]:
    """Read a schema, compressed or not. Raises `ReconcilerError` for what is none."""
    import gzip
    import json

    from reconciler.simulator.stalwart.jmap.schema import judging

    try:
        content = path.read_bytes()
        found: Mapping[str, Any] = json.loads(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
        judging(found)
    except OSError as error:
        raise ReconcilerError(Problem(str(path), f"can't be read: {error.strerror}", "correct --schema")) from None
    except (ValueError, EOFError, LookupError, TypeError, AttributeError, RecursionError):
        hint = "name a file with what a server from 0.16 answers at /api/schema"
        raise ReconcilerError(Problem(str(path), "is no schema of a Stalwart", hint)) from None
    return found


def _value(ref: SecretRef, values: dict[str, str]) -> str | None:
    return values.get(ref.name) if ref.source == "env" else None


def _words(stage: Stage, values: dict[str, str], named: str) -> Iterator[str]:
    import shlex

    yield "# The simulator runs. In another shell, in this same folder:"
    known = environ()
    exports = {**stage.environment, **{name: value for name, value in values.items() if not known.get(name)}}
    yield from (f"export {name}={shlex.quote(value)}" for name, value in exports.items())
    if given := [name for name in values if name not in exports]:
        yield "# Not shown, since they were given: what this shell has is needed there, too. Set them as you did here:"
        yield from (f"#   {name}" for name in given)
    yield f"# and then: reconciler plan{named}"
    yield "# Ctrl-C ends it; nothing of it stays."
