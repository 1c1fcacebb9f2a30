"""No secret appears anywhere: every secret is a canary, every command and failure is tried, everything is searched."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from reconciler.simulator.wire import Reply

OUTPUTS = ("text", "json", "markdown")
TELLING = 12  # characters of a PEM line or an encoding that can stand nowhere by chance


def forms(value: str) -> Iterator[str]:
    """Yield the texts in which a value could hide."""
    yield value
    yield quote(value, safe="")
    yield quote(value)
    yield quote_plus(value)
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]
    yield value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")  # as the env file quotes
    for offset in range(3):  # base64 of any text that holds it, such as user:password
        middle = base64.b64encode(b"\0" * offset + value.encode()).decode().rstrip("=")[4 if offset else 0 : -4]
        if len(middle) >= TELLING:
            yield middle
            yield middle.replace("+", "-").replace("/", "_")


class Canaries:
    """All secret values there are, and the search for them."""

    def __init__(self, stack: Any) -> None:
        self.stack = stack
        stack.env.update(
            NOREPLY_PASSWORD='canary-"noreply" $x \\y ü/+\'s',
            POSTMASTER_PASSWORD="canary-postmaster:%40&=",
            MANA_SERVICE_KEY="canary-service $KEY 'q'",
            STALWART_RECOVERY_ADMIN="admin:canary-recovery-word",
            BREVO_SMTP_KEY=stack.secrets["BREVO_SMTP_KEY"],
        )
        if stack.generation == "rest":
            stack.principal("stranger").password = "canary-clear-on-the-server"
        else:
            stack.env["STALWART_RECOVERY_ADMIN"] = stack.secrets["STALWART_RECOVERY_ADMIN"]
        recovery = stack.env["STALWART_RECOVERY_ADMIN"].partition(":")[2]
        self.values = {**stack.secrets, **stack.env, "recovery": recovery}
        self.values["clear"] = "canary-clear-on-the-server"
        for name in ("NOREPLY_PASSWORD", "MANA_SERVICE_KEY"):
            self.values[f"old {name}"] = stack.secrets[name]
        self._old_file()
        self._keys()
        stack.watch = type(stack.watch)(stack)  # all of that is not ours, and stays
        stack.watch.touched.add("mana-auth")
        self.trace = stack.scratch.parent / "trace.jsonl"
        self.trace.unlink(missing_ok=True)
        self.needles = {form: name for name, value in self.values.items() for form in forms(value) if len(form) > 5}

    def _old_file(self) -> None:
        """An old secret stands in the env file, outside of our block."""
        path = self.stack.example.env_file
        line = b"OLD_TOKEN=canary-in-the-old-file\nSMTP_PASSWORD='canary-old-smtp-password'\n"
        path.write_bytes(line + path.read_bytes())
        self.values["old file"] = "canary-in-the-old-file"
        self.values["old smtp"] = "canary-old-smtp-password"
        self.stack.stage.up("mana-notify", SMTP_PASSWORD="canary-in-the-container")
        self.stack.zygote.calls.clear()  # that was a person
        self.stack.tape.forget()
        self.values["old container"] = "canary-in-the-container"

    def _keys(self) -> None:
        for path in (self.stack.example.path / "secrets").iterdir():
            for number, line in enumerate(path.read_text().splitlines()):
                if not line.startswith("-----") and len(line) >= TELLING:
                    self.values[f"{path.name}:{number}"] = line

    def found(self, text: str) -> list[str]:
        return sorted({name for form, name in self.needles.items() if form in text})

    def run(self, *argv: str, **options: Any) -> Any:
        done = self.stack.run(*argv, trace=str(self.trace), **options)
        self.search(done, f"{argv} {done.code}")
        return done

    def search(self, done: Any, why: str) -> None:
        assert self.found(done.out) == [], f"standard output of {why}: {done.out}"
        assert self.found(done.err) == [], f"standard error of {why}: {done.err}"
        for path in self._files():
            assert self.found(path.read_text(errors="replace")) == [], f"{path} after {why}"
        for call in self.stack.zygote.calls:
            assert self.found(json.dumps(call, ensure_ascii=False)) == [], (
                f"Compose's arguments in {why}: {call['argv']}"
            )
        for line in self.trace.read_text().splitlines() if self.trace.exists() else ():
            assert self.found(json.dumps(json.loads(line), ensure_ascii=False)) == [], f"a child of {why}: {line[:200]}"

    def _files(self) -> Iterator[Path]:
        yield from (path for path in self.stack.data.rglob("*") if path.is_file())
        yield from (path for path in self.stack.scratch.rglob("*") if path.is_file())
        yield from (path for path in self.stack.example.path.glob("*.json") if path.is_file())
        yield from (path for path in self.stack.example.path.glob(".*.tmp*") if path.is_file())

    def everywhere(self, *argv: str, **options: Any) -> None:
        """Call a command in every form of output, quietly and with -v."""
        for more in (("-v",), ("--output", "json"), ("--output", "markdown", "-v"), ()):
            self.run(*argv, *more, **options)


@pytest.fixture
def canaries(stack: Any) -> Canaries:
    return Canaries(stack)


def test_the_search_finds_what_it_looks_for(canaries: Canaries) -> None:
    value = canaries.stack.env["NOREPLY_PASSWORD"]
    for text in (
        value,
        quote(value),
        json.dumps(value),
        repr(value),
        base64.b64encode(f"noreply:{value}".encode()).decode(),
    ):
        assert "NOREPLY_PASSWORD" in canaries.found(f"x{text}y")


@pytest.mark.long
def test_what_goes_well_tells_no_secret(canaries: Canaries) -> None:
    stack = canaries.stack
    canaries.run("validate", "-v")
    canaries.everywhere("plan")
    saved = str(stack.example.path / "saved.json")
    canaries.run("plan", "--out", saved)
    assert canaries.run("apply", saved, "--yes", "-v").code == 0
    for output in OUTPUTS:
        stack.env["NOREPLY_PASSWORD"] = canaries.values[f"next {output}"] = f"canary-next-for-{output}"
        canaries.needles |= dict.fromkeys(forms(stack.env["NOREPLY_PASSWORD"]), output)
        assert canaries.run("apply", "--yes", "--output", output, "-v").code == 0
    for command in ("status", "history", "doctor"):
        canaries.everywhere(command)
    addresses = ("account/noreply@mana.how", "dkim/mana.how/rsa2026", "smtp/mana-notify/SMTP_PASSWORD")
    for address in addresses:
        canaries.run("explain", address, "-v")
        canaries.run("explain", address, "--output", "json")


def test_a_refused_login_tells_no_secret(canaries: Canaries) -> None:
    canaries.values["wrong"] = canaries.stack.env["STALWART_ADMIN_PASSWORD"] = "canary-wrong-password"
    canaries.needles |= dict.fromkeys(forms("canary-wrong-password"), "wrong")
    canaries.everywhere("plan")
    canaries.run("apply", "--yes", "-v")


def test_a_refused_tls_tells_no_secret(canaries: Canaries) -> None:
    port = canaries.stack.stage.stalwart_server.port
    for url in (f"https://127.0.0.1:{port}", "http://127.0.0.1:9", "http://192.0.2.1:1", "nonsense"):
        canaries.run("plan", "-v", STALWART_URL=url)
        canaries.run("plan", "--output", "json", CLOUDFLARE_BASE_URL=url)


def test_a_refused_switch_tells_no_secret(canaries: Canaries) -> None:
    stack = canaries.stack
    assert canaries.run("apply", "--yes").code == 0
    stack.edit("smtp.yaml", "  provider: stalwart\n", "  provider: brevo\n")
    canaries.everywhere("plan")
    path = stack.example.compose_file
    path.write_text(
        path.read_text().replace('SMTP_INSECURE_TLS: "true" ', "SMTP_INSECURE_TLS: ${SMTP_INSECURE_TLS:-true} ")
    )
    stack.env["BREVO_SMTP_KEY"] = "canary-refused-by-brevo"
    canaries.needles |= dict.fromkeys(forms("canary-refused-by-brevo"), "refused")
    assert canaries.run("apply", "--yes", "-v").code in (1, 6)
    stack.env["BREVO_SMTP_KEY"] = stack.secrets["BREVO_SMTP_KEY"]
    assert canaries.run("apply", "--yes", "-v", SSL_CERT_FILE="/dev/null").code in (1, 6)


@pytest.mark.long
@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_server_that_echoes_everything_is_not_repeated(canaries: Canaries, status: int) -> None:
    """0.15 answers a signature that exists with its private key; a proxy may show the request in its error page."""
    stack = canaries.stack
    pem = (stack.example.path / "secrets" / "rsa2026.pem").read_text()
    everything = {"error": "fieldAlreadyExists", "field": "private-key", "value": pem, "details": _all(canaries)}
    message = _all(canaries)
    cloudflare = {
        "success": False,
        "errors": [{"code": 9109, "message": message, "error_chain": [{"code": 1, "message": message}]}],
    }
    for method in ("POST", "PATCH"):
        stack.fault("stalwart", method=method, path="/api", reply=Reply.of(everything, status), times=10**6)
    stack.fault("cloudflare", method="POST", path="/client", reply=Reply.of(cloudflare, max(status, 400)), times=10**6)
    for output in OUTPUTS:
        assert canaries.run("apply", "--yes", "-v", "--output", output).code in (1, 6)
    canaries.run("history", "-v")
    stack.fault("stalwart", path="/api", reply=Reply.of(everything, status), times=10**6)
    stack.fault("cloudflare", path="/client", reply=Reply.of(cloudflare, 403), times=10**6)
    stack.fault("docker", path="/v1", reply=Reply.of({"message": message}, 500), times=10**6)
    canaries.everywhere("plan")


def _all(canaries: Canaries) -> str:
    """Join what the run has sent or read by then, raw and encoded."""
    known = ("STALWART_ADMIN_PASSWORD", "NOREPLY_PASSWORD", "CLOUDFLARE_API_TOKEN")
    values = [canaries.values[name] for name in known]
    return " ".join([*values, *(quote(value, safe="") for value in values), *(json.dumps(value) for value in values)])


@pytest.mark.parametrize("word", ["config", "up"])
def test_compose_that_prints_values_is_not_repeated(canaries: Canaries, word: str) -> None:
    stack = canaries.stack
    text = stack.example.env_file.read_text()

    def order(argv: list[str]) -> dict[str, Any]:
        values = " ".join(
            canaries.values[name] for name in ("NOREPLY_PASSWORD", "MANA_SERVICE_KEY", "old smtp", "old file")
        )
        said = (
            f"failed to read .env: line 4: unexpected character in {values}\n{stack.example.env_file.read_text()}{text}"
        )
        return {"exit": 1, "stderr": said, "stdout": said} if word in argv else {}

    stack.zygote.order = order
    for output in OUTPUTS:
        assert canaries.run("apply", "--yes", "-v", "--output", output).code in (1, 6)


def test_a_container_that_logs_its_environment_is_not_repeated(canaries: Canaries) -> None:
    from reconciler.simulator.docker import CRASH_LOOPING

    stack = canaries.stack
    former, before = stack.stage.docker.script, set(stack.stage.docker.containers)

    def script(container: Any) -> Any:
        container.logs = "\n".join(f"{key}={value}" for key, value in container.environment.items()).encode()
        crashes = container.name.endswith("notify") and container.id not in before
        return CRASH_LOOPING if crashes else former(container)

    stack.stage.docker.script = script
    try:
        done = canaries.run("apply", "--yes", "-v")
        assert done.code == 6
    finally:
        stack.stage.docker.script = former
    for item in stack.stage.docker.containers.values():
        item.logs = b""


BUG = """
import reconciler.reconcile as core
from reconciler.resources import SecretRef
real = core.{where}
def broken(stack, *rest, **more):
    found = real(stack, *rest, **more)
    values = [stack.secrets(SecretRef("env", name)) for name in ("NOREPLY_PASSWORD", "STALWART_ADMIN_PASSWORD")]
    key = stack.secrets(SecretRef("file", "../secrets/rsa2026.pem"))
    raise RuntimeError("a bug that quotes", values, {{"key": key}})
core.{where} = broken
"""


@pytest.mark.parametrize("where", ["make_plan", "apply"])
def test_the_traceback_of_a_bug_tells_no_secret(canaries: Canaries, where: str) -> None:
    for output in OUTPUTS if where == "make_plan" else OUTPUTS[:1]:  # the bug comes when all is applied
        done = canaries.run("apply", "--yes", "-v", "--output", output, bug=BUG.format(where=where))
        assert done.code in (1, 6)
        assert "RuntimeError" in done.text


def test_a_missing_secret_is_named_and_the_others_not_told(canaries: Canaries) -> None:
    for name in ("NOREPLY_PASSWORD", "CLOUDFLARE_API_TOKEN", "STALWART_ADMIN_PASSWORD"):
        assert name in canaries.run("plan", "-v", drop=(name,)).text


def test_a_secret_in_the_yaml_is_an_error_that_does_not_repeat_it(canaries: Canaries) -> None:
    canaries.stack.edit("accounts.yaml", "{env: NOREPLY_PASSWORD}", "canary-written-in-yaml")
    canaries.needles["canary-written-in-yaml"] = "yaml"
    for command in (("validate",), ("plan",), ("apply", "--yes"), ("status",)):
        for output in OUTPUTS:
            assert canaries.run(*command, "-v", "--output", output).code == 3
