"""What is live is a stranger's: secrets at random, under names at random, are in no output, whatever is declared."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from . import jmapstage
from .stagefixtures import Stack
from .test_canaries import OUTPUTS, forms

pytestmark = pytest.mark.long


class Planted:
    """Live secrets, and the search for them in all that a command says and leaves behind."""

    def __init__(self, stack: Stack, seed: int) -> None:
        self.stack, self.seed, self.values = stack, seed, list[str]()

    def secret(self, kind: str) -> str:
        """Make a value that a person may have put somewhere, of one of several forms."""
        digest = hashlib.sha256(f"{self.seed} {kind} {len(self.values)}".encode()).hexdigest()
        shapes = [digest[:32], f"Ab{digest[:9]}$w*rd", digest[:20].upper(), f"correct {digest[:6]} horse", digest[:8]]
        shapes += [f"https://u:{digest[:10]}@h.example/x?k={digest[10:20]}", str(int(digest[:12], 16))]
        self.values.append(shapes[(self.seed + len(self.values)) % len(shapes)])
        return self.values[-1]

    def name(self, kind: str) -> str:
        return "N" + hashlib.sha256(f"{kind} {self.seed}".encode()).hexdigest()[:7].upper()

    def environment(self) -> None:
        """Plant what runs, what the compose file says, and what the env file says; declare something plain for each."""
        running, literal, filed = (self.name(kind) for kind in ("running", "literal", "filed"))
        planted = {name: self.secret(name) for name in (running, literal, filed, "MANA_SERVICE_KEY", "SMTP_AUTH")}
        file, env_file = self.stack.example.compose_file, self.stack.example.env_file
        lines = "".join(f"      {name}: ${{{name}}}\n" for name in (running, literal, filed, "SMTP_AUTH"))
        text = file.read_text().replace("      PORT: 3001\n", f"      PORT: 3001\n{lines}", 1)
        file.write_text(text)
        self.stack.stage.up("mana-auth", **planted)  # as a person's shell does
        self.stack.zygote.calls.clear()
        said = f'{literal}: "{self.secret("in the file").replace("$", "$$")}"'
        file.write_text(text.replace(f"{literal}: ${{{literal}}}", said))
        values = {name: self.secret(f"env file {name}") for name in (running, filed, "SMTP_AUTH")}
        quoted = (name + '="' + re.sub(r'([\\"$])', r"\\\1", value) + '"\n' for name, value in values.items())
        env_file.write_text(env_file.read_text() + "".join(quoted))
        declared = {running: "https://example.com", literal: "587", filed: "", "MANA_SERVICE_KEY": "12345"}
        text = "".join(f", {name}: {json.dumps(value)}" for name, value in {**declared, "SMTP_AUTH": "login"}.items())
        self.stack.edit("smtp.yaml", '"http://mana-notify:3013"}', f'"http://mana-notify:3013"{text}}}')
        smtp = self.stack.example.state / "smtp.yaml"
        smtp.write_text(smtp.read_text().partition("  # Values that services")[0])

    def accounts(self, name: str) -> None:
        principal = self.stack.principal(name)
        if isinstance(principal, dict):
            principal["description"] = self.secret("description")
        else:
            principal.description = self.secret("description")

    def search(self, done: Any, why: str) -> None:
        said = {"standard output": done.out, "standard error": done.err}
        said |= {str(path): path.read_text(errors="replace") for path in self._files()}
        found = {(where, value) for where, text in said.items() for value in self.values if self._stands(value, text)}
        assert found == set(), f"{why}:\n{done.text}"

    def _files(self) -> list[Path]:
        roots = (self.stack.data, self.stack.scratch, self.stack.example.path / "imported")
        files = [path for root in roots for path in root.rglob("*") if path.is_file()]
        return [*files, *self.stack.example.path.glob("*.json")]

    @staticmethod
    def _stands(value: str, text: str) -> bool:
        return any(form in text for form in forms(value) if len(form) > 5)

    def everywhere(self, *argv: str) -> None:
        for output in OUTPUTS:
            self.search(self.stack.run(*argv, "--output", output, "-v"), f"{argv} {output}")


def told(planted: Planted, addresses: list[str]) -> None:
    stack = planted.stack
    planted.everywhere("plan")
    changes = stack.changes()
    for address in addresses:
        [change] = [item for name, item in changes.items() if name == address]
        assert any(change["before_sensitive"].values()), change
    assert stack.run("plan").out.count("another value") >= len(addresses)
    planted.search(stack.run("plan", "--out", str(stack.example.path / "saved.json")), "plan --out")
    for address in addresses:
        planted.everywhere("explain", address)
    planted.everywhere("doctor")
    planted.search(stack.run("apply", "--yes", "-v"), "apply")
    for command in ("apply", "status", "history"):
        planted.everywhere(command, *(("--yes",) if command == "apply" else ()))


@pytest.mark.parametrize("seed", range(2))
def test_t2_a_live_secret_is_told_nowhere(applied: Stack, seed: int) -> None:
    stack, planted = applied, Planted(applied, seed)
    planted.environment()
    planted.accounts("noreply")
    keys = {f"webhook.{planted.name('hook')}.url": "https://example.com", "session.ehlo.greeting": "hello"}
    keys |= {f"lookup.{planted.name('lookup')}.{planted.name('key')}": "5", "webhook.w.headers.0": "X: y"}
    for key in keys:
        stack.rest.settings.database[key] = planted.secret(key)
    stack.edit("stalwart.yaml", "settings: {}", f"settings: {json.dumps(keys)}")
    told(
        planted,
        ["account/noreply@mana.how", "smtp/mana-auth/MANA_SERVICE_KEY", *(f"stalwart/settings/{key}" for key in keys)],
    )
    stack.watch = type(stack.watch)(stack)


@pytest.mark.parametrize("seed", range(1))
def test_t2_a_live_secret_is_told_nowhere_from_0_16(newer_applied: Stack, seed: int) -> None:
    stack, planted = newer_applied, Planted(newer_applied, seed)
    planted.environment()
    header = {"responseHeaders": {planted.name("header"): planted.secret("header")}}
    [answer] = jmapstage.ask(stack.stage, ("Http/set", {"update": {"singleton": header}}))
    assert "updated" in answer, answer
    relay = {"@type": "Relay", "name": "relay", "address": "smtp.example.net", "port": 587}
    secret = {"authUsername": planted.secret("user"), "description": planted.secret("description")}
    jmapstage.create(stack.stage, "MtaRoute", **relay, **secret)
    objects = {"Http": {"singleton": {"responseHeaders": {"X-Y": "z"}}}}
    objects |= {"MtaRoute": {"relay": {"@type": "Relay", "authUsername": "u", "description": "d"}}}
    stalwart = stack.example.state / "stalwart.yaml"
    stalwart.write_text(re.sub(r"(?m)^  objects:.*$", f"  objects: {json.dumps(objects)}", stalwart.read_text()))
    told(planted, ["stalwart/objects/Http/responseHeaders", "stalwart/objects/MtaRoute/relay/authUsername"])
    stack.watch = type(stack.watch)(stack)
