"""`reconciler simulate`: the embedded Stalwart, Cloudflare and Docker Engine, to try things on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from reconciler.cli import options, session
from reconciler.cli.session import Session
from reconciler.problem import Problem, ReconcilerError

if TYPE_CHECKING:
    from reconciler.desired.load import Directory
    from reconciler.resources import SecretRef
    from reconciler.simulator.stage import Stage


@click.command()
@click.option("--port", type=click.IntRange(1, 65533), help="The first of three ports; free ones otherwise.")
@session.command
def command(session: Session, *, port: int | None) -> int:
    """Serve simulated systems for this directory until Ctrl-C.

    Stalwart starts empty, Cloudflare has the directory's zones without a record, and the containers are those of the
    compose file. Nothing of it stays. `apply` then writes the real env file: work in a copy of the directory.
    """
    import subprocess  # here and below: `--help` asks every command for its first line, and must be quick
    import threading

    directory = session.directory()
    values = dict(_secrets(directory))
    stage = _stage(directory, values, (port, port + 1, port + 2) if port else (0, 0, 0))
    if stage.project is not None and not stage.project.file.exists():
        summary = "there is no such file, so the simulator knows no containers"
        raise ReconcilerError(Problem(str(stage.project.file), summary, "correct targets.compose.file, or remove it"))
    try:
        stage.start()
        session.console.text("\n".join(_words(stage, values)))
        threading.Event().wait()  # until a signal ends it
    except subprocess.CalledProcessError as error:
        summary = f"the simulated Compose can't bring it up: {error.stderr.strip() or error.stdout.strip()}"
        file = str(stage.project.file) if stage.project else "compose"
        raise ReconcilerError(Problem(file, summary, "take out what it does not know, in a copy")) from None
    finally:
        stage.stop()
    return 0


def _secrets(directory: Directory) -> Iterator[tuple[str, str]]:
    """Yield a value for every variable the directory refers to: the environment's, or a new one."""
    import secrets

    from reconciler.desired.spec import references

    names = {ref.name for _, ref in references(directory.spec) if ref.source == "env"}
    for name in sorted(names):
        yield name, options.environ().get(name) or secrets.token_urlsafe(24).lstrip("-_")


def _stage(directory: Directory, values: dict[str, str], ports: tuple[int, int, int]) -> Stage:
    from reconciler.simulator.stage import DEFAULT_TOKEN, Project, Stage

    targets = directory.spec.targets
    project = None
    if targets.compose is not None:
        file = (directory.path / targets.compose.file).resolve()
        env_file = directory.path / targets.compose.env_file if targets.compose.env_file else file.parent / ".env"
        project = Project(file, env_file.resolve())
    admin = _value(targets.stalwart.password[0], values) if targets.stalwart else None
    token = _value(targets.cloudflare[0].token, values) if targets.cloudflare else None
    return Stage(directory.spec.dns, project, token=token or DEFAULT_TOKEN, admin_password=admin or "", ports=ports)


def _value(ref: SecretRef, values: dict[str, str]) -> str | None:
    return values.get(ref.name) if ref.source == "env" else None


def _words(stage: Stage, values: dict[str, str]) -> Iterator[str]:
    import shlex

    yield "# The simulator runs. In another shell, in a copy of your directory:"
    known = options.environ()
    exports = {**stage.environment, **{name: value for name, value in values.items() if not known.get(name)}}
    yield from (f"export {name}={shlex.quote(value)}" for name, value in exports.items())
    yield "# and then: reconciler plan. Ctrl-C ends it; nothing of it stays."
