"""Secrets in files of the real sops: which key opens them, what is said where none does, and what is never said."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from e2e.stagefixtures import wait_for
from keyring import Keyring, sops_program
from ruamel.yaml import YAML

from reconciler.files import CannotRead
from reconciler.problem import Problem, SecretUnreadable
from reconciler.resources import SecretRef
from reconciler.secrets import Secrets, sops

CANARY = "c4nary-0f-a-s3cret"
FILE = "secrets.sops.yaml"


@pytest.fixture
def ring(tmp_path):
    sops_program()
    return Keyring(tmp_path)


def ref(key, name=FILE):
    return SecretRef("sops", f"{name}#{key}")


def read(ring, key, name=FILE, **environ):
    return Secrets(ring.state, ring.environ | environ)(ref(key, name))


def refused(ring, key="mail", name=FILE, **environ) -> Problem:
    """Return why a reference can't be read; nothing in it may be secret."""
    with pytest.raises(SecretUnreadable) as caught:
        read(ring, key, name, **environ)
    (problem,) = caught.value.problems
    assert problem.where == str(ref(key, name))
    assert problem.hint
    assert CANARY not in str(problem)
    assert "AGE-SECRET" not in str(problem)
    return problem


def counting(ring, body='exec "$REAL" "$@"'):
    """Put a program in front of the real one that writes down each call and its environment."""
    folder = ring.home / "bin"
    folder.mkdir()
    program = folder / "sops"
    log = ring.home / "calls"
    program.write_text(f'#!/bin/sh\necho "$@" >>"{log}"\nenv >"{log}.env"\nREAL="{sops_program()}"\n{body}\n')
    program.chmod(0o755)
    ring.environ["PATH"] = f"{folder}:{ring.environ['PATH']}"
    return lambda: log.read_text().splitlines() if log.exists() else []


# ------------------------------------------------------------------------------------------------------- what is read
@pytest.mark.parametrize(
    ("name", "content", "key", "value"),
    [
        ("s.sops.yaml", "mail: a\nx.pem: |\n  one\n  two\n", "x.pem", "one\ntwo"),
        ("s.sops.yaml", "smtp:\n  logins:\n    - {password: deep}\n", "smtp.logins.0.password", "deep"),
        ("s.sops.yaml", "smtp:\n  a.b: deep\n", "smtp/a.b", "deep"),
        ("s.sops.yaml", "a.b: top\na:\n  b: deep\n", "a.b", "top"),
        ("s.json", '{"noreply@mana.how": "é\\u2028\\ud83d\\ude00"}', "noreply@mana.how", "é\u2028😀"),
        (".env", "MAIL=a b\n", "MAIL", "a b"),
        ("s.ini", "[mail]\npassword = x\n", "mail.password", "x"),
        ("key.bin", "-----BEGIN\nx\n", "data", "-----BEGIN\nx"),
    ],
)
def test_every_format_of_sops_and_paths_into_it(ring, name, content, key, value):
    ring.encrypted(name, content, ring.own())
    assert read(ring, key, name) == value


def test_what_was_read_is_redacted_line_by_line(ring):
    line = "MC4CAQAwBQYDK2VwBCIEIO" + "a" * 20
    ring.encrypted(FILE, {"key": f"-----BEGIN PRIVATE KEY-----\n{line}\n-----END PRIVATE KEY-----\n"}, ring.own())
    secrets = Secrets(ring.state, ring.environ)
    assert line in secrets(ref("key"))
    assert line not in secrets.redact(f"near {line}!")


def test_a_file_is_decrypted_once_for_all_who_ask_at_the_same_time(ring):
    ring.encrypted(FILE, {"a": "1a", "b": "2b"}, ring.own())
    calls = counting(ring)
    secrets = Secrets(ring.state, ring.environ)
    assert calls() == []  # nothing is needed yet
    found, start = {}, threading.Barrier(4)

    def ask(number, key):
        start.wait()
        found[number] = secrets(ref(key))

    threads = [threading.Thread(target=ask, args=(number, "ab"[number % 2])) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: "1a", 1: "2b", 2: "1a", 3: "2b"}
    assert len(calls()) == 1


def test_a_file_that_can_not_be_decrypted_is_tried_once(ring):
    ring.encrypted(FILE, {"a": CANARY, "b": CANARY}, str(ring.identity().to_public()))
    calls = counting(ring)
    secrets = Secrets(ring.state, ring.environ)
    for key in "abab":
        with pytest.raises(SecretUnreadable, match="no key to decrypt"):
            secrets(ref(key))
    assert sum(call.startswith("decrypt") for call in calls()) == 1


def test_sops_gets_what_it_finds_keys_by_and_none_of_our_secrets(ring):
    ring.encrypted(FILE, {"mail": "x"}, ring.own())
    counting(ring)
    passed = {"SOPS_DECRYPTION_ORDER": "age,pgp", "SOPS_AGE_KEY": str(ring.identity())}
    read(ring, "mail", CLOUDFLARE_API_TOKEN=CANARY, STALWART_ADMIN_PASSWORD=CANARY, **passed)
    seen = (ring.home / "calls.env").read_text()
    assert CANARY not in seen
    assert all(f"{name}={value}" in seen for name, value in passed.items())


SERVICES = {"AWS_SECRET_ACCESS_KEY": CANARY, "VAULT_TOKEN": CANARY, "AZURE_CLIENT_SECRET": CANARY, "GOOGLE_X": CANARY}


def test_t7_credentials_of_key_services_are_passed_only_where_the_environment_says_so(ring):
    ring.encrypted(FILE, {"mail": "x"}, ring.own())
    counting(ring)
    log = ring.home / "calls.env"
    assert read(ring, "mail", **SERVICES) == "x"
    assert CANARY not in log.read_text()
    assert str(ring.home) not in re.findall(r"^HOME=(.*)$", log.read_text(), re.MULTILINE)
    read(ring, "mail", RECONCILER_PASS_ENV="sops:AWS_*, sops:HOME compose:VAULT_*", **SERVICES)
    seen = log.read_text()
    assert seen.count(CANARY) == seen.count(f"AWS_SECRET_ACCESS_KEY={CANARY}") == 1
    assert f"HOME={ring.home}\n" in seen


class Vault(BaseHTTPRequestHandler):
    """Notes what it is sent."""

    seen: ClassVar[list[str]] = []

    def do_PUT(self):
        self.seen.append(str(self.headers))
        self.send_response(403)
        self.end_headers()

    do_POST = do_GET = do_PUT

    def log_message(self, *_):
        pass


ENTRY = {"created_at": "2026-01-01T00:00:00Z", "enc": "AAAA"}
REGION, PROJECT = "tr-west-1", "abcdefab-1234-1234-1234-abcdefabcdef"
NAMED = {
    "hc_vault": lambda url: {"vault_address": url, "engine_path": "../x", "key_name": "k", "enc": "vault:v1:AAAA"},
    "azure_kv": lambda url: {"vault_url": url.replace("http:", "https:"), "name": "k", "version": "1"},
    "kms": lambda _: {"arn": "arn:aws:kms:us-east-1:111122223333:key/abc"},
    "gcp_kms": lambda _: {"resource_id": "projects/a/locations/b/keyRings/c/cryptoKeys/d"},
    "hckms": lambda _: {"key_id": f"{REGION}:{PROJECT}"},
}


def naming(ring, service: str, url: str) -> None:
    """Encrypt a file for nobody that we are, and let a key service be its only way."""
    path = ring.encrypted(FILE, {"mail": "x"}, str(ring.identity().to_public()))
    document = YAML(typ="safe").load(path.read_text())
    document["sops"][service] = [{**ENTRY, **NAMED[service](url)}]
    path.write_text(json.dumps(document))


def test_t7_a_vault_that_a_file_names_is_asked_only_where_the_environment_says_so(ring):
    """It gets no token then that nobody passed: not of the environment, and not of the file in the home either."""
    ring.own()
    (ring.home / ".vault-token").write_text(CANARY)
    Vault.seen.clear()
    with HTTPServer(("127.0.0.1", 0), Vault) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        naming(ring, "hc_vault", f"http://127.0.0.1:{server.server_port}")
        problem = refused(ring, **SERVICES)
        assert not Vault.seen
        refused(ring, RECONCILER_PASS_ENV="sops:VAULT_NAMESPACE", **SERVICES)
        server.shutdown()
    assert Vault.seen
    assert CANARY not in "".join(Vault.seen)
    assert "RECONCILER_PASS_ENV" in problem.hint
    assert "sops:VAULT_*" in problem.hint


VARIABLES = {
    "kms": "AWS_",
    "gcp_kms": "GOOGLE_",
    "azure_kv": "AZURE_",
    "hc_vault": "VAULT_",
    "hckms": "HUAWEICLOUD_",
}


@contextlib.contextmanager
def asked(pid: Path) -> Iterator[tuple[str, list[Any]]]:
    """Serve nobody: that somebody came is noted, and ends the process that has written its number: it would try on."""
    calls: list[Any] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, peer = there.accept()
                calls.append(peer)
                connection.close()
                os.kill(int(pid.read_text()), signal.SIGTERM)

    with socket.create_server(("127.0.0.1", 0)) as there:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{there.getsockname()[1]}", calls
        finally:
            there.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("service", NAMED)
def test_t7_neither_key_service_nor_metadata_is_asked_unless_the_environment_says_so(ring, service):
    """A machine in a cloud has credentials without any variable: its metadata service gives them to who asks."""
    ring.own()
    family, open_ = VARIABLES[service], ring.home / "open"
    with asked(ring.home / "pid") as (host, calls):
        metadata = f"export AWS_EC2_METADATA_SERVICE_ENDPOINT=http://{host} GCE_METADATA_HOST={host}"
        # The one asks Google first, the other's metadata is at one address: neither is here.
        far = f'test -e "{open_}" && exit 1' if service in ("gcp_kms", "hckms") else ""
        counting(ring, f'{metadata}\n{far}\necho $$ >"{ring.home}/pid"\nexec "$REAL" "$@"')
        naming(ring, service, f"http://{host}")
        problem = refused(ring)
        assert not calls
        assert family in problem.hint
        assert f"\n{family}" in (ring.home / "calls.env").read_text()  # what shuts it
        open_.touch()
        refused(ring, RECONCILER_PASS_ENV=f"sops:{family}*")
        assert f"\n{family}" not in (ring.home / "calls.env").read_text()
        assert far or calls


BOMB = "a: &a0 {b: c}\n" + "".join(f"k{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 30))


@pytest.mark.parametrize("text", ["\n" * 1_000_000, "arn=" + "\n" * 1_000_000, "[" * 1_000_000, "- " * 500_000, BOMB])
def test_t11_no_file_that_a_reference_names_holds_the_head_of_a_plan_up(tmp_path, text):
    """Each took hours, or all memory."""
    path = tmp_path / FILE
    path.write_text(f"{text}\nmac: ENC[x]\nvault_address: http://192.0.2.1\n")
    assert "http://192.0.2.1" in sops.Sops({}).services(path)
    with pytest.raises(CannotRead):
        sops.Sops({"PATH": ""}).value(path, "a")


@pytest.mark.parametrize(
    "text",
    [
        "sops: {hc_vault: [{vault_address: 'http://192.0.2.1'}], odd: a:b}",
        "&k vault_address: &v http://192.0.2.1\nsops: {hc_vault: [{*k : *v}]}",
        '{"sops": {"hc_vault": [{"vault\\u005faddress": "http:\\/\\/192.0.2.1"}]}}',
        "[sops]\nhc_vault__list_0__map_vault_address = http://192.0.2.1\n",
        "sops_hc_vault__list_0__map_vault_address=http://192.0.2.1\n",
    ],
)
def test_t5_a_key_service_is_named_however_a_file_spells_it(text):
    assert sops.services(text.encode()) == {"http://192.0.2.1"}


def test_t5_a_file_that_only_sops_can_read_is_not_shown_to_it(tmp_path):
    """It could name whom we don't see."""
    path = tmp_path / FILE
    path.write_text('{"x": a:b, "sops": {"hc_vault": [{"vault\\x5faddress": "http://192.0.2.1"}], mac: "ENC[x]"}}')
    with pytest.raises(CannotRead, match="no YAML that all programs read alike"):
        sops.Sops({"PATH": ""}).value(path, "x")


ELSEWHERE = {
    "another case": ("s.json", '{"sops": {"hc_vault": [{"Vault_Address": "http://192.0.2.1"}]}}'),
    "a letter that Go takes for s": ("s.json", '{"sops": {"hc_vault": [{"vault_addreſſ": "http://192.0.2.1"}]}}'),
    "another case in YAML": ("s.yaml", "sops: {hc_vault: [{Vault_Address: 'http://192.0.2.1'}]}"),
    "another case in lines": ("s.env", "sops_hc_vault__list_0__map_Vault_Address=http://192.0.2.1"),
    "a suffix that is none": ("s.bin", '{"sops": {"hc_vault": [{"vault\\u005faddress": "http://192.0.2.1"}]}}'),
}


@pytest.mark.parametrize(("name", "text"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_t5_a_key_service_is_named_in_whatever_case(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert sops.Sops({}).services(tmp_path / name) == {"http://192.0.2.1"}


HIDDEN = {
    "a key in base64": ("s.yaml", "sops: {hc_vault: [{!!binary dmF1bHRfYWRkcmVzcw==: 'http://192.0.2.1'}]}"),
    "an address in base64": ("s.yaml", "sops: {hc_vault: [{vault_address: !!binary aHR0cDovLzE5Mi4wLjIuMQ==}]}"),
    "a user before the host": (
        "s.json",
        '{"sops": {"hc_vault": [{"vault_address": "http://vault.corp,x@192.0.2.1"}]}}',
    ),
    "a long user": ("s.json", '{"sops": {"hc_vault": [{"vault_address": "http://v.%s@192.0.2.1"}]}}' % ("a" * 300)),
    "a user in lines": ("s.env", "sops_hc_vault__list_0__map_vault_address=http://vault.corp,x@192.0.2.1"),
    "an ARN that names a host": ("s.json", '{"sops": {"kms": [{"arn": "arn:aws:kms:192.0.2.1/#:1:key/a"}]}}'),
    "a quoted name": ("s.ini", "[sops]\n`hc_vault__list_0__map_vault_address` = http://192.0.2.1"),
    "a line that goes on": ("s.ini", "[sops]\nhc_vault__list_0__map_vault_address = \\\nhttp://192.0.2.1"),
    "no YAML, behind a suffix that is none": ("s.bin", '{"a": "\\ud800", "sops": {"vault\\u005faddress": "x"}}'),
    "no YAML, in a file without a name": (".json", '{"a": "\\ud800", "sops": {"vault\\u005faddress": "x"}}'),
}


@pytest.mark.parametrize(("name", "text"), HIDDEN.values(), ids=HIDDEN)
def test_t5_a_file_that_names_a_key_service_in_no_plain_way_is_not_shown_to_sops(ring, name, text):
    """It would send the service's token to whom the head of the plan does not name."""
    (ring.state / name).write_text(f"{text}\n# mac: ENC[x]\n")
    with pytest.raises(CannotRead, match=r"read alike|which is no address"):
        sops.Sops({"PATH": ""}).value(ring.state / name, "x")


@pytest.mark.parametrize("clear", ["2001-99-99", "9" * 5000, "[" * 400 + "]" * 400, "1e999", "0o99"])
def test_t12_what_stands_in_clear_beside_a_secret_is_no_bug(ring, clear):
    recipient, path = ring.own(), ring.state / FILE
    path.write_text(f"mail: {CANARY}\nday_unencrypted: {clear}\n")
    ring.sops("encrypt", "--age", recipient, "-i", str(path))
    assert read(ring, "mail") == CANARY


@pytest.mark.parametrize("place", ["id_ed25519", "id_rsa"])
def test_t7_both_of_the_user_s_ssh_keys_are_tried(ring, place):
    """They are in his home, of which sops is told nothing else."""
    (ring.home / ".ssh").mkdir()
    for name, kind in (("id_ed25519", "ed25519"), ("id_rsa", "rsa")):
        command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(ring.home / ".ssh" / name)]
        subprocess.run(command, check=True)
    public = (ring.home / ".ssh" / f"{place}.pub").read_text().rpartition(" ")[0]
    ring.encrypted(FILE, {"mail": "x"}, public)
    assert read(ring, "mail") == "x"


def test_a_relative_key_file_is_looked_for_where_we_run(ring, monkeypatch):
    recipient = ring.own()
    ring.encrypted(FILE, {"mail": "x"}, recipient)
    ring.keys.rename(ring.home / "mine.txt")
    monkeypatch.chdir(ring.home)
    assert read(ring, "mail", SOPS_AGE_KEY_FILE="mine.txt") == "x"


# ------------------------------------------------------------------------------------------------------ whose key opens
def test_the_identity_of_somebody_else_opens_nothing(ring):
    recipient = ring.own()
    ring.encrypted(FILE, {"mail": CANARY}, recipient)
    other = ring.own()
    problem = refused(ring)
    assert recipient in problem.summary
    assert other in problem.summary  # what was tried, by its public half
    assert str(ring.keys) in problem.summary
    for place in ("SOPS_AGE_KEY", "SOPS_AGE_KEY_FILE", str(ring.keys), "~/.ssh/id_ed25519"):
        assert place in problem.hint


def test_without_any_identity_the_error_says_so(ring):
    recipient = ring.own()
    ring.encrypted(FILE, {"mail": CANARY}, recipient)
    ring.disown()
    problem = refused(ring)
    assert recipient in problem.summary
    assert "no identity was found" in problem.summary


@pytest.mark.parametrize("name", ["s.sops.yaml", "s.json", "s.env", "s.ini", "s.bin"])
def test_recipients_are_named_whatever_the_format(ring, name):
    first, second = (str(ring.identity().to_public()) for _ in range(2))
    content = {"yaml": "a: b\n", "json": '{"a": "b"}', "env": "a=b\n", "ini": "[a]\nb=c\n", "bin": "x"}
    ring.encrypted(name, content[name.rpartition(".")[2]], first, second)
    problem = refused(ring, "a", name)
    assert first in problem.summary
    assert second in problem.summary


def test_rotated_recipients(ring):
    old, new = ring.identity(), ring.identity()
    ring.own(old)
    ring.encrypted(FILE, {"mail": CANARY}, str(old.to_public()))
    ring.sops("rotate", "-i", "--add-age", str(new.to_public()), "--rm-age", str(old.to_public()), FILE)
    assert str(new.to_public()) in refused(ring).summary
    assert read(ring, "mail", SOPS_AGE_KEY=str(new)) == CANARY


# ------------------------------------------------------------------------------------------------------ what goes wrong
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("s.sops.yaml", f"mail: {CANARY}\n"),
        ("s.sops.yaml", f"mail: {CANARY}\nmac: none\n"),
        ("s.json", json.dumps({"mail": CANARY})),
        ("s.env", f"mail={CANARY}\n"),
        ("s.ini", f"[mail]\nmail={CANARY}\n"),
        ("s.bin", CANARY),
    ],
)
def test_a_file_in_clear_is_not_read_and_said_loudly(ring, name, content):
    ring.own()
    calls = counting(ring)
    (ring.state / name).write_text(content)
    problem = refused(ring, "mail", name)
    assert "NOT ENCRYPTED" in problem.summary
    assert "replace" in problem.hint
    assert calls() == []


def test_a_key_that_a_rule_leaves_in_clear_is_refused(ring):
    (ring.state / ".sops.yaml").write_text(f"creation_rules: [{{age: {ring.own()}, encrypted_regex: ^hidden$}}]\n")
    ring.encrypted(FILE, {"mail": CANARY, "hidden": "x1"})
    assert "IN CLEAR" in refused(ring).summary
    assert read(ring, "hidden") == "x1"


def test_a_changed_file_is_told_by_its_mac(ring):
    path = ring.encrypted(FILE, f"mail: {CANARY}\nother: x\n", ring.own())
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith("other")))
    assert "MAC" in refused(ring).summary


def test_a_damaged_value(ring):
    path = ring.encrypted(FILE, {"mail": CANARY}, ring.own())
    text = path.read_text()
    start = text.index("data:") + 5
    path.write_text(text[:start] + ("A" if text[start] != "A" else "B") + text[start + 1 :])
    assert "damaged" in refused(ring).summary


def test_a_missing_key_names_near_ones_and_no_value(ring):
    ring.encrypted(FILE, {"noreply@mana.how": CANARY, "other": CANARY}, ring.own())
    assert "noreply@mana.how" in refused(ring, "norepl@mana.how").hint
    assert "noreply@mana.how, other" in refused(ring, "zzz").hint


@pytest.mark.parametrize("value", [1234, True, 1.5, None, {"a": CANARY}, [CANARY], ""])
def test_what_is_no_text_is_no_secret(ring, value):
    ring.encrypted(FILE, {"mail": value}, ring.own())
    assert refused(ring).summary


def test_a_missing_file_a_pipe_and_a_huge_file(ring):
    assert "No such file" in refused(ring).summary
    os.mkfifo(ring.state / "pipe")
    assert "not a regular file" in refused(ring, "a", "pipe").summary
    (ring.state / "huge").write_bytes(b"x" * (sops.MAX_BYTES + 1))
    assert "too large" in refused(ring, "a", "huge").summary


def test_sops_is_missing(ring):
    ring.encrypted(FILE, {"mail": CANARY}, ring.own())
    problem = refused(ring, PATH=str(ring.home))
    assert "not installed" in problem.summary
    assert "3.9" in problem.hint


def test_sops_is_too_old(ring):
    ring.encrypted(FILE, {"mail": CANARY}, ring.own())
    counting(ring, body='[ "$2" = --version ] && echo "sops 3.8.1 (latest)" && exit\nexit 100')
    problem = refused(ring)
    assert "too old: 3.8.1" in problem.summary
    assert "3.9" in problem.hint


def test_what_sops_complains_is_not_repeated(ring):
    ring.encrypted(FILE, {"mail": CANARY}, ring.own())
    counting(ring, body=f'[ "$2" = --version ] && echo "sops 3.13.3" && exit\necho {CANARY} >&2; exit 4')
    assert "ended with 4" in refused(ring).summary


def test_sops_that_does_not_end_is_ended_with_all_it_started(ring, monkeypatch):
    monkeypatch.setattr(sops, "_TIMEOUT", 0.5)
    ring.encrypted(FILE, {"mail": CANARY}, ring.own())
    counting(ring, body=f'sleep 600 & echo $! >"{ring.home}/child"; wait')
    assert "did not end" in refused(ring).summary
    child = int((ring.home / "child").read_text())
    wait_for(lambda: not alive(child))


def alive(process):
    """Whether a process runs; one that nobody has buried does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# ------------------------------------------------------------------------------------------------------ other targets
MOVED = {
    "stalwart": ("reconciler.yaml", "{env: STALWART_ADMIN_PASSWORD}"),
    "cloudflare": ("reconciler.yaml", "{env: CLOUDFLARE_API_TOKEN}"),
    "compose": ("smtp.yaml", "{env: MANA_SERVICE_KEY}"),
}


@pytest.mark.parametrize("target", MOVED)
def test_other_targets_go_on_and_all_work_with_the_key(stack, ring, target):
    file, old = MOVED[target]
    owner = ring.identity()
    values = {name: stack.secrets[name] for name in stack.secrets}
    sealed = ring.encrypted(FILE, values, str(owner.to_public())).read_text()
    stack.write(FILE, sealed)
    stack.edit(file, old, f"{{sops: '{FILE}#{old[6:-1]}'}}")
    environ = {"drop": ("SOPS_AGE_KEY", "XDG_CONFIG_HOME")}
    done = stack.expect(1, "plan", "--output", "json", **environ)
    assert done.json["complete"] == (target == "compose")  # of which only the services that need it are left out
    assert any(
        item["severity"] == "error" and str(owner.to_public()) in item["summary"] for item in done.json["problems"]
    )
    assert {item["target"] for item in done.json["changes"]} >= {"stalwart", "cloudflare", "compose"} - {target}
    done = stack.expect(0, "plan", "--output", "json", SOPS_AGE_KEY=str(owner))
    assert done.json["complete"]
    assert all(value not in done.text for value in values.values())
    assert str(owner) not in done.text


@pytest.fixture
def pgp(ring):
    """The user's GnuPG home with one key, in a folder of its own: its agent listens below it, at a short path."""
    home = Path(tempfile.mkdtemp(dir="/tmp"))
    environ = {**ring.environ, "GNUPGHOME": str(home)}

    def run(*command, given=""):
        return subprocess.run(command, env=environ, check=True, capture_output=True, text=True, input=given).stdout

    run("gpg", "--batch", "--passphrase", "", "--quick-gen-key", "me@example.org", "rsa2048", "encr,sign")
    listed = run("gpg", "--list-keys", "--with-colons")
    key = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))
    (ring.state / FILE).write_text(
        run("sops", "encrypt", "--pgp", key, "--input-type", "yaml", "/dev/stdin", given=f"mail: {CANARY}\n")
    )
    yield home
    subprocess.run(["gpgconf", "--kill", "all"], env=environ, check=False)
    shutil.rmtree(home, ignore_errors=True)


def test_a_key_of_gpg_opens_a_file_wherever_its_home_is(ring, pgp):
    assert read(ring, "mail", GNUPGHOME=str(pgp)) == CANARY
    (ring.home / ".gnupg").symlink_to(pgp)
    assert read(ring, "mail") == CANARY


def test_without_its_key_a_file_for_gpg_is_told_with_where_a_key_is_looked_for(ring, pgp):
    other = pgp / "other"
    other.mkdir(mode=0o700)
    problem = refused(ring, GNUPGHOME=str(other))
    assert f"a PGP key is looked for in {other}" in problem.hint


def test_a_message_for_a_passphrase_asks_nobody(ring, pgp):
    """Whoever writes the file can have gpg want a passphrase: there is no terminal to ask on."""
    sealed = subprocess.run(
        ["gpg", "--batch", "--passphrase", "x", "--pinentry-mode", "loopback", "--armor", "-c"],
        env={**ring.environ, "GNUPGHOME": str(pgp)},
        check=True,
        capture_output=True,
        text=True,
        input="k" * 32,
    ).stdout
    text = (ring.state / FILE).read_text()
    begin, end = text.index("-----BEGIN PGP"), text.index("-----END PGP MESSAGE-----")
    blanks = " " * (begin - text.rfind("\n", 0, begin) - 1)
    inner = sealed.strip().replace("\n", "\n" + blanks).removesuffix("-----END PGP MESSAGE-----")
    (ring.state / FILE).write_text(text[:begin] + inner + text[end:])
    began = time.monotonic()
    assert "no key to decrypt" in refused(ring, GNUPGHOME=str(pgp)).summary
    assert time.monotonic() - began < 30
