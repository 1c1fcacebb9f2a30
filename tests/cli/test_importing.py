"""`reconciler import` before it asks anything, and what it says when it has written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from reconciler import importing
from reconciler.problem import Problem, Severity
from reconciler.resources import SecretRef

if TYPE_CHECKING:
    from .conftest import Place, Run

ALL = ("--stalwart", "http://localhost:1", "--zone", "mana.how", "--compose", "compose.yml")


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        ((), {}, "nothing to import from"),
        (ALL[:2], {"STALWART_ADMIN_PASSWORD": ""}, "STALWART_ADMIN_PASSWORD: is not set"),
        (ALL[2:4], {}, "CLOUDFLARE_API_TOKEN: is not set"),
        ((*ALL[4:], "--stack", "No"), {}, "is no stack's name"),
        (("--zone", "a b"), {"CLOUDFLARE_API_TOKEN": "canary"}, "is not a name"),
        ((*ALL[2:4], "--store", "vault:x"), {"CLOUDFLARE_API_TOKEN": "canary"}, "is no place for secrets"),
        (ALL[4:], {}, "the compose file does not exist"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_asked(
    place: Place, run: Run, arguments: tuple[str, ...], environment: dict[str, str], said: str
) -> None:
    result = run("import", *arguments, "--out", "new", env=environment)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert not (place.root / "new").exists()


def test_a_directory_that_is_there_is_left_alone(place: Place, run: Run) -> None:
    (place.root / "compose.yml").write_text("services: {}\n")
    before = {path.name: path.read_text() for path in place.state.iterdir()}
    result = run("import", *ALL[4:], "--output", "json")
    assert result.exit_code == 1
    assert "a directory of YAML already" in json.loads(result.stdout)["problems"][0]["summary"]
    assert {path.name: path.read_text() for path in place.state.iterdir()} == before


RESULT = {
    "files": {"reconciler.yaml": "where the systems are", "dns.yaml": "2 records of mana.how"},
    "secrets": (SecretRef("file", "../secrets/a@mana.how"),),
    "notes": (Problem("dns/mana.how", "1 record is not about mail", "", Severity.WARNING),),
    "environment": ("CLOUDFLARE_API_TOKEN",),
}


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_is_said_afterwards(run: Run, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    def written(request: importing.Request, *_: Any, **__: Any) -> importing.Result:
        return importing.Result(request.out, **RESULT)  # type: ignore[arg-type]

    monkeypatch.setattr(importing, "import_", written)
    result = run("import", "--zone", "mana.how", "--out", "new", "--output", form)
    assert (result.exit_code, result.stderr) == (0, "")
    if form == "json":
        document = json.loads(result.stdout)
        assert (document["format_version"], document["directory"]) == ("1.0", "new")
        assert document["secrets"] == ["{file: ../secrets/a@mana.how}"]
        assert document["problems"][0]["severity"] == "warning"
    else:
        for part in ("dns.yaml         2 records", "{file: ../secrets/a@mana.how}", "not about mail", "--state new"):
            assert part in result.stdout
