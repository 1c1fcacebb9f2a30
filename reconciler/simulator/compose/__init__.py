"""A stand-in for the `docker compose` program: `python -m reconciler.simulator.compose ...`.

It knows the commands and flags that we call and refuses all others. It reads compose and env files as Compose 2.40
does, and brings services up on the engine that DOCKER_HOST names. Unlike the real one it does not wait for the
conditions of ``depends_on``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from reconciler.simulator.compose.failure import Failure

if TYPE_CHECKING:  # imported by the commands that need them: the real program starts faster than Python
    from reconciler.simulator.compose.engine import Engine
    from reconciler.simulator.compose.project import Project

VERSION = "2.40.3"


def _engine() -> Engine:
    from reconciler.simulator.compose.engine import Engine

    return Engine(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")


def _version(options: argparse.Namespace) -> None:
    if options.format == "json":
        show(json.dumps({"version": f"v{VERSION}"}))
    else:
        show(VERSION if options.short else f"Docker Compose version v{VERSION}")


def _config_command(options: argparse.Namespace) -> None:
    from reconciler.simulator.compose.project import in_order, load

    project = load(options, interpolate=not options.no_interpolate)
    if options.quiet:
        return
    if options.services:
        show("\n".join(in_order(project, [], alone=False)))
    elif options.hash:
        from reconciler.simulator.compose.up import digest

        names = sorted(project.services) if options.hash == "*" else options.hash.split(",")
        show("\n".join(f"{name} {digest(project.service(name))}" for name in names))
    elif options.format == "json":
        text = json.dumps(_model(project), indent=2, sort_keys=True, ensure_ascii=False)
        show(text if options.no_interpolate else text.replace("$", "$$"))
    else:
        raise Failure("the stand-in prints a configuration with --format json only")


def _model(project: Project) -> dict[str, Any]:
    model: dict[str, Any] = {"name": project.name, "networks": project.networks, "services": project.services}
    volumes = {"volumes": project.volumes} if project.volumes else {}
    return {**model, **volumes, **project.contents, **project.extensions}


def _up(options: argparse.Namespace) -> None:
    from reconciler.simulator.compose.project import in_order, load
    from reconciler.simulator.compose.up import Up, await_health

    if not (options.detach or options.wait or options.no_start):
        raise Failure("the stand-in only starts detached: add -d")
    project = load(options)
    scales = dict(_scale(item) for item in options.scale or ())
    up = Up(
        project, _engine(), force=options.force_recreate, dry=options.dry_run, start=not options.no_start, scales=scales
    )
    names = in_order(project, options.services, alone=options.no_deps)
    up.networks(names)
    ids = [made for name in names for made in up.bring(name)]
    if options.wait:
        await_health(up.engine, ids, options.wait_timeout)


def _scale(text: str) -> tuple[str, int]:
    name, equals, number = text.partition("=")
    if not equals or not number.isdecimal():
        raise Failure(f"invalid --scale option: {text}")
    return name, int(number)


def _ps(options: argparse.Namespace) -> None:
    from reconciler.simulator.compose.engine import LABEL
    from reconciler.simulator.compose.project import load

    project = load(options)
    for item in _engine().containers(project.name, everything=options.all):
        service = item["Config"]["Labels"][f"{LABEL}.service"]
        if options.services and service not in options.services:
            continue
        shown = {"ID": item["Id"][:12], "Name": item["Name"].removeprefix("/"), "Service": service}
        state = item["State"]
        health = state.get("Health", {}).get("Status", "")
        status = {"State": state["Status"], "Health": health, "ExitCode": state["ExitCode"]}
        show(json.dumps({**shown, "Project": project.name, "Image": item["Config"]["Image"], **status}))


def show(text: str) -> None:
    """Print a result."""
    sys.stdout.write(f"{text}\n")


class _Parser(argparse.ArgumentParser):
    """Takes no abbreviated flags, and ends with 1 where argparse ends with 2."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, allow_abbrev=False, add_help=False)

    def error(self, message: str) -> NoReturn:
        raise Failure(message.replace("unrecognized arguments", "unknown flag"))


def parser() -> argparse.ArgumentParser:
    """Declare the flags we call: all others are refused."""
    top = _Parser(prog="docker compose")
    top.add_argument("-f", "--file", action="append")
    top.add_argument("--env-file", action="append")
    top.add_argument("-p", "--project-name")
    top.add_argument("--project-directory")
    top.add_argument("--dry-run", action="store_true")
    top.add_argument("--progress", choices=("auto", "tty", "plain", "json", "quiet"))
    top.add_argument("--ansi", choices=("never", "always", "auto"))
    commands = top.add_subparsers(dest="command", required=True)
    version = commands.add_parser("version")
    version.add_argument("--short", action="store_true")
    version.add_argument("-f", "--format", dest="format")
    version.set_defaults(run=_version)
    config = commands.add_parser("config")
    config.add_argument("-q", "--quiet", action="store_true")
    config.add_argument("--services", action="store_true")
    config.add_argument("--no-interpolate", action="store_true")
    config.add_argument("--hash")
    config.add_argument("--format", choices=("json", "yaml"), default="yaml")
    config.set_defaults(run=_config_command)
    _declare_up(commands.add_parser("up"))
    listing = commands.add_parser("ps")
    listing.add_argument("--format", choices=("json",), required=True)
    listing.add_argument("-a", "--all", action="store_true")
    listing.add_argument("services", nargs="*")
    listing.set_defaults(run=_ps)
    return top


def _declare_up(up: argparse.ArgumentParser) -> None:
    up.add_argument("-d", "--detach", action="store_true")
    up.add_argument("--no-deps", action="store_true")
    up.add_argument("--no-build", action="store_true")
    up.add_argument("--pull", choices=("never", "missing"), default="missing", help="the stand-in has no registry")
    up.add_argument("--force-recreate", action="store_true")
    up.add_argument("--no-start", action="store_true")
    up.add_argument("--scale", action="append")
    up.add_argument("--wait", action="store_true")
    up.add_argument("--wait-timeout", type=int)
    up.add_argument("services", nargs="*")
    up.set_defaults(run=_up)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        options = parser().parse_args(arguments)
        options.run(options)
    except Failure as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    return 0
