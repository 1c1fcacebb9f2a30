"""Stores: what is put comes back, nothing is overwritten, half written, shown, or left where git would commit it."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keyring import Keyring, sops_program
from properties import tries

from reconciler.desired.load import load
from reconciler.problem import ReconcilerError, Refused, SecretUnreadable
from reconciler.resources import SecretRef
from reconciler.secrets import Secrets
from reconciler.secrets.store import open_store, store_of

CANARY = "c4nary-0f-a-s3cret"
PEM = f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n"
numbers = itertools.count()  # a name for each value
WHERE = {"file": "file:keys", "age": "age:keys", "sops": "sops:keys.sops.yaml"}
NAME = "ed202611.mana.how.pem"


@pytest.fixture
def ring(tmp_path):
    ring = Keyring(tmp_path)
    ring.own()
    return ring


@pytest.fixture
def real():
    """Leave a test out where the real sops is missing."""
    return sops_program()


needs_sops = pytest.mark.usefixtures("real")


@pytest.fixture(params=WHERE)
def where(request):
    if request.param == "sops":
        sops_program()
    return WHERE[request.param]


def store(ring, where, *recipients, **environ):
    return open_store(where, ring.state, ring.environ | environ, recipients)


def refused(kind, act, *arguments):
    with pytest.raises(ReconcilerError) as caught:
        act(*arguments)
    assert type(caught.value) in {kind, SecretUnreadable if kind is ReconcilerError else kind}
    assert CANARY not in str(caught.value)
    (problem,) = caught.value.problems
    assert problem.hint
    return problem


def files(folder):
    return {item.relative_to(folder).as_posix(): item.read_bytes() for item in folder.rglob("*") if item.is_file()}


# ---------------------------------------------------------------------------------------------------------- what is put
def test_what_is_put_is_found_by_its_reference(ring, where):
    made = store(ring, where)
    assert made.where == where
    assert made.get(NAME) is None
    for name, value in ((NAME, PEM), ("noreply@mana.how", CANARY)):
        ref = made.put(name, value)
        assert ref == made.reference(name)
        assert store_of(ref) == where
        assert Secrets(ring.state, ring.environ)(ref) == made.get(name) == value.removesuffix("\n")
    assert made.get("none") is None


def test_where_a_file_can_not_be_nameless_it_is_private_from_the_start(ring, monkeypatch):
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)  # as on macOS
    made = store(ring, "file:keys")
    made.put(NAME, CANARY)
    refused(Refused, made.put, NAME, "another")
    assert made.get(NAME) == CANARY
    assert stat.S_IMODE((ring.state / "keys" / NAME).stat().st_mode) == 0o600
    assert set(files(ring.state)) == {"keys/.gitignore", f"keys/{NAME}"}


def test_the_references_are_the_ones_that_were_agreed_on(ring):
    assert str(store(ring, "file:a/b").reference(NAME)) == f"{{file: a/b/{NAME}}}"
    assert str(store(ring, "file:.").reference(NAME)) == f"{{file: {NAME}}}"
    assert str(store(ring, "age:keys").reference(NAME)) == f"{{age: keys/{NAME}.age}}"
    assert str(store(ring, "sops:x.sops.yaml").reference(NAME)) == f"{{sops: x.sops.yaml#{NAME}}}"
    assert store_of(SecretRef("env", "X")) is None


@given(value=st.text(min_size=1, max_size=60).filter(lambda text: "\0" not in text and text[-1] not in "\r\n"))
@settings(max_examples=tries(12), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_back(ring, where, value):
    made, name = store(ring, where), f"n{next(numbers)}"
    assert Secrets(ring.state, ring.environ)(made.put(name, value)) == value


def test_an_equal_value_is_fine_and_another_one_refused(ring, where):
    made = store(ring, where)
    ref = made.put(NAME, PEM)
    before = files(ring.state)
    assert made.put(NAME, PEM) == ref
    assert "never overwritten" in refused(Refused, made.put, NAME, CANARY).summary
    assert files(ring.state) == before


def test_who_puts_the_same_name_at_once_gets_one_value(ring, where):
    results, start = [], threading.Barrier(4)

    def put(number):
        start.wait()
        try:
            store(ring, where).put(NAME, f"value {number}")
            results.append(f"value {number}")
        except Refused:
            pass

    threads = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [store(ring, where).get(NAME)]


def test_many_names_at_once_all_stay(ring, where):
    threads = [
        threading.Thread(target=lambda number=number: store(ring, where).put(f"n{number}", f"v{number}"))
        for number in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store(ring, where).get(f"n{number}") for number in range(5)] == [f"v{number}" for number in range(5)]


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-rf", "a b", 'a"b', "a]b", "x" * 201, "a\nb", "a\0b"])
def test_what_is_no_name(ring, where, name):
    refused(ReconcilerError, store(ring, where).put, name, CANARY)
    assert files(ring.state) == {}


@pytest.mark.parametrize("value", ["", "\n", CANARY + "\0", CANARY * 4000, CANARY + "\n\n", CANARY + "\r\r", "\ud800"])
def test_what_no_reference_could_give_back(ring, where, value):
    refused(ReconcilerError, store(ring, where).put, NAME, value)
    assert files(ring.state) == {}


@pytest.mark.parametrize("text", ["", "keys", "file:", "vault:x", "sops:a#b.sops.yaml", "age:a\0b", ":x"])
def test_what_is_no_store(ring, text):
    refused(ReconcilerError, open_store, text, ring.state, ring.environ)


def test_a_place_that_can_not_be_written(ring, where):
    (ring.state / "keys").write_text("a file")
    (ring.state / "keys.sops.yaml").mkdir()
    problem = refused(ReconcilerError, store(ring, where).put, NAME, CANARY)
    assert problem.where.startswith("{")


# ---------------------------------------------------------------------------------------------------- what git must see
def git(ring, *arguments):
    command = ["git", "-C", str(ring.state), *arguments]
    return subprocess.run(command, env=ring.environ, check=True, capture_output=True, text=True).stdout


def test_a_new_folder_is_private_and_ignored(ring):
    git(ring, "init", "-q")
    store(ring, "file:a/keys").put(NAME, PEM)
    folder = ring.state / "a/keys"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / NAME).stat().st_mode) == 0o600
    assert (folder / NAME).read_text() == PEM
    assert git(ring, "status", "--porcelain", "--untracked-files=all") == ""


def test_a_folder_that_git_would_commit_is_refused_before_anything_is_written(ring):
    git(ring, "init", "-q")
    (ring.state / "keys").mkdir()
    (ring.state / "keys/README").write_text("keys\n")
    problem = refused(Refused, store(ring, "file:keys").put, NAME, CANARY)
    assert "git would commit it" in problem.summary
    assert str(ring.state / "keys/.gitignore") in problem.hint
    assert set(files(ring.state / "keys")) == {"README"}
    (ring.state / "keys/.gitignore").write_text("*\n")  # the remedy
    store(ring, "file:keys").put(NAME, CANARY)


def test_a_tracked_file_counts_as_committed(ring):
    git(ring, "init", "-q")
    (ring.state / "keys").mkdir()
    (ring.state / "keys" / NAME).write_text("x")
    git(ring, "add", "-f", "keys")
    (ring.state / "keys" / NAME).unlink()
    (ring.state / "keys/.gitignore").write_text("*\n")
    assert "git would commit it" in refused(Refused, store(ring, "file:keys").put, NAME, CANARY).summary


def test_what_is_encrypted_may_lie_beside_what_git_ignores(ring):
    git(ring, "init", "-q")
    store(ring, "file:keys").put(NAME, CANARY)
    store(ring, "age:keys").put(NAME, CANARY)
    assert git(ring, "status", "--porcelain", "--untracked-files=all").splitlines() == [f"?? keys/{NAME}.age"]


def test_a_rule_of_the_repository_is_enough(ring):
    git(ring, "init", "-q")
    (ring.state / ".gitignore").write_text("*.pem\n")
    store(ring, "file:.").put(NAME, CANARY)
    assert git(ring, "status", "--porcelain", "--untracked-files=all").split() == ["??", ".gitignore"]


def test_the_environments_git_is_not_asked(ring, tmp_path):
    git(ring, "init", "-q")
    (ring.state / "keys").mkdir()
    (ring.state / "keys/README").write_text("keys\n")
    lenient = tmp_path / "excludes"
    lenient.write_text("*\n")
    environ = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.excludesFile", "GIT_CONFIG_VALUE_0": str(lenient)}
    refused(Refused, store(ring, "file:keys", GIT_DIR=str(tmp_path / "none"), **environ).put, NAME, CANARY)


def test_without_the_program_git_a_repository_is_refused(ring):
    git(ring, "init", "-q")
    (ring.state / "keys").mkdir()
    (ring.state / "keys/README").write_text("keys\n")
    assert "does not say" in refused(Refused, store(ring, "file:keys", PATH="/nowhere").put, NAME, CANARY).summary


def test_outside_of_git_an_old_folder_is_fine(ring):
    (ring.state / "keys").mkdir()
    (ring.state / "keys/README").write_text("keys\n")
    store(ring, "file:keys").put(NAME, CANARY)


@needs_sops
def test_a_secret_is_never_read_as_desired_state(ring):
    refused(Refused, store(ring, "file:keys").put, "a.yaml", CANARY)
    refused(Refused, store, ring, "sops:secrets.yaml")
    refused(Refused, store, ring, "sops:secrets.yml")
    refused(Refused, store, ring, "sops:secrets.env")
    (ring.state / "stack.yaml").write_text("stack: mana\n")
    for where in WHERE.values():
        store(ring, where).put(NAME, PEM)
    assert load(ring.state).spec.stack == "mana"


# ------------------------------------------------------------------------------------------------------------ for whom
def test_recipients_are_those_named_else_ourselves(ring):
    other = ring.identity()
    made = store(ring, "age:keys", str(other.to_public()))
    ref = made.put("theirs", CANARY)
    assert Secrets(ring.state, ring.environ | {"SOPS_AGE_KEY": str(other)})(ref) == CANARY
    refused_by = pytest.raises(ReconcilerError, match="not encrypted for us")
    with refused_by:
        made.get("theirs")
    assert store(ring, "age:keys").put("ours", CANARY)


@needs_sops
def test_without_recipients_the_error_says_how_to_make_one(ring):
    ring.disown()
    for where in ("age:keys", "sops:x.sops.yaml"):
        problem = refused(ReconcilerError, store(ring, where).put, NAME, CANARY)
        assert "no recipient" in problem.summary
        assert "age-keygen" in problem.hint
    assert files(ring.state) == {}


def test_an_identity_as_recipient_is_refused_and_not_repeated(ring, where):
    identity = str(ring.identity())
    if where.startswith("file"):
        return
    with pytest.raises(ReconcilerError) as caught:
        store(ring, where, identity).put(NAME, CANARY)
    assert identity not in str(caught.value)
    assert files(ring.state) == {}


def recipients(path):
    return re.findall(r"recipient: (\S+)", path.read_text())


@needs_sops
def test_a_new_file_goes_by_the_rules_of_the_repository(ring):
    first, second = (str(ring.identity().to_public()) for _ in range(2))
    (ring.state / ".sops.yaml").write_text(
        f"creation_rules:\n  - path_regex: keys/.*\n    age: {first},{second}\n  - age: {first}\n"
    )
    store(ring, "sops:keys/x.sops.yaml").put(NAME, CANARY)
    assert recipients(ring.state / "keys/x.sops.yaml") == [first, second]
    store(ring, "sops:y.sops.yaml", second).put(NAME, CANARY)
    assert recipients(ring.state / "y.sops.yaml") == [second]


@needs_sops
def test_rules_that_are_not_for_this_file_are_an_error(ring):
    (ring.state / ".sops.yaml").write_text("creation_rules:\n  - path_regex: nothing\n    age: x\n")
    assert ".sops.yaml" in refused(ReconcilerError, store(ring, "sops:x.sops.yaml").put, NAME, CANARY).hint
    assert not (ring.state / "x.sops.yaml").exists()


@needs_sops
def test_an_old_file_keeps_recipients_comments_and_mode(ring):
    first, other = ring.own(), str(ring.identity().to_public())
    text = "# the head\nother: x1  # beside\nnested:\n    deep: y1\n"
    path = ring.encrypted("keys.sops.yaml", text, first, other)
    path.chmod(0o640)
    store(ring, "sops:keys.sops.yaml").put(NAME, PEM)
    assert recipients(path) == [first, other]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    plain = ring.sops("decrypt", str(path))
    assert plain.startswith(text.replace("  # beside", "\n# beside").split("\n")[0])
    assert "# beside" in plain
    assert json.loads(ring.sops("decrypt", "--output-type", "json", str(path))) == {
        "other": "x1",
        "nested": {"deep": "y1"},
        NAME: PEM.removesuffix("\n"),
    }
    assert [item.name for item in ring.state.iterdir()] == [path.name]


@needs_sops
def test_json_files_too(ring):
    made = store(ring, "sops:keys.json")
    made.put(NAME, PEM)
    made.put("other", CANARY)
    assert json.loads((ring.state / "keys.json").read_text()).keys() == {NAME, "other", "sops"}
    assert made.get(NAME) == PEM.removesuffix("\n")


@needs_sops
@pytest.mark.parametrize("exists", [True, False])
def test_a_rule_that_would_leave_the_secret_in_clear_is_refused(ring, exists):
    (ring.state / ".sops.yaml").write_text(f"creation_rules: [{{age: {ring.own()}, encrypted_regex: ^hidden$}}]\n")
    if exists:
        ring.encrypted("keys.sops.yaml", {"hidden": "x1"})
    before = files(ring.state)
    assert "in clear" in refused(Refused, store(ring, "sops:keys.sops.yaml").put, NAME, CANARY).summary
    assert files(ring.state) == before
    store(ring, "sops:keys.sops.yaml").put("hidden", "x1")


@needs_sops
def test_a_file_in_clear_is_not_added_to(ring):
    (ring.state / "keys.sops.yaml").write_text("a: b\n")
    with pytest.raises(ReconcilerError, match="NOT ENCRYPTED"):
        store(ring, "sops:keys.sops.yaml").put(NAME, CANARY)


# ------------------------------------------------------------------------------------------- seen by others, and killed
def spying(ring, body='exec "$REAL" "$@"'):
    """Put a program in front of sops that writes down what everybody sees: arguments, environment, files."""
    folder = ring.home / "bin"
    folder.mkdir()
    program, log = folder / "sops", ring.home / "seen"
    program.write_text(
        f'#!/bin/sh\n{{ echo "$@"; env; cat "$TMPDIR"/*/* "{ring.state}"/*; }} >>"{log}" 2>/dev/null\n'
        f'REAL="{sops_program()}"\n{body}\n'
    )
    program.chmod(0o755)
    scratch = ring.home / "scratch"
    scratch.mkdir()
    ring.environ |= {"PATH": f"{folder}:{ring.environ['PATH']}", "TMPDIR": str(scratch)}
    return log


@needs_sops
def test_sops_gets_the_secret_by_a_pipe_alone(ring, monkeypatch):
    log = spying(ring)
    monkeypatch.setattr("tempfile.tempdir", str(ring.home / "scratch"))
    for name in ("first", "second"):
        store(ring, "sops:keys.sops.yaml").put(name, CANARY)
    assert "set --value-stdin" in log.read_text()
    assert CANARY not in log.read_text()
    assert list((ring.home / "scratch").iterdir()) == []


@needs_sops
def test_an_older_sops_reads_but_is_not_given_secrets_it_would_show(ring):
    store(ring, "sops:keys.sops.yaml").put("first", CANARY)
    spying(
        ring,
        body='[ "$2" = --version ] && echo "sops 3.10.2" && exit\n'
        'for word; do [ "$word" = --value-stdin ] && exit 1; done; exec "$REAL" "$@"',
    )
    made = store(ring, "sops:keys.sops.yaml")
    assert made.get("first") == CANARY
    assert "3.11" in refused(ReconcilerError, made.put, "second", CANARY).hint


PUTTER = """
import json, os, signal, sys
from pathlib import Path
import cryptography.hazmat.primitives.serialization, pyrage, ruamel.yaml
from reconciler.secrets.store import open_store

EVENTS = {"open", "os.mkdir", "os.link", "os.rename", "os.remove", "os.chmod", "os.rmdir", "os.listdir", "os.scandir",
          "subprocess.Popen", "tempfile.mkstemp", "tempfile.mkdtemp", "fcntl.flock", "shutil.rmtree"}
where, state, environ, name, value = json.loads(sys.stdin.readline())
for line in sys.stdin:
    deadly, calls = int(line), 0
    read, write = os.pipe()
    child = os.fork()
    if not child:
        def count(event, arguments):
            global calls
            calls += event in EVENTS
            if event in EVENTS and calls == deadly:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(count)
        open_store(where, Path(state), environ).put(name, value)
        os.write(write, str(calls).encode())
        os._exit(0)
    os.close(write)
    status = os.waitpid(child, 0)[1]
    print(os.waitstatus_to_exitcode(status), os.read(read, 9).decode() or 0, flush=True)
    os.close(read)
"""


class Putter:
    """Puts a secret in a process of its own, which is killed at the moment that is named: a call to the system."""

    def __init__(self, ring, where, name, value):
        self.process = subprocess.Popen(
            [sys.executable, "-c", PUTTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=ring.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            text=True,
            bufsize=1,
        )
        self._write([where, str(ring.state), ring.environ, name, value])

    def _write(self, document):
        self.process.stdin.write(json.dumps(document) + "\n")

    def put(self, deadly=0):
        """Return how it ended, and how many moments it had."""
        self._write(deadly)
        return tuple(map(int, self.process.stdout.readline().split()))

    def close(self):
        self.process.communicate()


@pytest.fixture
def putter(ring, where, tmp_path):
    (tmp_path / "scratch").mkdir()
    ring.environ["TMPDIR"] = str(tmp_path / "scratch")
    putter = Putter(ring, where, NAME, PEM)
    yield putter
    putter.close()


@pytest.mark.long
@pytest.mark.parametrize("exists", [True, False])
def test_killed_at_any_moment(ring, where, putter, exists, tmp_path):
    """What is there after a kill is whole, nothing in clear is left but in the file store, and a second try works."""
    git(ring, "init", "-q")
    if exists:
        store(ring, where).put("first", "x1")
    prepared = shutil.copytree(ring.state, tmp_path / "prepared")
    status, moments = putter.put()
    assert status == 0
    # At first it only reads: some of those moments are enough.
    for deadly in sorted({*range(max(1, moments - 12), moments + 1), *range(1, moments, max(1, moments // 5))}):
        shutil.rmtree(ring.state)
        shutil.copytree(prepared, ring.state)
        assert putter.put(deadly)[0] == -signal.SIGKILL
        made = store(ring, where)
        assert made.get(NAME) in {None, PEM.removesuffix("\n")}
        assert made.get("first") == ("x1" if exists else None)
        left = [*files(ring.state).items(), *files(tmp_path / "scratch").items()]
        in_clear = [name for name, content in left if CANARY.encode() in content]
        assert in_clear in ([], [f"keys/{NAME}"] if where == "file:keys" else [])
        assert not [line for line in git(ring, "status", "--porcelain", "-uall").splitlines() if where[:4] == "file"]
        made.put(NAME, PEM)
        assert made.get(NAME) == PEM.removesuffix("\n")
