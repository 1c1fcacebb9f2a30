"""Programs that we start: each gets what its kind needs and nothing more, is bounded, and is gone when we are.

No child has our whole environment, a descriptor of ours, a terminal to ask on, or a folder that we happen to be in. It
dies with us, however we die: a shell that waits at the end of a pipe then ends what is still at work, and what that
started; and no program begins before that shell knows of it. What a child says may hold secrets: no error here repeats
it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from reconciler import heartbeat

PASS = "RECONCILER_PASS_ENV"  # noqa: S105 - the name of a variable
MOST = 64 << 20  # bytes of output; the largest project's `config` has one
MEMORY = 1 << 30  # bytes of data a program may have, on Linux; the largest project's `config` takes a tenth
_CHUNK = 1 << 16
_LOOK = 0.1  # seconds between two looks at whether a child that says nothing has ended

# A child waits at its standard input for a word, which nobody but us can give, and becomes the program then.
_START = "read -r _ || exit 125; exec"
_NOT_RUN = (126, 127)  # how a shell ends that can't become a program


@dataclass(frozen=True, slots=True)
class Kind:
    """What programs of a kind get of our environment: names or patterns, and what is set in place of ours.

    ``largest`` bounds the bytes of each file that they write, on Linux.
    ``shut`` keeps it from services, by the beginning of their variables' names: what is set as long as `PASS` asks for
    none of them.
    """

    name: str
    passed: tuple[str, ...] = ()
    given: Mapping[str, str] = field(default_factory=dict)
    largest: int = 0
    shut: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


# Git is asked about a repository that others write to: nothing is fetched, nothing is asked for, nothing is locked.
GIT = Kind(
    "git",
    ("HOME", "XDG_CONFIG_HOME"),  # where the user's own ignore file is
    {
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_ALLOW_PROTOCOL": "none",
    },
)

# Git in a repository of our own that holds what others wrote: the user's configuration would run his filters on it.
GIT_STORE = Kind("git", (), {**GIT.given, "GIT_CONFIG_GLOBAL": os.devnull})

# Git that fetches, as the user would: his configuration says how he logs in (credential helpers, ssh). It has no
# terminal to ask on. What comes in is one pack, which has an end.
GIT_FETCH = Kind(
    "git",
    (
        *("HOME", "USER", "LOGNAME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "SSH_AUTH_SOCK"),
        *("GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSH_VARIANT", "GIT_ASKPASS", "GIT_CONFIG_*", "GIT_SSL_*", "SSL_CERT_*"),
        *("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"),
    ),
    {
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "SSH_ASKPASS_REQUIRE": "never",
        "GCM_INTERACTIVE": "never",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_ALLOW_PROTOCOL": "file:ssh:https",
    },
    largest=2 << 30,
)

# A file that sops is to decrypt may name any key service, at any host, and sops would ask there: with the user's
# credentials from his home, or with those that a machine in a cloud gets from its metadata service. What is shut fails
# before anybody is asked. An old sops takes `decrypt` for a file and would edit it.
SOPS = Kind(
    "sops",
    ("SOPS_*", "XDG_CONFIG_HOME", "GNUPGHOME", "TMPDIR", "LANG", "TZ"),
    {"HOME": "/nonexistent", "SOPS_DISABLE_VERSION_CHECK": "true", "EDITOR": "false", "SOPS_EDITOR": "false"},
    shut={
        "AWS_": {"AWS_EC2_METADATA_DISABLED": "true"},
        "GOOGLE_": {"GOOGLE_CREDENTIALS": "{}"},
        "AZURE_": {"AZURE_TOKEN_CREDENTIALS": "none"},
        "VAULT_": {"VAULT_AGENT_ADDR": "unix:///nonexistent", "VAULT_MAX_RETRIES": "0"},
        "HUAWEICLOUD_": {f"HUAWEICLOUD_SDK_{name}": "none" for name in ("AK", "SK", "PROJECT_ID")},
    },
)

# Everything else stays outside: the environment wins over the env file, so that an SMTP_HOST of a daemon's own would
# silently take its place. A compose file may include others from a host that it names, and an env file may ask for more
# than the services that are brought up: it would remove others, or build.
COMPOSE = Kind(
    "compose",
    ("HOME", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "SSH_AUTH_SOCK"),
    {
        "COMPOSE_EXPERIMENTAL_GIT_REMOTE": "false",
        "COMPOSE_EXPERIMENTAL_OCI_REMOTE": "false",
        "COMPOSE_REMOVE_ORPHANS": "false",
        "COMPOSE_IGNORE_ORPHANS": "false",
        "COMPOSE_MENU": "false",
        "COMPOSE_BAKE": "false",
        "COMPOSE_PARALLEL_LIMIT": "-1",
        "COMPOSE_ANSI": "never",
        "COMPOSE_PROGRESS": "plain",
        "COMPOSE_STATUS_STDOUT": "false",
    },
)
SSH = Kind("ssh", ("HOME", "USER", "SSH_AUTH_SOCK"))


class CannotRun(Exception):
    """Why a program gave no answer; ``missing`` where it is not there at all, ``endless`` where it says too much."""

    def __init__(self, why: str, *, missing: bool = False, endless: bool = False) -> None:
        super().__init__(why)
        self.why, self.missing, self.endless = why, missing, endless


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended, what it said and what it complained of: either may hold secrets."""

    status: int
    said: bytes = field(repr=False)
    complained: bytes = field(repr=False)

    @property
    def output(self) -> str:
        """What it said, as text."""
        return self.said.decode(errors="replace")

    @property
    def complaint(self) -> str:
        """What it complained of, as text."""
        return self.complained.decode(errors="replace")


def environment(kind: Kind, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a child may know of our environment.

    ``RECONCILER_PASS_ENV`` names more: names and patterns, for all programs but git (``HTTPS_PROXY``) or for one
    (``sops:AWS_*``). What it names wins over what is set here.
    """
    patterns = _asked(kind, environ)
    usual = {name: text for name, text in environ.items() if _any(name, kind.passed)}
    shut = [values for service, values in kind.shut.items() if not _opens(patterns, service)]
    asked = {name: text for name, text in environ.items() if _any(name, patterns) and name != PASS}
    return {**usual, **kind.given, **ChainMap(*map(dict, shut)), **asked, "PATH": search_path(environ)}


def _opens(patterns: Sequence[str], service: str) -> bool:
    """Whether variables of a service are passed, or the home that holds its credentials."""
    return any(item == "HOME" or item.startswith(service) or fnmatchcase(f"{service}X", item) for item in patterns)


def _any(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _asked(kind: Kind, environ: Mapping[str, str]) -> tuple[str, ...]:
    pairs = (item.rpartition(":") for item in environ.get(PASS, "").replace(",", " ").split())
    return tuple(pattern for name, _, pattern in pairs if name == kind.name or (not name and kind.name != "git"))


def search_path(environ: Mapping[str, str]) -> str:
    """Return where programs are looked for: never in the folder that we are in, which others may write."""
    folders = environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if Path(folder).is_absolute())


class Child:
    """A program at work. `end` has to be called, and waits for it; until then it runs beside us."""

    def __init__(
        self,
        kind: Kind,
        command: Sequence[str],
        environ: Mapping[str, str],
        folder: Path | str = "/",
        *,
        given: str = "",
        limit: float = 60.0,
    ) -> None:
        """Start it in a folder; ``given`` is its standard input, ``limit`` the seconds that `end` waits.

        Raises `CannotRun`.
        """
        self._given, self._deadline, self._limit = given.encode(), 0.0, limit
        self._process = spawn(kind, command, environ, folder, fed=bool(given))

    def end(self) -> Ended:
        """Return how it ended. Raises `CannotRun` where it takes too long or says too much; it is gone then."""
        heartbeat.waiting(self._limit)
        process, self._deadline = self._process, time.monotonic() + self._limit
        found: dict[str, bytearray] = {"out": bytearray(), "err": bytearray()}
        try:
            with process:
                try:
                    self._exchange(found)
                    process.wait(max(0.0, self._deadline - time.monotonic()))
                except BaseException:
                    kill(process)
                    raise
        except subprocess.TimeoutExpired:
            raise CannotRun(f"did not end within {self._limit:.0f} seconds") from None
        finally:
            forget(process)
        if process.returncode in _NOT_RUN:
            raise CannotRun("can't be run")
        return Ended(process.returncode, bytes(found["out"]), bytes(found["err"]))

    def _exchange(self, found: dict[str, bytearray]) -> None:
        """Feed it and read what it says, both at once."""
        process = self._process
        with selectors.DefaultSelector() as open_ends:
            for stream, name in ((process.stdout, "out"), (process.stderr, "err"), (process.stdin, "in")):
                if stream is not None:
                    os.set_blocking(stream.fileno(), False)
                    events = selectors.EVENT_WRITE if name == "in" else selectors.EVENT_READ
                    open_ends.register(stream, events, name)
            for stream, name in self._ready(open_ends):
                if name == "in":
                    self._feed(stream, open_ends)
                elif chunk := os.read(stream.fileno(), _CHUNK):
                    found[name] += chunk
                else:
                    open_ends.unregister(stream)
                if sum(map(len, found.values())) > MOST:
                    raise CannotRun(f"says more than {MOST >> 20} MiB", endless=True)

    def _ready(self, open_ends: selectors.BaseSelector) -> Iterator[tuple[IO[bytes], str]]:
        """Yield what can be read or written until all ends are closed, or it has ended and others hold them open."""
        while open_ends.get_map():
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired((), self._limit)
            gone = self._process.poll() is not None
            events = open_ends.select(0 if gone else min(_LOOK, left))
            if gone and not any(key.data != "in" for key, _ in events):
                return
            yield from ((key.fileobj, key.data) for key, _ in events)  # type: ignore[misc]

    def _feed(self, stream: IO[bytes], open_ends: selectors.BaseSelector) -> None:
        with contextlib.suppress(BrokenPipeError):  # it did not want to read all of it
            self._given = self._given[os.write(stream.fileno(), self._given[:_CHUNK]) :]
            if self._given:
                return
        open_ends.unregister(stream)
        stream.close()


def run(
    kind: Kind,
    command: Sequence[str],
    environ: Mapping[str, str],
    folder: Path | str = "/",
    *,
    given: str = "",
    limit: float = 60.0,
) -> Ended:
    """Start a program and wait for its end, as `Child` does both. Raises `CannotRun`."""
    return Child(kind, command, environ, folder, given=given, limit=limit).end()


def spawn(
    kind: Kind,
    command: Sequence[str],
    environ: Mapping[str, str],
    folder: Path | str = "/",
    *,
    fed: bool = True,
    end: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program with pipes to it, its input empty unless it is ``fed``.

    With ``end`` that descriptor is its input and output, and what it complains of is printed.

    `forget` it once it has ended. Raises `CannotRun`; a file that is no program ends with a status of `_NOT_RUN`.
    """
    program = shutil.which(command[0], path=search_path(environ))
    if program is None:
        raise CannotRun("is not installed, or not on PATH", missing=True)
    its_input = "<&1" if end is not None else "" if fed else "</dev/null"
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f'{_START} "$@" {its_input}', "sh", str(Path(program).absolute()), *command[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if end is None else end,
            stderr=None if end is not None else subprocess.PIPE,
            cwd=folder,
            env=environment(kind, environ),
            start_new_session=True,
        )
    except OSError as error:
        raise CannotRun(f"can't be run: {os.strerror(error.errno or 0)}") from None
    _WATCHER.tell("+", process.pid)
    _bound(process.pid, kind.largest)
    _begin(process, fed=fed and end is None)
    return process


def _begin(process: subprocess.Popen[bytes], *, fed: bool) -> None:
    """Give a child the word; what else is written to it is the program's."""
    word = process.stdin
    if word is None:
        raise AssertionError
    with contextlib.suppress(BrokenPipeError):  # it was ended from outside
        os.write(word.fileno(), b"\n")
    if not fed:
        word.close()
        process.stdin = None


def _bound(pid: int, largest: int) -> None:
    """Bound the memory of a program and of all that it starts, and the files: what it is to read may have no end."""
    if sys.platform != "linux":
        return
    for what, bound in ((resource.RLIMIT_DATA, MEMORY), (resource.RLIMIT_FSIZE, largest)):
        if not bound:
            continue
        with contextlib.suppress(OSError):  # it has ended
            hard = resource.prlimit(pid, what)[1]
            most = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
            resource.prlimit(pid, what, (most, most))


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a program and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def forget(process: subprocess.Popen[bytes]) -> None:
    """A program has ended: its number may be another one's by and by."""
    _WATCHER.tell("-", process.pid)


class _Watcher:
    """A shell that reads which of our children are at work, and ends them when we are gone, by whatever cause."""

    _SCRIPT = """cd /; live=" "
    while read -r sign group; do
      case $sign in
        +) live="$live$group " ;;
        -) live="${live%% $group *} ${live#* $group }" ;;
      esac
    done
    for group in $live; do kill -s KILL -- "-$group"; done"""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner, self._pipe = 0, -1

    def tell(self, sign: str, pid: int) -> None:
        """Say that a child began or ended."""
        with self._lock, contextlib.suppress(OSError):
            if self._owner != os.getpid():
                self._begin()
            os.write(self._pipe, f"{sign} {pid}\n".encode())

    def _begin(self) -> None:
        if self._owner:  # a fork of who began it
            os.close(self._pipe)
        ours, self._pipe = os.pipe()
        null = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
        actions = [(os.POSIX_SPAWN_DUP2, ours, 0), null, (os.POSIX_SPAWN_DUP2, 1, 2)]
        os.posix_spawn("/bin/sh", ["sh", "-c", self._SCRIPT], {}, file_actions=actions, setpgroup=0)
        os.close(ours)
        self._owner = os.getpid()


_WATCHER = _Watcher()
