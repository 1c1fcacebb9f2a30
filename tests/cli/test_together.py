"""Two commands at once, as real processes: they end as if one had come after the other."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.desired.load import load
from reconciler.simulator.dns import NameServers

Wait = Callable[[Callable[[], Any]], None]

IMPORT = """
import sys
from pathlib import Path
from tests.importing.conftest import Parts
from tests.importing.test_directory import a_stack
from reconciler.importing import write
from reconciler.problem import ReconcilerError
sys.stdin.readline()
try:
    write(a_stack(Parts(Path(sys.argv[1]))))
except ReconcilerError as error:
    sys.exit(str(error))
"""
# Everybody begins at the same moment, once all have imported what they need.
COMMAND = """
import importlib, sys
import reconciler.cli, reconciler.stack, reconciler.desired.edit, reconciler.dkim.making, reconciler.desired.starter
import cryptography.hazmat.primitives.asymmetric.ed25519, reconciler.observe.nameservers
from reconciler.__main__ import main
sys.argv[0] = "reconciler"
sys.stdin.readline()
main()
"""
GENERATE = ("dkim", "generate", "mana.how", "--algorithm")


@pytest.fixture
def start(place: Any) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    with NameServers(lambda: {"mana.how": [], "b.example": []}) as servers:
        names = {"RECONCILER_NAMESERVERS": " ".join(servers.servers), "RECONCILER_TODAY": "2026-11-22"}

        def begin(*args: str) -> subprocess.Popen[str]:
            root = str(Path(__file__).parents[2])
            program = [IMPORT, str(place.root)] if args == ("import",) else [COMMAND, *args]
            return subprocess.Popen(
                [sys.executable, "-c", *program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=root,
                env={**place.environment(), **names, "PYTHONPATH": root},
            )

        yield begin


def together(*processes: subprocess.Popen[str]) -> list[tuple[int, str]]:
    """Let them begin at once; return how each ended and what it said."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert not [text for text in said if "this is a bug" in text or "Traceback" in text], said
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


def selectors(place: Any, domain: str = "mana.how") -> dict[str, str]:
    return {key.selector: key.stage for key in load(place.state).spec.dkim.get(domain, ())}


def left_over(place: Any) -> list[str]:
    return [str(path) for path in place.root.rglob(".new-*")] + [str(path) for path in place.root.glob(".*.import")]


@pytest.mark.parametrize("stores", ["file:../secrets", "age:keys", "sops:keys.sops.yaml"])
def test_t14_keys_of_two_algorithms_made_at_once_are_both_there(
    place: Any, start: Callable[..., Any], stores: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyrage

    if stores.startswith("sops"):
        shutil.which("sops") or pytest.skip("no real sops on PATH (.ci/run builds it)")
    identity = pyrage.x25519.Identity.generate()
    monkeypatch.setattr(place, "environment", lambda: {**type(place).environment(place), "SOPS_AGE_KEY": str(identity)})
    more = () if stores.startswith("file") else ("--recipient", str(identity.to_public()))
    for _ in range(2):
        ended = together(*(start(*GENERATE, algorithm, "--store", stores, *more) for algorithm in ("ed25519", "rsa")))
        codes = [code for code, _ in ended]
        assert codes == [0, 0], ended
        assert selectors(place) == {"ed202611": "active", "rsa202611": "active"}
        assert left_over(place) == []
        for path in (place.state / "dkim.yaml", place.state / "keys.sops.yaml"):
            path.unlink(missing_ok=True)
        for folder in (place.root / "secrets", place.state / "keys"):
            shutil.rmtree(folder, ignore_errors=True)


def test_t14_the_same_key_made_twice_at_once_is_made_once(place: Any, start: Callable[..., Any]) -> None:
    ended = together(*(start(*GENERATE, "ed25519", "--pending") for _ in range(3)))
    assert sorted(code for code, _ in ended) == [0, 4, 4], ended
    assert selectors(place) == {"ed202611": "pending"}
    assert [path.name for path in (place.root / "secrets").glob("*.pem")] == ["ed202611.mana.how.pem"]


def test_t14_two_domains_and_a_rotation_at_once_lose_nothing(place: Any, start: Callable[..., Any]) -> None:
    place.write("dns:\n  mana.how:\n    - {type: A, name: mail, content: 192.0.2.1}\n  b.example: []\n")
    for algorithm in ("ed25519", "rsa"):
        assert together(start(*GENERATE, algorithm))[0][0] == 0
    commands = [
        ("dkim", "rotate", "mana.how", "--algorithm", "ed25519"),
        ("dkim", "rotate", "mana.how", "--algorithm", "rsa"),
        ("dkim", "generate", "b.example", "--algorithm", "ed25519"),
    ]
    ended = together(*(start(*command) for command in commands))
    assert [code for code, _ in ended] == [0, 0, 0], ended
    assert sorted(selectors(place).values()) == ["active", "active", "pending", "pending"]
    assert selectors(place, "b.example") == {"ed202611": "active"}


@pytest.mark.parametrize("pair", [*itertools.combinations_with_replacement(("init", "import"), 2)], ids="-".join)
def test_t14_init_and_import_of_one_directory_leave_what_one_of_them_wrote(
    place: Any, start: Callable[..., Any], pair: tuple[str, str]
) -> None:
    written = {}
    for name in ("init", "import"):
        shutil.rmtree(place.state, ignore_errors=True)
        shutil.rmtree(place.root / "secrets", ignore_errors=True)
        assert together(start(name))[0][0] == 0
        written[name] = {path.name: path.read_bytes() for path in place.state.iterdir()}
    for _ in range(2):
        shutil.rmtree(place.state)
        ended = together(*map(start, pair))
        winners = [name for name, (code, _) in zip(pair, ended, strict=True) if code == 0]
        assert len(winners) == 1, ended
        assert {path.name: path.read_bytes() for path in place.state.iterdir()} == written[winners[0]]
        assert left_over(place) == []


@pytest.mark.parametrize("other", [("init",), ("import",), (*GENERATE, "rsa"), ("dkim", "rotate", "mana.how")])
def test_t14_an_apply_beside_another_command_ends_as_after_it(
    place: Any, start: Callable[..., Any], other: tuple[str, ...]
) -> None:
    (place.root / "world.py").unlink(missing_ok=True)
    assert together(start(*GENERATE, "ed25519"))[0][0] == 0
    before = {path.name: path.read_bytes() for path in place.state.iterdir()}
    first, second = place.popen("apply", "--yes", "--target", "cloudflare"), start(*other)
    ((code, said),) = together(second)
    out, err = first.communicate(timeout=120)
    assert first.returncode == 0, out + err
    if other[0] in ("init", "import"):
        assert code == 1 or other == ("import",), said
        assert {path.name: path.read_bytes() for path in place.state.iterdir()} == before
    else:
        assert code == 0, said
        assert len(selectors(place)) == 2


def test_t10_an_apply_whose_lease_is_removed_stops_and_says_so(place: Any, wait_for: Wait) -> None:
    """`git clean -fdx` beside a running apply: it writes nothing more, and nobody else gets in meanwhile."""
    place.world.turn(hold="dns/mana.how/A/mail")
    first = place.popen("apply", "--yes")
    wait_for((place.root / "held").exists)
    shutil.rmtree(place.data)
    if sys.platform == "linux":
        second = place.popen("apply", "--yes")
        second.communicate(timeout=120)
        assert second.returncode == 5
    (place.root / "go").touch()
    out, err = first.communicate(timeout=120)
    assert first.returncode == 6, out + err
    assert "the lease was removed while it was held" in err
    assert "stopped before it was done" in out


def test_t10_a_link_in_place_of_the_data_directory_refuses_an_apply_and_warns_a_plan(place: Any) -> None:
    elsewhere = place.root / "elsewhere"
    elsewhere.mkdir()
    (place.root / ".reconciler").symlink_to(elsewhere)
    process = place.popen("apply", "--yes")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "symbolic link" in err
    process = place.popen("plan")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "symbolic link" in out
    assert list(elsewhere.iterdir()) == []


def test_t9_what_commands_write_is_not_led_elsewhere_by_a_link(place: Any, start: Callable[..., Any]) -> None:
    elsewhere = place.root.parent / f"{place.root.name}-elsewhere"
    elsewhere.mkdir()
    try:
        (place.root / "secrets").symlink_to(elsewhere)
        ((code, said),) = together(start(*GENERATE, "ed25519"))
        assert (code, "leads out of" in said) == (4, True), said
        (place.state / "dkim.yaml").symlink_to(elsewhere / "new")
        ((code, said),) = together(start(*GENERATE, "ed25519", "--store", f"file:{place.root}/keys"))
        assert (code, "leaves the directory" in said) == (3, True), said
        shutil.rmtree(place.state)
        place.state.symlink_to(elsewhere)
        ((code, said),) = together(start("init"))
        assert (code, "is a link" in said) == (1, True), said
        ((code, said),) = together(start("import", "--zone", "mana.how", "--out", str(place.state)))
        assert (code, "is a link" in said) == (1, True), said
        assert list(elsewhere.iterdir()) == []
    finally:
        shutil.rmtree(elsewhere)


def test_t9_a_saved_plan_is_not_led_elsewhere_by_a_link(place: Any) -> None:
    elsewhere, repository = place.root / "elsewhere", place.root / "repository"
    elsewhere.mkdir()
    repository.mkdir()
    (repository / "out").symlink_to(elsewhere)
    (repository / "plan.json").symlink_to(elsewhere / "new.json")
    for name, code in (("out/plan.json", 1), ("plan.json", 0)):
        process = place.popen("plan", "--out", name, cwd=repository)
        _, err = process.communicate(timeout=120)
        assert process.returncode == code, err
    assert list(elsewhere.iterdir()) == []
    assert not (repository / "plan.json").is_symlink()
