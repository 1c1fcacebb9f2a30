"""Two commands at once, as real processes: they end as if one had come after the other."""

from __future__ import annotations

import fcntl
import itertools
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.stagefixtures import Running, Zygote, wait_for

from reconciler.desired.load import load
from reconciler.simulator.dns import NameServers

Wait = Callable[[Callable[[], Any]], None]

# Everybody begins at the same moment: when the gate is opened, before which all stand.
GATE = """
import fcntl, os
with open(f"{gate}-{{os.getpid()}}", "wb"), open("{gate}", "rb") as gate:
    fcntl.flock(gate, fcntl.LOCK_SH)
"""
IMPORT = """
import sys
from pathlib import Path
from tests.importing.conftest import Parts
from tests.importing.test_directory import a_stack
from reconciler.importing import write
from reconciler.problem import ReconcilerError
{gate}
try:
    write(a_stack(Parts(Path({out!r}))))
except ReconcilerError as error:
    print(error)
    sys.exit(1)
sys.exit(0)
"""
GENERATE = ("dkim", "generate", "mana.how", "--algorithm")


class Together:
    """Starts commands that wait at a gate."""

    def __init__(self, place: Any, zygote: Zygote, gate: Path, environ: dict[str, str]) -> None:
        self._place, self._zygote, self._path, self._environ = place, zygote, gate, environ
        self._gate = gate.open("wb")

    def start(self, *args: str) -> Running:
        """Start a command; ``import`` alone is one of a stack that the tests make up."""
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        gate = GATE.format(gate=self._path)
        first = IMPORT.format(gate=gate, out=str(self._place.root)) if args == ("import",) else gate
        environ = {**self._place.environment(), **self._environ}
        root = str(Path(__file__).parents[2])
        return self._zygote.start(
            {"program": "reconciler", "argv": list(args), "environ": environ, "cwd": root, "bug": first}
        )

    def __call__(self, *processes: Running) -> list[tuple[int, str]]:
        """Let them begin at once; return how each ended and what it said."""
        wait_for(lambda: all(Path(f"{self._path}-{process.pid}").exists() for process in processes))
        fcntl.flock(self._gate, fcntl.LOCK_UN)
        ended = [process.wait() for process in processes]
        assert not [done for done in ended if "this is a bug" in done.text or "Traceback" in done.text], ended
        return [(done.code, done.text) for done in ended]

    def close(self) -> None:
        self._gate.close()


@pytest.fixture
def together(place: Any, zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Together]:
    with NameServers(lambda: {"mana.how": [], "b.example": []}) as servers:
        environ = {"RECONCILER_NAMESERVERS": " ".join(servers.servers), "RECONCILER_TODAY": "2026-11-22"}
        environ["RECONCILER_DRY_RUN"] = "no"
        made = Together(place, zygote, tmp_path_factory.mktemp("together") / "gate", environ)
        yield made
        made.close()


def selectors(place: Any, domain: str = "mana.how") -> dict[str, str]:
    return {key.selector: key.stage for key in load(place.state).spec.dkim.get(domain, ())}


def left_over(place: Any) -> list[str]:
    return [str(path) for path in place.root.rglob(".new-*")] + [str(path) for path in place.root.glob(".*.import")]


@pytest.mark.parametrize("stores", ["file:../secrets", "age:keys", "sops:keys.sops.yaml"])
def test_t14_keys_of_two_algorithms_made_at_once_are_both_there(
    place: Any, together: Together, stores: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyrage

    if stores.startswith("sops"):
        shutil.which("sops") or pytest.skip("no real sops on PATH (.ci/run builds it)")
    identity = pyrage.x25519.Identity.generate()
    monkeypatch.setattr(place, "environment", lambda: {**type(place).environment(place), "SOPS_AGE_KEY": str(identity)})
    more = () if stores.startswith("file") else ("--recipient", str(identity.to_public()))
    for _ in range(2):
        ended = together(
            *(together.start(*GENERATE, algorithm, "--store", stores, *more) for algorithm in ("ed25519", "rsa"))
        )
        codes = [code for code, _ in ended]
        assert codes == [0, 0], ended
        assert selectors(place) == {"ed202611": "active", "rsa202611": "active"}
        assert left_over(place) == []
        for path in (place.state / "dkim.yaml", place.state / "keys.sops.yaml"):
            path.unlink(missing_ok=True)
        for folder in (place.root / "secrets", place.state / "keys"):
            shutil.rmtree(folder, ignore_errors=True)


def test_t14_the_same_key_made_twice_at_once_is_made_once(place: Any, together: Together) -> None:
    ended = together(*(together.start(*GENERATE, "ed25519", "--pending") for _ in range(3)))
    assert sorted(code for code, _ in ended) == [0, 4, 4], ended
    assert selectors(place) == {"ed202611": "pending"}
    assert [path.name for path in (place.root / "secrets").glob("*.pem")] == ["ed202611.mana.how.pem"]


def test_t14_two_domains_and_a_rotation_at_once_lose_nothing(place: Any, together: Together) -> None:
    place.write("dns:\n  mana.how:\n    - {type: A, name: mail, content: 192.0.2.1}\n  b.example: []\n")
    for algorithm in ("ed25519", "rsa"):
        assert together(together.start(*GENERATE, algorithm))[0][0] == 0
    commands = [
        ("dkim", "rotate", "mana.how", "--algorithm", "ed25519"),
        ("dkim", "rotate", "mana.how", "--algorithm", "rsa"),
        ("dkim", "generate", "b.example", "--algorithm", "ed25519"),
    ]
    ended = together(*(together.start(*command) for command in commands))
    assert [code for code, _ in ended] == [0, 0, 0], ended
    assert sorted(selectors(place).values()) == ["active", "active", "pending", "pending"]
    assert selectors(place, "b.example") == {"ed202611": "active"}


@pytest.mark.parametrize("pair", [*itertools.combinations_with_replacement(("init", "import"), 2)], ids="-".join)
def test_t14_init_and_import_of_one_directory_leave_what_one_of_them_wrote(
    place: Any, together: Together, pair: tuple[str, str]
) -> None:
    written = {}
    for name in ("init", "import"):
        shutil.rmtree(place.state, ignore_errors=True)
        shutil.rmtree(place.root / "secrets", ignore_errors=True)
        assert together(together.start(name))[0][0] == 0
        written[name] = {path.name: path.read_bytes() for path in place.state.iterdir()}
    for _ in range(2):
        shutil.rmtree(place.state)
        ended = together(*map(together.start, pair))
        winners = [name for name, (code, _) in zip(pair, ended, strict=True) if code == 0]
        assert len(winners) == 1, ended
        assert {path.name: path.read_bytes() for path in place.state.iterdir()} == written[winners[0]]
        assert left_over(place) == []


@pytest.mark.parametrize("other", [("init",), ("import",), (*GENERATE, "rsa"), ("dkim", "rotate", "mana.how")])
def test_t14_an_apply_beside_another_command_ends_as_after_it(
    place: Any, together: Together, other: tuple[str, ...]
) -> None:
    (place.root / "world.py").unlink(missing_ok=True)
    assert together(together.start(*GENERATE, "ed25519"))[0][0] == 0
    before = {path.name: path.read_bytes() for path in place.state.iterdir()}
    first, second = place.popen("apply", "--yes", "--target", "cloudflare"), together.start(*other)
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


def test_t9_what_commands_write_is_not_led_elsewhere_by_a_link(place: Any, together: Together) -> None:
    elsewhere = place.root.parent / f"{place.root.name}-elsewhere"
    elsewhere.mkdir()
    try:
        (place.root / "secrets").symlink_to(elsewhere)
        ((code, said),) = together(together.start(*GENERATE, "ed25519"))
        assert (code, "leads out of" in said) == (4, True), said
        (place.state / "dkim.yaml").symlink_to(elsewhere / "new")
        ((code, said),) = together(together.start(*GENERATE, "ed25519", "--store", f"file:{place.root}/keys"))
        assert (code, "leaves the directory" in said) == (3, True), said
        shutil.rmtree(place.state)
        place.state.symlink_to(elsewhere)
        ((code, said),) = together(together.start("init"))
        assert (code, "is a link" in said) == (1, True), said
        ((code, said),) = together(together.start("import", "--zone", "mana.how", "--out", str(place.state)))
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
