"""`dkim generate` and `dkim rotate`: what they write and say, in every state, and when they are killed."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pyrage
import pytest
from cli.conftest import SCRIPT

from reconciler import keys
from reconciler.cli import dkim
from reconciler.desired import edit as editing
from reconciler.desired.load import load
from reconciler.desired.spec.mail import Key
from reconciler.dns.records import dkim_record
from reconciler.resources import Account, Signature
from reconciler.simulator.dns import NameServers

TODAY = "2026-11-22"


class Names:
    """Two name servers that show what `publish` says."""

    def __init__(self, servers: NameServers, shown: dict[str, list[dict[str, Any]]]) -> None:
        self.servers, self._shown = servers, shown

    def publish(self, spec: Any, domain: str = "mana.how") -> None:
        """Show what the directory declares, as an apply would."""
        published = [key for key in spec.dkim[domain] if key.stage != "retired" and key.public_key]
        records = [dkim_record(domain, domain, key.selector, key.algorithm, key.public_key) for key in published]
        self.show(domain, {f"{item.name}.{domain}": str(item.content) for item in records})

    def show(self, domain: str, values: dict[str, str]) -> None:
        blank = {"type": "TXT", "ttl": 1, "proxied": False, "modified_on": "2026-01-01"}
        self._shown[domain] = [{"name": name, "content": content} | blank for name, content in values.items()]


@pytest.fixture
def names(place: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    shown: dict[str, list[dict[str, Any]]] = {"mana.how": [], "b.example": []}
    with NameServers(lambda: shown) as servers:
        monkeypatch.setenv("RECONCILER_NAMESERVERS", " ".join(servers.servers))
        monkeypatch.setenv("RECONCILER_TODAY", TODAY)
        monkeypatch.setenv("RECONCILER_DRY_RUN", "no")
        yield Names(servers, shown)


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let another day be today."""
    return lambda day: monkeypatch.setenv("RECONCILER_TODAY", day)


@pytest.fixture
def declared(place: Any) -> Callable[[], list[tuple[str, str, str]]]:
    def read(domain: str = "mana.how") -> list[tuple[str, str, str]]:
        return [(key.selector, key.stage, str(key.since)) for key in load(place.state).spec.dkim[domain]]

    return read


def spec(place: Any) -> Any:
    return load(place.state).spec


def key(place: Any, selector: str) -> Key:
    found: Key = next(item for item in spec(place).dkim["mana.how"] if item.selector == selector)
    return found


def serve(place: Any, *signing: str) -> None:
    """Let the server sign with these keys and no others."""
    held = [item for item in place.world.live if not isinstance(item.resource, Signature)]
    place.world.live = held
    place.world.put(Account("noreply@mana.how", login="noreply"))
    for selector in signing:
        item = key(place, selector)
        place.world.put(Signature("mana.how", selector, item.algorithm, item.public_key or "", signs=True))


def files(place: Any) -> dict[str, bytes]:
    return {
        str(item): item.read_bytes() for item in place.root.rglob("*") if item.is_file() and ".git" not in str(item)
    }


@pytest.mark.parametrize("name", dkim.command.commands)
def test_every_command_has_help_and_the_common_options(run: Any, name: str) -> None:
    assert f"\n  {name} " in run("dkim", "--help").stdout
    result = run("dkim", name, "--help")
    assert result.exit_code == 0
    assert all(option in result.stdout for option in ("--state", "--data", "--target", "--output", "--no-color", "-v"))


# --------------------------------------------------------------------------------------------------------- generate
def test_a_first_key_is_active_and_stored_and_only_its_public_half_is_told(run: Any, place: Any, names: Names) -> None:
    result = run("dkim", "generate", "mana.how")
    assert result.exit_code == 0, result.output
    private = place.root / "secrets" / "ed202611.mana.how.pem"
    pem = private.read_text()
    made = key(place, "ed202611")
    assert made.public_key == keys.public_half("ed25519", pem)
    assert (made.stage, str(made.since)) == ("active", TODAY)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert not any(line in result.output for line in pem.splitlines())
    assert (place.state / "dkim.yaml").read_text() == (
        "dkim:\n  mana.how:\n    - selector: ed202611\n      algorithm: ed25519\n"
        f"      public_key: {made.public_key}\n"
        "      private_key: {file: ../secrets/ed202611.mana.how.pem}\n"
        f"      stage: active\n      since: {TODAY}\n"
    )
    assert "dkim generate mana.how --algorithm rsa" in result.stdout


def test_the_second_key_is_the_other_algorithm_and_there_is_no_third(run: Any, place: Any, names: Names) -> None:
    assert run("dkim", "generate", "mana.how").exit_code == 0
    result = run("dkim", "generate", "Mana.How.")
    assert result.exit_code == 0
    assert [item.selector for item in spec(place).dkim["mana.how"]] == ["ed202611", "rsa202611"]
    assert "Yahoo" not in result.stdout
    result = run("dkim", "generate", "mana.how")
    assert result.exit_code == 1
    assert "has a key of each algorithm" in result.stderr
    assert "dkim rotate mana.how" in result.stderr


def test_a_key_beside_an_active_one_is_pending_and_takes_the_next_name(run: Any, place: Any, names: Names) -> None:
    assert run("dkim", "generate", "mana.how").exit_code == 0
    document = json.loads(run("dkim", "generate", "mana.how", "--algorithm", "ed25519", "--output", "json").stdout)
    assert (document["selector"], document["stage"], document["file"]) == ("ed202611b", "pending", "dkim.yaml")
    result = run("dkim", "generate", "mana.how", "--algorithm", "ed25519")
    assert result.exit_code == 4
    assert "ed202611b: refused: is pending already" in result.stderr


def test_pending_can_be_asked_for_and_the_store_is_that_of_the_other_keys(run: Any, place: Any, names: Names) -> None:
    first = run("dkim", "generate", "mana.how", "--pending", "--store", "file:../keep")
    assert first.exit_code == 0, first.output
    assert run("dkim", "generate", "mana.how").exit_code == 0
    assert sorted(item.name for item in (place.root / "keep").glob("*.pem")) == [
        "ed202611.mana.how.pem",
        "rsa202611.mana.how.pem",
    ]
    assert key(place, "ed202611").stage == "pending"


def test_an_encrypted_store_is_found_again(run: Any, place: Any, names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = pyrage.x25519.Identity.generate()
    monkeypatch.setenv("SOPS_AGE_KEY", str(identity))
    recipient = str(identity.to_public())
    result = run("dkim", "generate", "mana.how", "--store", "age:../keys", "--recipient", recipient)
    assert result.exit_code == 0, result.output
    assert "Git does not keep" not in result.stdout
    assert run("dkim", "rotate", "mana.how").exit_code == 0
    assert [str(item.private_key) for item in spec(place).dkim["mana.how"]] == [
        "{age: ../keys/ed202611.mana.how.pem.age}",
        "{age: ../keys/ed202611b.mana.how.pem.age}",
    ]
    pem = pyrage.decrypt((place.root / "keys" / "ed202611b.mana.how.pem.age").read_bytes(), [identity]).decode()
    assert key(place, "ed202611b").public_key == keys.public_half("ed25519", pem)


def test_a_selector_is_spelled_as_dns_does(run: Any, place: Any, names: Names) -> None:
    result = run("dkim", "generate", "mana.how", "--selector", "Key_2.Mail")
    assert result.exit_code == 0, result.stderr
    assert "key_2.mail" in (place.state / "dkim.yaml").read_text()
    assert run("dkim", "generate", "mana.how", "--selector", "KEY_2.mail").exit_code == 4


def test_a_selector_is_never_used_twice(run: Any, place: Any, names: Names) -> None:
    place.write("dkim:\n  mana.how:\n    - {selector: old, algorithm: rsa, stage: retired}\n", "dkim.yaml")
    names.show("mana.how", {"seen._domainkey.mana.how": "v=DKIM1; p=" + "A" * 40})
    before = files(place)
    for selector, why in [("old", "stands in the directory"), ("seen", "is published in DNS with another key")]:
        result = run("dkim", "generate", "mana.how", "--selector", selector)
        assert result.exit_code == 4
        assert why in result.stderr
    assert run("dkim", "generate", "mana.how", "--selector", "no name").exit_code == 1
    assert files(place) == before
    names.show("mana.how", {"ed202611._domainkey.mana.how": "v=DKIM1; p=" + "A" * 40})
    assert run("dkim", "generate", "mana.how").exit_code == 0
    assert key(place, "ed202611b").algorithm == "ed25519"


def test_a_domain_nobody_knows_is_a_slip_of_the_pen(run: Any, place: Any, names: Names) -> None:
    for command, said in (
        ("generate", "the directory knows no such domain"),
        ("rotate", "has no key in the directory"),
    ):
        result = run("dkim", command, "mana.hwo")
        assert result.exit_code == 1
        assert said in result.stderr
    assert "did you mean mana.how?" in run("dkim", "generate", "mana.hwo").stderr
    assert run("dkim", "generate", "news.mana.how").exit_code == 0, "below a zone of ours"


def test_a_stored_key_that_no_entry_names_is_used(
    run: Any, place: Any, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill between storing it and writing its entry."""

    def killed(*_: Any) -> None:
        raise SystemExit(137)

    with monkeypatch.context() as patch:
        patch.setattr(editing.Edited, "write", killed)
        assert run("dkim", "generate", "mana.how").exit_code == 137
    pem = (place.root / "secrets" / "ed202611.mana.how.pem").read_text()
    assert not (place.state / "dkim.yaml").exists()
    result = run("dkim", "generate", "mana.how")
    assert result.exit_code == 0
    assert "was there already, and no entry named it: {file: ../secrets/ed202611.mana.how.pem}" in result.stdout
    assert key(place, "ed202611").public_key == keys.public_half("ed25519", pem)
    assert len(list((place.root / "secrets").glob("*.pem"))) == 1


def test_of_two_runs_at_once_one_makes_the_key_and_the_other_says_to_run_it_again(
    run: Any, place: Any, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = keys.generate

    def meanwhile(algorithm: str) -> str:
        (place.root / "secrets").mkdir(exist_ok=True)
        (place.root / "secrets" / "ed202611.mana.how.pem").write_text(made(algorithm))
        return made(algorithm)

    with monkeypatch.context() as patch:
        patch.setattr(keys, "generate", meanwhile)
        done = run("dkim", "generate", "mana.how")
    assert (done.exit_code, "remove" in done.stderr, "run it again" in done.stderr) == (4, False, True)
    assert run("dkim", "generate", "mana.how").exit_code == 0
    pem = (place.root / "secrets" / "ed202611.mana.how.pem").read_text()
    assert key(place, "ed202611").public_key == keys.public_half("ed25519", pem)


def test_what_is_no_key_is_not_overwritten(run: Any, place: Any, names: Names) -> None:
    (place.root / "secrets").mkdir()
    (place.root / "secrets" / "s1.mana.how.pem").write_text("a person's notes")
    result = run("dkim", "generate", "mana.how", "--selector", "s1")
    assert result.exit_code == 4
    assert "is taken in the store" in result.stderr
    assert (place.root / "secrets" / "s1.mana.how.pem").read_text() == "a person's notes"


def test_where_no_zone_is_ours_the_record_is_told(run: Any, place: Any, names: Names) -> None:
    place.write("accounts:\n  noreply@b.example: {login: b, password: {env: NOREPLY_PASSWORD}}\n", "b.yaml")
    assert "publish there as TXT" not in run("dkim", "generate", "mana.how").stdout
    result = run("dkim", "generate", "b.example")
    public = spec(place).dkim["b.example"][0].public_key
    record = f"ed202611._domainkey.b.example; publish there as TXT: v=DKIM1; k=ed25519; h=sha256; p={public}"
    assert record in result.stdout
    assert "That publishes it" not in result.stdout


def test_without_a_network_a_key_is_made_all_the_same(run: Any, place: Any, names: Names) -> None:
    names.servers.stop()
    assert run("dkim", "generate", "mana.how").exit_code == 0


# ----------------------------------------------------------------------------------------------------------- rotate
def two_keys(run: Any, place: Any, names: Names) -> None:
    assert run("dkim", "generate", "mana.how").exit_code == 0
    assert run("dkim", "generate", "mana.how").exit_code == 0
    names.publish(spec(place))


def test_a_full_rotation(run: Any, place: Any, names: Names, on: Any, declared: Any) -> None:
    two_keys(run, place, names)
    on("2026-12-01")
    result = run("dkim", "rotate", "mana.how")
    assert result.exit_code == 0, result.output
    assert declared() == [
        ("ed202611", "active", TODAY),
        ("rsa202611", "active", TODAY),
        ("ed202612", "pending", "2026-12-01"),
        ("rsa202612", "pending", "2026-12-01"),
    ]
    assert "Next: it takes over as soon as every name server shows it" in result.stdout
    assert result.stdout.count("Its private half is new at {file: ../secrets/") == 2

    before = files(place)
    on("2026-12-02")
    result = run("dkim", "rotate", "mana.how")
    assert result.exit_code == 0
    assert "none does yet, so apply it first" in result.stdout
    assert "Nothing was changed." in result.stdout
    names.servers.hold(1)
    names.publish(spec(place))
    result = run("dkim", "rotate", "mana.how")
    assert result.exit_code == 0
    assert f"{names.servers.servers[1]} does not show it yet" in result.stdout
    assert files(place) == before

    names.servers.release(1)
    on("2026-12-03")
    result = run("dkim", "rotate", "mana.how")
    assert result.exit_code == 0
    assert declared() == [
        ("ed202611", "retiring", "2026-12-03"),
        ("rsa202611", "retiring", "2026-12-03"),
        ("ed202612", "active", "2026-12-03"),
        ("rsa202612", "active", "2026-12-03"),
    ]
    assert "can be retired on 2026-12-11" in result.stdout

    serve(place, "ed202612", "rsa202612")
    before = files(place)
    on("2026-12-10")
    result = run("dkim", "rotate", "mana.how")
    assert result.exit_code == 0
    assert "it can be retired on 2026-12-11" in result.stdout
    assert files(place) == before

    on("2026-12-11")
    result = run("dkim", "rotate", "mana.how")
    assert result.exit_code == 0, result.output
    assert [stage for _, stage, _ in declared()] == ["retired", "retired", "active", "active"]
    assert "the rotation is done" in result.stdout


def test_a_name_server_that_cant_be_asked_delays_and_is_an_error(
    run: Any, place: Any, names: Names, declared: Any
) -> None:
    two_keys(run, place, names)
    assert run("dkim", "rotate", "mana.how", "--algorithm", "rsa").exit_code == 0
    names.publish(spec(place))
    names.servers.stop(1)
    before = declared()
    result = run("dkim", "rotate", "mana.how")
    assert result.exit_code == 1
    assert f"{names.servers.servers[1]} could not be asked" in result.stderr
    assert declared() == before
    document = json.loads(run("dkim", "rotate", "mana.how", "--output", "json").stdout)
    assert [(step["algorithm"], step["move"]) for step in document["steps"]] == [
        ("ed25519", "rest"),
        ("rsa", "blocked"),
    ]
    assert document["problems"][0]["where"] == "dkim/mana.how/rsa202611b"
    assert document["file"] is None


def test_the_week_begins_when_the_server_stops_to_sign(
    run: Any, place: Any, names: Names, on: Any, declared: Any
) -> None:
    two_keys(run, place, names)
    for _ in range(2):
        assert run("dkim", "rotate", "mana.how", "--algorithm", "rsa").exit_code == 0
        names.publish(spec(place))
    serve(place, "ed202611", "rsa202611")
    on("2026-12-15")
    place.world.turn(unread=["stalwart"])
    before = declared()
    result = run("dkim", "rotate", "mana.how", "--algorithm", "rsa")
    assert result.exit_code == 1
    assert "whether the server still signs with it can't be told" in result.stderr
    assert "stalwart: does not answer" in result.stderr
    assert declared() == before
    place.world.turn()
    result = run("dkim", "rotate", "mana.how", "--algorithm", "rsa", "--target", "cloudflare")
    assert (result.exit_code, "leave --target out" in result.stderr) == (1, True), "only a chosen target is asked"
    assert declared() == before
    result = run("dkim", "rotate", "mana.how", "--algorithm", "rsa")
    assert result.exit_code == 0
    assert "the server still signs with rsa202611" in result.stdout
    assert declared()[1:] == [("rsa202611", "retiring", "2026-12-15"), ("rsa202611b", "active", "2026-12-15")]


def test_a_key_that_only_the_server_holds_is_replaced_by_one_of_our_own(run: Any, place: Any, names: Names) -> None:
    place.write("dkim:\n  mana.how:\n    - {selector: theirs, algorithm: ed25519}  # imported\n", "dkim.yaml")
    public = keys.public_half("ed25519", keys.generate("ed25519"))
    place.world.put(Account("noreply@mana.how", login="noreply"))
    place.world.put(Signature("mana.how", "theirs", "ed25519", public, signs=True))
    assert run("dkim", "rotate", "mana.how").exit_code == 0
    names.publish(spec(place))
    place.world.turn(unread=["stalwart"])
    result = run("dkim", "rotate", "mana.how")
    assert result.exit_code == 1
    assert "its public half, which stays published, is not known" in result.stderr
    place.world.turn()
    assert run("dkim", "rotate", "mana.how").exit_code == 0
    assert key(place, "theirs").public_key == public
    assert (key(place, "theirs").stage, key(place, "ed202611").stage) == ("retiring", "active")
    assert "stage: retiring, since: 2026-11-22" in (place.state / "dkim.yaml").read_text()
    assert "}  # imported\n" in (place.state / "dkim.yaml").read_text()


@pytest.mark.parametrize("step", [1, 2])
def test_a_rotation_that_is_killed_goes_on_where_it_was(
    run: Any, place: Any, names: Names, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    def stages() -> list[str]:
        return [item.stage for item in spec(place).dkim["mana.how"]]

    two_keys(run, place, names)
    if step == 2:
        assert run("dkim", "rotate", "mana.how").exit_code == 0
        names.publish(spec(place))
    before = stages()

    def killed(*_: Any) -> None:
        raise SystemExit(137)

    with monkeypatch.context() as patch:
        patch.setattr("reconciler.files.replace", killed)
        assert run("dkim", "rotate", "mana.how").exit_code == 137
    assert stages() == before
    assert run("dkim", "rotate", "mana.how").exit_code == 0
    assert stages() == (["active"] * 2 + ["pending"] * 2 if step == 1 else ["retiring"] * 2 + ["active"] * 2)
    assert len(list((place.root / "secrets").glob("*.pem"))) == 4, "no key was made twice"


KILLED = """\
import os, runpy, sys
root, left = os.environ["TEST_WORLD"], [int(os.environ["KILL_AT"])]

def hook(event, args):
    writes = event in ("os.rename", "os.link", "os.remove", "os.mkdir")
    if event == "open" and isinstance(args[2], int):
        writes = args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes and str(args[0]).startswith(root):
        left[0] -= 1
        if left[0] < 0:
            os._exit(137)

sys.addaudithook(hook)
sys.argv = ["reconciler", *sys.argv[2:]]
runpy.run_path(os.environ["TEST_SCRIPT"], run_name="__main__")
"""


@pytest.mark.long
def test_killed_before_any_write_it_goes_on_with_the_key_it_made(run: Any, place: Any, names: Names) -> None:
    assert run("dkim", "generate", "mana.how").exit_code == 0
    shutil.copytree(place.root, place.root.parent / "before")
    environment = place.environment() | {name: os.environ[name] for name in os.environ if "RECONCILER" in name}
    for number in itertools.count():
        environment |= {"KILL_AT": str(number), "TEST_SCRIPT": str(SCRIPT)}
        command = [sys.executable, "-c", KILLED, "--", "dkim", "rotate", "mana.how"]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        stages = [item.stage for item in spec(place).dkim["mana.how"]]
        if ended.returncode == 0:
            break
        assert ended.returncode == 137, ended.stderr
        if stages == ["active"]:
            assert run("dkim", "rotate", "mana.how").exit_code == 0
        assert [item.stage for item in spec(place).dkim["mana.how"]] == ["active", "pending"]
        made = key(place, "ed202611b")
        pem = (place.root / "secrets" / "ed202611b.mana.how.pem").read_text()
        assert made.public_key == keys.public_half("ed25519", pem)
        assert len([item for item in (place.root / "secrets").iterdir() if item.suffix == ".pem"]) == 2
        for name in ("desired-state", "secrets"):
            shutil.rmtree(place.root / name)
            shutil.copytree(place.root.parent / "before" / name, place.root / name)
    assert number > 3, "the writes were seen"
    assert stages == ["active", "pending"]


def test_no_key_no_rotation_and_an_invalid_directory_is_refused(run: Any, place: Any, names: Names) -> None:
    assert run("dkim", "generate", "mana.how").exit_code == 0
    result = run("dkim", "rotate", "mana.how", "--algorithm", "rsa")
    assert result.exit_code == 1
    assert "reconciler dkim generate mana.how --algorithm rsa" in result.stderr
    place.write("bad: 1\n", "x.yaml")
    for command in ("generate", "rotate"):
        result = run("dkim", command, "mana.how")
        assert result.exit_code == 3
        assert "x.yaml:1:1" in result.stderr


def test_nothing_private_is_ever_printed(run: Any, place: Any, names: Names) -> None:
    said = [run("dkim", "generate", "mana.how", "-v"), run("dkim", "generate", "mana.how", "--output", "json")]
    said += [run("dkim", "rotate", "mana.how"), run("dkim", "rotate", "mana.how", "--output", "markdown")]
    pems = [path.read_text() for path in (place.root / "secrets").glob("*.pem")]
    assert len(pems) == 4
    known = "".join(item.public_key for item in spec(place).dkim["mana.how"])  # an RSA key's modulus is in both halves
    private = {line for pem in pems for line in pem.splitlines() if len(line) > 16 and line not in known}
    assert len(private) > 20
    assert not any(line in result.output for result in said for line in private)


def test_u5_a_pretended_day_and_a_dry_run_are_a_preview(
    run: Any, place: Any, names: Names, on: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("dkim", "generate", "mana.how", "--algorithm", "ed25519").exit_code == 0
    before = {
        path: path.read_bytes() for path in place.root.rglob("*") if path.is_file() and ".reconciler" not in path.parts
    }

    def unchanged() -> bool:
        return before == {
            path: path.read_bytes()
            for path in place.root.rglob("*")
            if path.is_file() and ".reconciler" not in path.parts
        }

    for command in (["rotate", "mana.how", "--dry-run"], ["generate", "mana.how", "--algorithm", "rsa", "--dry-run"]):
        result = run("dkim", *command)
        assert result.exit_code == 0, result.output
        assert "othing was written" in result.stdout
        assert unchanged()
    monkeypatch.delenv("RECONCILER_DRY_RUN")
    on("2027-05-01")
    for command in (["rotate", "mana.how"], ["generate", "mana.how", "--algorithm", "rsa"]):
        result = run("dkim", *command)
        assert "othing was written" in result.stdout
        assert unchanged()
