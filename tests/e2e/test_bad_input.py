"""Bad input of every kind: an exit code, a message with address, cause and remedy, and the remedy clears it."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.simulator.cloudflare import Token

NOTIFY = "mana-core-notify"


def problem(stack: Any, code: int, *words: str, command: tuple[str, ...] = ("plan",), **options: Any) -> dict[str, Any]:
    """Call a command that must fail, and return the problem that has all these words."""
    found = stack.expect(code, *command, "--output", "json", **options).json
    for item in found["problems"]:
        if all(word in f"{item['where']} {item['summary']} {item['hint']}" for word in words):
            assert item["where"], item
            assert item["summary"], item
            assert item["hint"] or item["summary"].endswith(")"), f"no remedy: {item}"
            return dict(item)
    raise AssertionError(found["problems"])


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --------------------------------------------------------------------------------------------------- systems
@pytest.mark.parametrize(
    ("variable", "scheme", "target"),
    [
        ("STALWART_URL", "http", "stalwart"),
        ("CLOUDFLARE_BASE_URL", "http", "cloudflare"),
        ("DOCKER_HOST", "tcp", "compose"),
    ],
)
def test_an_unreachable_system_is_named_and_the_others_go_on(
    applied: Any, variable: str, scheme: str, target: str
) -> None:
    url = f"{scheme}://127.0.0.1:{closed_port()}"
    applied.edit("dns.yaml", "194.191.241.139}", "194.191.241.140}")
    applied.env.update({variable: url, "POSTMASTER_PASSWORD": "another"})
    problem(applied, 1, url.partition("://")[2])
    changes = {item["target"] for item in applied.run("plan", "--output", "json").json["changes"]}
    assert changes == {"stalwart", "cloudflare"} - {target}
    applied.expect(6, "apply", "--yes")
    del applied.env[variable]
    applied.expect(0, "apply", "--yes")


def test_a_wrong_password_is_tried_once(applied: Any) -> None:
    wrong = base64.b64encode(b"admin:wrong-word").decode()
    for command in (("plan",), ("apply", "--yes")):
        applied.stage.stalwart_server.forget()
        found = (
            problem(applied, 1, "refuses the password of admin", command=command, STALWART_ADMIN_PASSWORD="wrong-word")
            if command == ("plan",)
            else None
        )
        if found is None:
            applied.run(*command, STALWART_ADMIN_PASSWORD="wrong-word")
        tried = [
            item for item in applied.stage.stalwart_server.requests if wrong in item.headers.get("authorization", "")
        ]
        assert len(tried) == 1, [item.path for item in tried]
    assert applied.expect(0, "plan", "--detailed-exitcode").code == 0, "the right password clears it"


def test_a_banned_address_is_told_from_a_server_that_is_down(applied: Any) -> None:
    applied.stage.stalwart.bans.blocked.add("127.0.0.1")
    found = problem(applied, 1, "banned")
    assert "server.blocked-ip" in found["hint"]
    applied.stage.stalwart.bans.blocked.discard("127.0.0.1")
    applied.expect(0, "plan")


def test_a_wrong_token_and_one_without_a_right(applied: Any) -> None:
    problem(applied, 1, "token", "CLOUDFLARE_API_TOKEN", CLOUDFLARE_API_TOKEN="x" * 40)
    token = applied.secrets["CLOUDFLARE_API_TOKEN"]
    tokens = applied.stage.cloudflare.tokens
    try:
        for lacking in (Token(dns="none"), Token(zones=frozenset()), Token(status="disabled")):
            tokens[token] = lacking
            problem(applied, 1, "token", "CLOUDFLARE_API_TOKEN")
        tokens[token] = Token(dns="read")
        applied.edit("dns.yaml", "194.191.241.139}", "194.191.241.140}")
        applied.env["POSTMASTER_PASSWORD"] = "another"
        done = applied.expect(6, "apply", "--yes")
        assert "dns/mana.how/A/mail" in done.out
        assert "token" in done.out
        tokens[token] = Token()
        applied.expect(0, "apply", "--yes")
    finally:
        tokens[token] = Token()


def test_a_zone_that_is_not_in_the_account(applied: Any) -> None:
    applied.write("more.yaml", "dns: {unknown.example: [{type: A, name: www, content: 192.0.2.1}]}\n")
    problem(applied, 1, "unknown.example")
    (applied.example.state / "more.yaml").unlink()
    applied.expect(0, "plan")


# --------------------------------------------------------------------------------------------------- variables
@pytest.mark.parametrize(
    "name", ["STALWART_ADMIN_PASSWORD", "NOREPLY_PASSWORD", "CLOUDFLARE_API_TOKEN", "MANA_SERVICE_KEY"]
)
def test_a_missing_variable_is_named_and_exporting_it_clears_it(applied: Any, name: str) -> None:
    found = problem(applied, 1, f"{name} is not set", drop=(name,))
    assert f"export {name}" in f"{found['hint']} {found['summary']}"
    applied.expect(0, "plan", "--detailed-exitcode")


def test_an_unused_secret_is_not_asked_for(applied: Any) -> None:
    applied.expect(0, "plan", "--detailed-exitcode", drop=("BREVO_SMTP_KEY",))


def test_a_missing_key_file_and_one_that_is_no_key(applied: Any) -> None:
    path = applied.example.path / "secrets" / "rsa2026.pem"
    content = path.read_bytes()
    path.unlink()
    problem(applied, 1, "rsa2026.pem", "No such file")
    path.write_text("not a key\n")
    problem(applied, 1, "rsa2026")
    os.mkfifo(path.with_suffix(".fifo"))
    applied.edit("dkim.yaml", "rsa2026.pem", "rsa2026.fifo")
    problem(applied, 1, "not a regular file")
    applied.edit("dkim.yaml", "rsa2026.fifo", "rsa2026.pem")
    path.write_bytes(content)
    assert applied.expect(0, "plan", "--detailed-exitcode").code == 0


# --------------------------------------------------------------------------------------------------- disks
# What the kernel does on a full disk, for one kind of file: writing beside the env file fails from the first byte on.
FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = resource.getrlimit(resource.RLIMIT_FSIZE)
def heard(event, arguments):
    if event == "open" and {word!r} in str(arguments[0]) and arguments[2] & 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, limit[1]))
    elif event in ("os.remove", "os.rename", "os.truncate"):
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
sys.addaudithook(heard)
"""
# Root passes over permissions by these capabilities; without them it is a user like others.
MERE_MORTAL = """
import ctypes, os, sys
if os.geteuid() == 0:
    assert sys.platform == "linux"
    libc = ctypes.CDLL(None, use_errno=True)
    head, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(head, data) == 0
    for index in (0, 1):
        data[index] &= ~0b1110
    assert libc.capset(head, data) == 0
"""


def test_a_full_disk_under_the_env_file_keeps_it_whole(applied: Any) -> None:
    applied.env["NOREPLY_PASSWORD"] = "the-next-one"
    before, ids = applied.example.env_file.read_bytes(), applied.ids()
    done = applied.run("apply", "--yes", bug=FULL.format(word=".env.macmini"))
    assert done.code == 6, done.text
    assert "File too large" in done.text
    assert str(applied.example.env_file.name) in done.text
    assert (applied.example.env_file.read_bytes(), applied.ids()) == (before, ids)
    assert {path.name for path in applied.example.path.glob(".env*")} == {".env", ".env.macmini", ".env.macmini.bak"}
    applied.expect(0, "apply", "--yes")
    assert applied.container(NOTIFY).environment["SMTP_PASSWORD"] == "the-next-one"


def test_a_full_disk_under_the_temporary_directory_stops_before_anything_changes(applied: Any) -> None:
    applied.env["NOREPLY_PASSWORD"] = "the-next-one"
    before = applied.example.env_file.read_bytes()
    done = applied.run("apply", "--yes", bug=FULL.format(word=str(applied.scratch)))
    assert done.code == 6, done.text
    assert "this is a bug" not in done.text
    assert applied.example.env_file.read_bytes() == before
    applied.expect(0, "apply", "--yes")


def test_a_full_disk_under_the_journal_is_a_warning(applied: Any) -> None:
    applied.edit("dns.yaml", "194.191.241.139}", "194.191.241.140}")
    done = applied.expect(0, "apply", "--yes", bug=FULL.format(word="journal.jsonl"))
    assert "the journal can't be written" in done.err
    assert applied.ours()["A", "mail"]["content"] == "194.191.241.140"


def test_a_read_only_directory_of_the_env_file(applied: Any) -> None:
    applied.env["NOREPLY_PASSWORD"] = "the-next-one"
    applied.example.env_file.chmod(0o400)
    applied.example.path.chmod(0o555)
    before = applied.example.env_file.read_bytes()
    try:
        done = applied.run("apply", "--yes", bug=MERE_MORTAL)
        assert done.code == 6, done.text
        assert "writable" in done.text
        assert applied.example.env_file.read_bytes() == before
    finally:
        applied.example.path.chmod(0o700)
        applied.example.env_file.chmod(0o600)
    applied.expect(0, "apply", "--yes", bug=MERE_MORTAL)


def test_an_unreadable_env_file(applied: Any) -> None:
    applied.example.env_file.chmod(0o000)
    try:
        problem(applied, 1, ".env.macmini", bug=MERE_MORTAL)
    finally:
        applied.example.env_file.chmod(0o600)
    applied.expect(0, "plan", bug=MERE_MORTAL)


def test_a_read_only_data_directory_takes_no_lease_and_writes_nothing(stack: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o555)
    done = stack.expect(1, "apply", "--yes", "--data", str(data / "deeper"), bug=MERE_MORTAL)
    assert "no lease can be taken" in done.err
    assert "--data" in done.err
    assert stack.writes() == []
    data.chmod(0o755)
    stack.expect(0, "apply", "--yes", "--data", str(data / "deeper"), bug=MERE_MORTAL)


# --------------------------------------------------------------------------------------------------- hostile YAML
def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 << 20)


def _outside(path: Path) -> None:
    path.symlink_to("/etc/hostname")


BOMB = "x-a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"x-{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE: dict[str, Callable[[Path], Any]] = {
    "a bomb": lambda path: path.write_text(BOMB),
    "a deep one": lambda path: path.write_text("x-a: " + "[" * 50_000),
    "a tag": lambda path: path.write_text("dns: !!python/object/apply:os.system [touch /tmp/owned]\n"),
    "a cycle": lambda path: path.write_text("x-a: &a [*a]\ndns: *nothing\n"),
    "a sparse file": _sparse,
    "a pipe": os.mkfifo,
    "a link to elsewhere": _outside,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nowhere.yaml"),
    "bytes": lambda path: path.write_bytes(b"\xff\xfe\x00\x01"),
    "a NUL": lambda path: path.write_bytes(b"dns: \x00\n"),
    "a list": lambda path: path.write_text("- a\n- b\n"),
    "two documents": lambda path: path.write_text("dns: {}\n---\ndns: {}\n"),
    "a duplicate": lambda path: path.write_text("dns: {}\ndns: {}\n"),
    "an unknown key": lambda path: path.write_text("dnss: {}\n"),
    "no YAML": lambda path: path.write_text("dns: [\n"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_an_error_with_its_name_and_nothing_is_asked(stack: Any, kind: str) -> None:
    path = stack.example.state / "hostile.yaml"
    HOSTILE[kind](path)
    for server in stack.stage.servers:
        server.forget()
    for command in (("validate",), ("apply", "--yes")):
        found = stack.expect(3, *command, "--output", "json").json["problems"]
        assert any("hostile.yaml" in item["where"] and item["summary"] and item["hint"] for item in found), found
    assert not any(server.requests for server in stack.stage.servers)
    path.unlink()
    stack.expect(0, "validate")


def test_a_yml_and_a_missing_and_an_empty_directory(stack: Any, tmp_path: Path) -> None:
    path = stack.write("more.yml", "dns: {}\n")
    assert "more.yml" in stack.expect(3, "validate").err
    path.unlink()
    assert "nowhere" in stack.expect(3, "validate", "--state", str(tmp_path / "nowhere")).err
    assert str(tmp_path) in stack.expect(3, "validate", "--state", str(tmp_path)).err


# --------------------------------------------------------------------------------------------------- odd values
ODD = [
    'it\'s "quoted"',
    "do$$llar ${NAME} $x",
    "back\\slash\\",
    "line\nbreak",
    "ünï 中文 🙂",
    "#hash = and space ",
    "a" * 4000,
]


@pytest.mark.few(of=lambda value: len(value) > 100)  # tests/targets/compose has each in a file
@pytest.mark.parametrize("value", ODD)
def test_any_value_reaches_the_container_as_it_is(applied: Any, value: str) -> None:
    applied.watch.touched.add("mana-auth")
    applied.env["MANA_SERVICE_KEY"] = value
    applied.expect(0, "apply", "--yes")
    assert applied.container(NOTIFY).environment["SERVICE_KEY"] == value
    assert applied.container("mana-auth").environment["MANA_SERVICE_KEY"] == value
    assert applied.expect(0, "plan", "--detailed-exitcode").code == 0


def test_names_in_unicode_and_odd_words_plan_empty(stack: Any) -> None:
    stack.edit("accounts.yaml", "DMARC reports and bounces", 'Bünces, \\"reports\\" & 🙂')
    stack.edit("accounts.yaml", "description: Bünces", 'description: "Bünces')
    text = (stack.example.state / "accounts.yaml").read_text()
    (stack.example.state / "accounts.yaml").write_text(text.replace("& 🙂", '& 🙂"'))
    stack.edit(
        "dns.yaml",
        "  mana.how:\n",
        "  mana.how:\n"
        "    - {type: A, name: bücher, content: 192.0.2.1, comment: \"für 'alle'\"}\n"
        '    - {type: TXT, name: odd, content: "a \\"b\\" \\\\ c; $d"}\n'
        '    - {type: TXT, name: long, content: "' + "x" * 700 + '"}\n',
    )
    stack.expect(0, "apply", "--yes")
    assert stack.principal("postmaster").description == 'Bünces, "reports" & 🙂'
    assert ("A", "xn--bcher-kva") in stack.ours()
    assert stack.expect(0, "plan", "--detailed-exitcode").code == 0
