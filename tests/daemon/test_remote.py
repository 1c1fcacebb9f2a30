"""How a repository is reached: over ssh and http by real servers, and what a hostile one can't make git do."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from daemon.origin import Origin, run, taken, told, yaml

from reconciler.daemon.remote import Remote
from reconciler.problem import ReconcilerError


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path / "there")


# ------------------------------------------------------------------------------------------------------- addresses
@pytest.mark.parametrize(
    ("text", "address", "protocol"),
    [
        ("https://github.com/mana/mail.git", "https://github.com/mana/mail.git", "https"),
        ("HTTPS://GitHub.com:443/mana/mail/", "https://github.com/mana/mail", "https"),
        ("http://git.lan:3000/mana/mail", "http://git.lan:3000/mana/mail", "http"),
        ("git@github.com:mana/mail.git", "git@github.com:mana/mail.git", "ssh"),
        ("ssh://git@git.lan:2222/srv/mail.git", "ssh://git@git.lan:2222/srv/mail.git", "ssh"),
        ("/srv/git/mail.git", "/srv/git/mail.git", "file"),
        ("file:///srv/git/mail.git", "/srv/git/mail.git", "file"),
    ],
)
def test_an_address_is_read_once(text: str, address: str, protocol: str) -> None:
    remote = Remote.read(text, "main")
    assert (remote.address, remote.protocol, remote.ref) == (address, protocol, "refs/heads/main")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ext::sh -c 'touch /tmp/x'",
        "fd::7",
        "https::https://github.com/a/b",
        "git://github.com/a/b",
        "ftp://example.com/a",
        "https://ada:hunter2@github.com/a/b.git",
        "https://hunter2@github.com/a/b.git",
        "ssh://-oProxyCommand=x/y",
        "ssh://ada:hunter2@host/y",
        "git@-oProxyCommand=x:y",
        "git@host:-y",
        "--upload-pack=touch /tmp/x",
        "https://github.com/a/../b",
        "https://github.com/a\n/b",
        "~/mail.git",
    ],
)
def test_an_address_that_could_mean_more_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ReconcilerError) as error:
        Remote.read(text, "main")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "branch",
    ["", "-x", "a..b", "a b", "a:b", "a*", "a~1", "a^", "@{u}", "a.lock", "/a", "a/", "a//b", "\x1b", "@"],
)
def test_a_branch_that_is_no_name_is_refused(branch: str) -> None:
    with pytest.raises(ReconcilerError, match="the branch"):
        Remote.read("/srv/x", branch)


# ------------------------------------------------------------------------------------------------------ over ssh
class Server:
    """An OpenSSH server on loopback, and a client's configuration that reaches it as `host`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)], check=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        (place / "known").write_text(f"[127.0.0.1]:{self.port} " + (place / "host.pub").read_text())
        (place / "sshd").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {place}/host\nPidFile none\nUsePAM no\n"
            f"StrictModes no\nPermitRootLogin yes\nAuthorizedKeysFile {place}/user.pub\n"
        )

    def command(self, user: str = "user", known: str = "known") -> str:
        """Return what GIT_SSH_COMMAND is to be."""
        return f"ssh -F none -i {self.place}/{user} -o IdentitiesOnly=yes -o UserKnownHostsFile={self.place}/{known}"

    def address(self, path: Path) -> str:
        import getpass

        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{path}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None or shutil.which("ssh") is None:
        pytest.skip("there is no OpenSSH server (Debian: openssh-server)")
    made = Server(tmp_path_factory.mktemp("ssh"))
    Path("/run/sshd").mkdir(exist_ok=True)
    command = [program, "-D", "-e", "-f", str(made.place / "sshd")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as daemon:
        try:
            assert daemon.stderr is not None
            said = daemon.stderr.readline()
            if "listening" not in said:
                pytest.skip(f"sshd does not start here: {said}")
            yield made
        finally:
            daemon.terminate()


def test_a_repository_over_ssh_is_followed_by_the_users_own_key(origin: Origin, server: Server) -> None:
    first = origin.state()
    checkout = origin.checkout(repo=server.address(origin.bare), GIT_SSH_COMMAND=server.command())
    sourced = checkout.poll()
    assert (taken(sourced), sourced.problems) == (first, ())
    second = origin.state(1)
    began = time.monotonic()
    assert checkout.newest() == second
    assert time.monotonic() - began < 10
    assert taken(checkout.poll()) == second


def test_an_agent_gives_the_key(origin: Origin, server: Server, tmp_path: Path) -> None:
    head, agent = origin.state(), Path("/tmp") / f"reconciler-agent-{os.getpid()}"
    command = ["ssh-agent", "-D", "-a", str(agent)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running:
        try:
            while not agent.exists():
                time.sleep(0.01)
            environ = {**os.environ, "SSH_AUTH_SOCK": str(agent)}
            subprocess.run(["ssh-add", "-q", str(server.place / "user")], env=environ, check=True, capture_output=True)
            options = server.command("none").replace("-o IdentitiesOnly=yes ", "")
            checkout = origin.checkout(
                repo=server.address(origin.bare), GIT_SSH_COMMAND=options, SSH_AUTH_SOCK=str(agent)
            )
            assert taken(checkout.poll()) == head
        finally:
            running.terminate()
            agent.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("user", "known", "says"),
    [("stranger", "known", "refuses our login"), ("user", "nobody", "is not known to ssh by its key")],
)
def test_a_login_or_a_host_that_is_not_known_asks_nobody(
    origin: Origin, server: Server, user: str, known: str, says: str
) -> None:
    origin.state()
    if user == "stranger" and not (server.place / "stranger").exists():
        subprocess.run(["ssh-keygen", "-q", "-N", "", "-f", str(server.place / "stranger")], check=True)
    checkout = origin.checkout(repo=server.address(origin.bare), GIT_SSH_COMMAND=server.command(user, known))
    began = time.monotonic()
    sourced = checkout.poll()
    assert time.monotonic() - began < 15
    assert sourced.revision is None
    assert says in told(sourced)


# ------------------------------------------------------------------------------------------------------ over http
class Files(http.server.SimpleHTTPRequestHandler):
    """Serves a repository as files. ``sent`` is where every request is sent on to, ``cut`` names what comes in part."""

    sent, cut = "", ""

    def do_GET(self) -> None:
        if self.sent:
            self.send_response(302)
            self.send_header("Location", self.sent + self.path)
            self.end_headers()
        elif self.cut and self.cut in self.path and Path(self.translate_path(self.path)).is_file():
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
        else:
            super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def serving(handler: Any) -> Iterator[str]:
    """Serve on loopback; yields the address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def web(origin: Origin) -> Iterator[tuple[type[Files], str]]:
    class Served(Files):
        pass

    with serving(functools.partial(Served, directory=str(origin.bare))) as address:
        yield Served, address


def test_http_is_spoken_where_the_address_says_so(origin: Origin, web: tuple[type[Files], str]) -> None:
    head = origin.state()
    run(origin.bare, "update-server-info")
    assert taken(origin.checkout(repo=web[1]).poll()) == head


def test_f11_half_a_fetch_is_no_revision(origin: Origin, web: tuple[type[Files], str]) -> None:
    good = origin.state()
    run(origin.bare, "repack", "-adq")
    run(origin.bare, "update-server-info")
    checkout = origin.checkout(repo=web[1])
    assert taken(checkout.poll()) == good
    head = origin.commit({"desired-state/reconciler.yaml": yaml(1), "noise": os.urandom(100_000)})
    run(origin.bare, "repack", "-adq")
    run(origin.bare, "update-server-info")
    for part in (".pack", "objects/"):
        web[0].cut = part
        for each in (checkout, origin.checkout(repo=web[1])):
            sourced = each.poll()
            assert (taken(sourced), sourced.seen) == (good, head)
            assert sourced.problems
    web[0].cut = ""
    assert (taken(sourced := checkout.poll()), sourced.problems) == (head, ())


def test_a_redirect_is_not_followed(origin: Origin, web: tuple[type[Files], str]) -> None:
    origin.state()
    run(origin.bare, "update-server-info")
    with serving(functools.partial(Files, directory=str(origin.bare))) as other:
        assert origin.checkout(origin.place / "other", repo=other).poll().revision
        web[0].sent = other
        sourced = origin.checkout(repo=web[1]).poll()
    assert sourced.revision is None
    assert "sends us to another address" in told(sourced)


def test_a_server_that_says_nothing_is_given_up(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    good = origin.state()
    data = origin.place / "data"
    monkeypatch.setattr("reconciler.daemon.store._LOOK", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        checkout = origin.checkout(data, repo=f"http://127.0.0.1:{silent.getsockname()[1]}/x")
        began = time.monotonic()
        sourced = checkout.poll()
        assert time.monotonic() - began < 15
        assert "did not end within 1 seconds" in told(sourced)
        assert checkout.newest() == ""
    assert taken(origin.checkout(data).poll()) == good


# ------------------------------------------------------------------------------------------------ what may not run
def trap(place: Path) -> Path:
    command = place / "command"
    command.write_text(f'#!/bin/sh\ntouch "{place}/ran"\ncat\n')
    command.chmod(0o755)
    return command


def test_nothing_runs_that_the_repository_or_its_files_configure(origin: Origin, tmp_path: Path) -> None:
    """Not even where the user's own configuration has such filters, as `git lfs install` writes them."""
    command, home = trap(tmp_path), tmp_path / "home"
    home.mkdir()
    (tmp_path / "hooks").mkdir()
    names = (
        "post-checkout",
        "reference-transaction",
        "post-merge",
        "pre-auto-gc",
        "fsmonitor-watchman",
        "post-rewrite",
    )
    for name in names:
        (tmp_path / "hooks" / name).symlink_to(command)
    (home / ".gitconfig").write_text(
        f'[filter "lfs"]\n smudge = {command}\n process = {command}\n required = true\n'
        f"[core]\n hooksPath = {tmp_path}/hooks\n fsmonitor = {command}\n attributesFile = {tmp_path}/attributes\n"
        f'[diff "d"]\n textconv = {command}\n[log]\n showSignature = true\n[gpg]\n program = {command}\n'
        f'[protocol "ext"]\n allow = always\n[submodule]\n recurse = true\n[fetch]\n recurseSubmodules = true\n'
        f"[tar]\n umask = 0\n[gc]\n auto = 1\n"
    )
    (tmp_path / "attributes").write_text("* filter=lfs diff=d\n")
    module = '[submodule "s"]\n path = s\n url = http://127.0.0.1:1/x\n'
    origin.commit(
        {
            "desired-state/reconciler.yaml": yaml(),
            "pointer.bin": "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
            ".gitattributes": "* filter=lfs diff=d merge=d\n",
            ".gitmodules": module,
            ".lfsconfig": "[lfs]\n url = http://127.0.0.1:1/\n",
        }
    )
    checkout = origin.checkout(HOME=str(home), GIT_TRACE=str(tmp_path / "trace"))
    revision = checkout.poll().revision
    assert revision
    assert (revision.directory.path.parent / "pointer.bin").read_text().startswith("version https://git-lfs")
    origin.state(1)
    assert checkout.poll().problems == ()
    good = origin.state(2)
    assert taken(checkout.poll()) == good
    origin.commit({".gitmodules": f'[submodule "s"]\n path = s\n url = ext::{command}\n update = !{command}\n'})
    sourced = checkout.poll()
    assert taken(sourced) == good
    assert "sent what is torn or not well-formed" in told(sourced)
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "trace").exists()


def test_a_way_that_the_users_configuration_turns_into_a_program_is_not_taken(origin: Origin, tmp_path: Path) -> None:
    command, home = trap(tmp_path), tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        f'[url "ext::{command} "]\n insteadOf = https://github.com/\n[protocol "ext"]\n allow = always\n'
    )
    sourced = origin.checkout(repo="https://github.com/mana/mail", HOME=str(home)).poll()
    assert "is reached in a way that is not allowed" in told(sourced)
    assert not (tmp_path / "ran").exists()


def test_git_gets_nothing_of_our_environment_but_how_to_log_in(origin: Origin, tmp_path: Path) -> None:
    origin.state()
    (tmp_path / "ssh").write_text(f"#!/bin/sh\nenv > {tmp_path}/environment\nexit 255\n")
    (tmp_path / "ssh").chmod(0o755)
    given = {"SSH_AUTH_SOCK": "/tmp/agent", "CLOUDFLARE_API_TOKEN": "canary", "GIT_DIR": "/etc", "LD_PRELOAD": ""}
    checkout = origin.checkout(repo="git@nowhere.invalid:x", GIT_SSH_COMMAND=str(tmp_path / "ssh"), **given)
    assert checkout.poll().revision is None
    said = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines() if "=" in line)
    assert said["SSH_AUTH_SOCK"] == "/tmp/agent"
    assert (said["GIT_TERMINAL_PROMPT"], said["SSH_ASKPASS_REQUIRE"]) == ("0", "never")
    assert not {"CLOUDFLARE_API_TOKEN", "TOKEN", "LD_PRELOAD"} & said.keys()


def test_a_credential_helper_of_the_users_is_asked(origin: Origin, tmp_path: Path) -> None:
    class Asking(http.server.BaseHTTPRequestHandler):
        logins: ClassVar[list[str]] = []

        def do_GET(self) -> None:
            if login := self.headers.get("Authorization"):
                self.logins.append(login)
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text('[credential]\n helper = "!echo username=ada; echo password=hunter2; #"\n')
    with serving(Asking) as repo:
        sourced = origin.checkout(repo=repo, HOME=str(home)).poll()
        without = origin.checkout(origin.place / "other", repo=repo).poll()
    assert Asking.logins == ["Basic YWRhOmh1bnRlcjI="]
    for each in (sourced, without):
        assert "refuses our login, or there is none" in told(each)
        assert "hunter2" not in str(each)
