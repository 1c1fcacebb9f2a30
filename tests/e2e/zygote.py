"""Runs the program, and Compose's stand-in, as real processes that start in milliseconds: forks of one that has all
imports, and has read the example once, so that models and patterns are built.

It listens on a Unix socket. A call is one JSON line (``program``, ``argv``, ``environ``, ``cwd``, ``trace``) with three
file descriptors; the answers are two lines: the process id, and how it ended (negative: by which signal). ``trace``
names a file that gets, one JSON a line, the arguments and the environment of every child the program starts.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pkgutil
import signal
import socket
import sys
import urllib.request
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

# What a first call would import: everything heavy, so that a fork has it.
import argon2  # noqa: F401
import bcrypt  # noqa: F401
import cloudflare  # noqa: F401
import cryptography.hazmat.primitives.serialization  # noqa: F401
import docker  # noqa: F401
import httpcore  # noqa: F401
import httpx  # noqa: F401
import structlog  # noqa: F401

import reconciler
import reconciler.simulator.compose as stand_in
from reconciler.__main__ import main as program
from reconciler.desired.load import load

_STARTS = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system")


def _compose(call: dict[str, Any]) -> int:
    """Say to the stage what is called with which environment, do as it says, and say that it is done."""
    argv, control = call["argv"], call["control"]
    told = {"argv": argv, "environ": dict(os.environ), "pid": os.getpid()}
    order = _tell(control, told)
    sys.stdout.write(order.get("stdout", ""))
    sys.stderr.write(order.get("stderr", ""))
    return int(order["exit"]) if "exit" in order else stand_in.main(argv)


def _tell(control: str, told: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(control, json.dumps(told).encode(), method="POST")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        order: dict[str, Any] = json.load(answer)
        return order


def _trace(path: str) -> None:
    """Write down what children are given, as the interpreter itself announces it."""

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _STARTS:
            given = [repr(item) for item in arguments]
            inherited = dict(os.environ) if event == "subprocess.Popen" and arguments[3] is None else {}
            with open(path, "a", encoding="utf-8") as file:  # noqa: PTH123 (the hook hears every import)
                file.write(json.dumps({"event": event, "arguments": given, "inherited": inherited}) + "\n")

    sys.addaudithook(heard)


def _run(call: dict[str, Any]) -> int:
    if call["program"] == "compose":
        return _compose(call)
    if call.get("trace"):
        _trace(call["trace"])
    warnings.simplefilter("error")
    sys.argv = ["reconciler", *call["argv"]]
    if call.get("bug"):
        exec(call["bug"], {})  # an artificial bug of the test
    try:
        program()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _child(call: dict[str, Any], descriptors: list[int]) -> None:
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.setsid()
    os.chdir(call["cwd"])
    os.environ.clear()
    os.environ.update(call["environ"])
    code = 1
    try:
        code = _run(call)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


def _monitor(connection: socket.socket, call: dict[str, Any], descriptors: list[int]) -> None:
    child = os.fork()
    if child == 0:
        connection.close()
        _child(call, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    with contextlib.suppress(OSError):
        connection.sendall(f"{child}\n".encode())
    _, status_ = os.waitpid(child, 0)
    with contextlib.suppress(OSError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status_)}\n".encode())
    os._exit(0)


def _calls(server: socket.socket) -> Iterator[tuple[socket.socket, dict[str, Any], list[int]]]:
    while True:
        connection, _ = server.accept()
        data, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 3)
        while not data.endswith(b"\n") and (more := connection.recv(1 << 16)):
            data += more
        if data:  # else somebody only looked whether we listen
            yield connection, json.loads(data), descriptors
        else:
            connection.close()


def _warm_up() -> None:
    """Have what each call would otherwise import, build and compile anew."""
    for module in pkgutil.walk_packages(reconciler.__path__, "reconciler."):
        if not module.name.endswith("__main__") and ".simulator" not in module.name:
            import_module(module.name)
    load(Path(__file__).parents[1] / "example" / "desired-state")
    gc.freeze()  # a fork that collects copies all of it


def main() -> None:
    """Serve until the socket's owner ends us."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(sys.argv[1])
    _warm_up()
    server.listen(64)
    for connection, call, descriptors in _calls(server):
        if os.fork() == 0:
            server.close()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _monitor(connection, call, descriptors)
        connection.close()
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


if __name__ == "__main__":
    main()
