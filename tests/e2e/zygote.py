"""Runs the program, and Compose's stand-in, as real processes that start in milliseconds: forks of one that has all
imports, and has read the example once, so that models and patterns are built.

It listens on a Unix socket. A call is one line, a dict as Python writes it (``program``, ``argv``, ``environ``, ``cwd``
and ``trace``), with three file descriptors; the answers are two lines: process id, and how it ended (negative: by which
signal). ``trace`` names a file that gets, one JSON a line, the arguments and the environment of every child the program
starts.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import gc
import http.client
import json
import os
import pkgutil
import selectors
import signal
import socket
import sys
import traceback
import warnings
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import reconciler
import reconciler.simulator.compose as stand_in

# What a first call would import: everything heavy, so that a fork has it.
LIBRARIES = (
    *("argon2", "bcrypt", "cloudflare", "cryptography.hazmat.primitives.serialization", "docker"),
    *("httpcore", "httpx", "structlog"),
)
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
    with contextlib.closing(http.client.HTTPConnection(urlsplit(control).netloc)) as connection:
        connection.request("POST", "/", json.dumps(told))
        order: dict[str, Any] = json.load(connection.getresponse())
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
    try:
        if call.get("bug"):
            exec(call["bug"], {})  # an artificial bug of the test, or what it does instead
        import_module("reconciler.__main__").main()
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
    except Exception:  # noqa: BLE001 (as the interpreter does)
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


class _Calls:
    """The calls that are at work: each is a child, and the connection that hears how it ended.

    One process serves all: a fork of this one is what a call costs most.
    """

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self._working: dict[int, socket.socket] = {}
        self._ended, bell = socket.socketpair()
        for end in (self._ended, bell):
            end.setblocking(False)
        self._bell = bell
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(bell.fileno())

    def serve(self) -> None:
        """Take calls, and say how they ended, until the socket's owner ends us."""
        with selectors.DefaultSelector() as waiting:
            for end in (self._server, self._ended):
                waiting.register(end, selectors.EVENT_READ)
            while True:
                for key, _ in waiting.select():
                    if key.fileobj is self._server:
                        self._take()
                    else:
                        self._reap()

    def _take(self) -> None:
        connection, _ = self._server.accept()
        data, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 3)
        while not data.endswith(b"\n") and (more := connection.recv(1 << 16)):
            data += more
        if not data:  # somebody only looked whether we listen
            connection.close()
            return
        call = ast.literal_eval(data.decode())
        child = os.fork()
        if child == 0:
            self._leave(connection)
            _child(call, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        self._working[child] = connection
        with contextlib.suppress(OSError):
            connection.sendall(f"{child}\n".encode())

    def _leave(self, connection: socket.socket) -> None:
        """Be a process of its own: nothing of the others' is open in it."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for other in (self._server, self._ended, self._bell, connection, *self._working.values()):
            other.close()

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._ended.recv(1 << 10):
                pass
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                with self._working.pop(ended[0]) as connection, contextlib.suppress(OSError):
                    connection.sendall(f"{os.waitstatus_to_exitcode(ended[1])}\n".encode())


def _import_all(package: ModuleType, besides: str) -> None:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if besides not in module.name:
            import_module(module.name)


def _warm_up(example: Path) -> None:
    """Have what each call of the program would otherwise import, build and compile anew."""
    at_once = getattr(dataclasses, "_create_fn", None)
    import_module("reconciler.__main__")
    if at_once is not None:  # what the start puts off is put off here for every fork to make anew
        dataclasses._create_fn = at_once  # type: ignore[attr-defined]
    for name in LIBRARIES:
        import_module(name)
    _import_all(reconciler, ".simulator")
    from reconciler.desired.derivation import desire
    from reconciler.desired.load import load
    from reconciler.process import COMPOSE, environment

    desire(load(example / "desired-state").spec)
    environment(COMPOSE, {"X": ""})


def _warm_up_compose(example: Path) -> None:
    """The same for the stand-in. It has a process of its own, as small as it can be: to fork it is what it costs."""
    _import_all(stand_in, "__main__")
    stand_in.main(["-f", str(example / "docker-compose.macmini.yml"), "config", "--quiet", "--no-interpolate"])


def main() -> None:
    """Serve one of the two until the socket's owner ends us."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(sys.argv[1])
    warm_up = {"reconciler": _warm_up, "compose": _warm_up_compose}[sys.argv[2]]
    warm_up(Path(__file__).parents[1] / "example")
    gc.freeze()  # a fork that collects copies all of it
    server.listen(64)
    _Calls(server).serve()


if __name__ == "__main__":
    main()
