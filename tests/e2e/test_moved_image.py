"""An image that moves, on a real engine: told before it comes, named when it has come, and nothing emptied.

The images are small and do with a store what the real ones do: a release opens what its own line made, ends at what
another one made with the real words, and from 0.16 starts in bootstrap mode where no config.json is mounted. What
answers at the server's address is a fake.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from reconciler.simulator.stalwart.jmap.server import StalwartJmap
from reconciler.simulator.stalwart.rest.server import StalwartRest
from reconciler.simulator.wire import Server
from reconciler.targets.stalwart.release import MOVER, PINS

from .stagefixtures import Done, Stack, wait_for

# In the worker of the other tests that use a real engine (see test_compose_engine.py).
pytestmark = [pytest.mark.xdist_group("engine"), pytest.mark.long]

OLD, NEW, BRANCH, NEXT = "0.15.5", "0.16.18", "1.0.0", "1.0.1"  # BRANCH says what the branch before 1.0.0 said
PLACES = {OLD: {"data": "/opt/stalwart"}, NEW: {"etc": "/etc/stalwart", "data": "/var/lib/stalwart"}}
GENERATIONS = {OLD: "rest", NEW: "jmap"}
GUIDE = "please read https://github.com/stalwartlabs/stalwart/blob/main/UPGRADING/v0_16.md"
FIRST = f"Migration aborted: You must first upgrade to version 0.15, {GUIDE}"
STEPS = f"Migration aborted: Upgrading to version 0.16 is a multi-step process, {GUIDE}"
PRIOR = (
    "The data store was created by a Stalwart version prior to 1.0 (schema version {found}) and cannot be opened by "
    "this version."
)
# The number of the schema that each release makes and opens, and what it says of a store of another one.
STORES = {OLD: ("5", {}), NEW: ("6", {"5": STEPS}), BRANCH: ("v1", {"*": FIRST})}
STORES[NEXT] = ("v1", {found: PRIOR.format(found=found) for found in "56"})
PROGRAM = """\
#!/bin/sh
{place}
test -e "$place/schema" || echo {opens} > "$place/schema"
read -r found < "$place/schema"
case $found in {opens}) ;; {refusals} esac
echo 'INFO Starting Stalwart Server (server.startup) version = "{release}"'
exec sleep 1000
"""
CONFIGURED = """\
test -e /etc/stalwart/config.json || { echo Stalwart bootstrap mode >&2; exec sleep 1000; }
read -r config < /etc/stalwart/config.json
place=${config#*'"path": "'}
place=${place%'"'*}"""
REFUSAL = "{found}) echo '{words}' >&2; exit 101;;"
DIRECTORY = """version: 1
stack: moved
targets:
  stalwart: {{url: "{url}", username: admin, password: {{env: ADMIN}}, recovery: {{env: RECOVERY}}, container: {name}}}
domains: {{example.org: {{}}}}
accounts: {{noreply@example.org: {{password: {{env: NOREPLY}}}}}}
stalwart: {{hostname: mail.example.org, default_domain: example.org}}
"""
SECRETS = {"ADMIN": "the fallback's own", "RECOVERY": "admin:the fallback's own", "NOREPLY": "horse battery staple"}


def program(release: str) -> bytes:
    """Return what an image of this release starts."""
    opens, says = STORES[release]
    refusals = " ".join(REFUSAL.format(found=found, words=words) for found, words in says.items())
    place = f"place={PLACES[OLD]['data']}" if release == OLD else CONFIGURED
    return PROGRAM.format(place=place, opens=opens, refusals=refusals, release=release).encode()


def archive(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as files:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(content), 0o755
        files.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@dataclass
class Host:
    """A machine with an engine, images of Stalwart under one floating tag, and a directory for the container."""

    engine: docker.DockerClient
    base: str
    folder: Path
    stack: Stack
    prefix: str = field(default_factory=lambda: f"reconciler-test-{uuid.uuid4().hex[:8]}")
    url: str = ""

    @property
    def latest(self) -> str:
        return f"{self.prefix}/stalwart:latest"

    @property
    def container(self) -> Container:
        return self.engine.containers.get(f"{self.prefix}-mail")

    # ------------------------------------------------------------------------------------------------ as a user does
    def pull(self, release: str) -> None:
        """Let `latest` mean this release, and have its own tag too."""
        changes = [f"LABEL org.opencontainers.image.version={release}", 'ENTRYPOINT ["/bin/stalwart"]']
        changes += ["VOLUME /opt/stalwart"] if release == OLD else ["VOLUME /etc/stalwart", "VOLUME /var/lib/stalwart"]
        made = self.engine.containers.create(self.base, ["true"])
        made.put_archive("/bin", archive("stalwart", program(release)))
        content = b"".join(made.export())
        made.remove()
        repository = self.latest.removesuffix(":latest")
        self.engine.api.import_image_from_data(content, repository, f"v{release}", changes)
        self.engine.api.tag(f"{repository}:v{release}", repository, "latest", force=True)

    def up(self, volumes: Mapping[str, str], image: str = "") -> None:
        """Make the container anew from what its tag means now, as Compose does; volumes are named as by Compose."""
        self.down()
        self.engine.containers.run(
            image or self.latest,
            name=f"{self.prefix}-mail",
            detach=True,
            restart_policy={"Name": "always"},
            environment=[f"STALWART_RECOVERY_ADMIN={SECRETS['RECOVERY']}"],
            labels={"com.docker.compose.project": self.prefix, "com.docker.compose.service": "stalwart"},
            volumes={f"{self.prefix}_{name}": {"bind": path, "mode": "rw"} for name, path in volumes.items()},
        )

    def down(self) -> None:
        with contextlib.suppress(docker.errors.NotFound):
            self.container.remove(force=True, v=True)

    def start(self, release: str, data: str = "/var/lib/stalwart") -> None:
        """Begin with a server that has a store; a config.json that names ``data`` is there for a later 0.16, too."""
        self.pull(release)
        self.up(PLACES[NEW])
        config = json.dumps({"@type": "RocksDb", "path": data}).encode() + b"\n"
        self.container.put_archive(PLACES[NEW]["etc"], archive("config.json", config))
        self.up(PLACES[release])
        wait_for(self.serves)

    def run(self, code: int, *argv: str) -> Done:
        state = self.folder / "desired-state"
        state.mkdir(exist_ok=True)
        (state / "all.yaml").write_text(DIRECTORY.format(name=self.container.name, url=self.url))
        environ = {"PATH": os.defpath, "HOME": str(self.folder), "LANG": "C.UTF-8", **SECRETS}
        environ |= {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}
        call = {"program": "reconciler", "argv": list(argv), "environ": environ, "cwd": str(self.folder)}
        done = self.stack.zygote.start({**call, "bug": "", "trace": ""}).wait()
        assert done.code == code, done.text
        assert not [secret for secret in SECRETS.values() if secret in done.text]
        return done

    # --------------------------------------------------------------------------------------------------- what is so
    def serves(self) -> bool:
        """Whether the program in the container has opened its store and stays."""
        return b"Starting Stalwart Server" in self.container.logs(tail=1) and self.container.status == "running"

    def loops(self) -> bool:
        """Whether the container has been started again after it ended."""
        return bool(self.container.attrs["RestartCount"] > 0)

    def kept(self) -> dict[str, bytes]:
        """Return the files in the named volumes, by their names there."""
        found = {}
        for mount in self.container.attrs["Mounts"]:
            pieces, _ = self.container.get_archive(mount["Destination"])
            with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as files:
                for member in files:
                    if mount["Name"].startswith(self.prefix) and (content := files.extractfile(member)) is not None:
                        found[f"{mount['Name']} {member.name.partition('/')[2]}"] = content.read()
        return found

    def clear(self) -> None:
        self.down()
        for volume in self.engine.volumes.list():
            if volume.name.startswith(self.prefix):
                volume.remove()
        for image in self.engine.images.list(self.latest.removesuffix(":latest")):
            self.engine.images.remove(image.id, force=True)


@pytest.fixture
def host(engine: docker.DockerClient, small_image: str, tmp_path: Path, theatre: Stack) -> Iterator[Host]:
    made = Host(engine, small_image, tmp_path, theatre)
    try:
        yield made
    finally:
        made.clear()


@contextlib.contextmanager
def answering(host: Host, release: str) -> Iterator[None]:
    """Let a fake answer at the server's address; nothing is written to it."""
    environment = {"STALWART_ADMIN_PASSWORD": SECRETS["ADMIN"], "STALWART_RECOVERY_ADMIN": SECRETS["RECOVERY"]}
    bare = b"bootstrap" in host.container.logs()
    rest = StalwartRest(environment=environment)
    fake = rest if release == OLD else StalwartJmap(environment=environment, configured=not bare)
    with fake, Server(fake) as wire:
        host.url, before = wire.url, fake.dump()
        yield
        assert (fake.dump(), wire.crashes) == (before, [])


def unused() -> str:
    """Return an address that nobody answers at."""
    return "http://127.0.0.1:1"


def said_of(host: Host, done: Done, severity: str) -> list[str]:
    """Return what is said of the container, each with its remedy."""
    return [
        f"{item['summary']} → {item['hint']}"
        for item in done.json["problems"]
        if (item["where"], item["severity"]) == (f"container {host.container.name}", severity)
    ]


def pinned(host: Host, release: str) -> str:
    pin = PINS[GENERATIONS[release]]
    return f"`image: {host.latest.removesuffix(':latest')}:v{pin.name}` (known good on {pin.good})"


# ------------------------------------------------------------------------------------------------------- the tests
@pytest.mark.parametrize(("before", "after"), [(OLD, NEW), (NEW, NEXT), (OLD, NEXT)])
def test_a_tag_that_moved_is_told_while_the_old_server_runs(host: Host, before: str, after: str) -> None:
    host.start(before)
    with answering(host, before):
        assert "has moved" not in host.run(0, "plan").text
        host.pull(after)
        kept, number = host.kept(), host.container.id
        plan = host.run(0, "plan", "--output", "json")
        assert plan.json["unread"] == []
        assert f"{host.latest} has moved: it is release {after} by now" in host.run(0, "plan").text
    [told] = [text for text in said_of(host, plan, "warning") if "has moved" in text]
    assert f"has moved: it is release {after} by now, and whatever recreates the container starts that one" in told
    assert f"→ write the release that runs, or {pinned(host, before)}" in told
    assert (host.kept(), host.container.id, host.serves()) == (kept, number, True)


@pytest.mark.parametrize(
    ("before", "after", "data", "words"),
    [
        pytest.param(OLD, NEW, "/var/lib/stalwart", STEPS, id="0.15 to 0.16, by half of its guide"),
        pytest.param(NEW, NEXT, "/var/lib/stalwart", PRIOR.format(found=6), id="0.16 to 1.x"),
        pytest.param(NEW, BRANCH, "/var/lib/stalwart", FIRST, id="0.16 to the branch before 1.0"),
        pytest.param(OLD, NEXT, "/var/lib/stalwart", PRIOR.format(found=5), id="0.15 to 1.x"),
        pytest.param(OLD, BRANCH, "/opt/stalwart", FIRST, id="0.15 to the branch before 1.0"),
    ],
)
def test_a_store_that_the_image_does_not_open_is_named_and_never_emptied(
    host: Host, before: str, after: str, data: str, words: str
) -> None:
    host.start(before, data)
    kept = host.kept()
    host.pull(after)
    host.up({**PLACES[NEW], "data": data})
    wait_for(host.loops)
    assert words in host.container.logs().decode()
    host.url = unused()
    number = host.container.id
    plan = host.run(1, "plan", "--output", "json")
    assert (plan.json["changes"], plan.json["unread"]) == ([], ["stalwart"])
    [told] = said_of(host, plan, "error")
    named = f"the image {host.latest} (release {after.rpartition('.')[0]})"
    assert f"ends at each start and serves no mail: {named} does not open its store, which an older release" in told
    assert f"write {pinned(host, before)}, or the release that it ran before, and start it; its volume is never" in told
    assert "`docker compose stop stalwart`" in told
    assert (f"the store of {MOVER}" in told, "account by account" in told) == (before == NEW, before == OLD)
    for command in (("plan",), ("apply", "--yes"), ("daemon", "--once")):
        assert "ends at each start" in host.run(1, *command).text, command
    assert (host.kept().items() >= kept.items(), host.container.id) == (True, number)
    host.up(PLACES[before], host.latest.replace("latest", f"v{before}"))
    wait_for(host.serves)
    assert host.kept() == kept, "who does what was said has a server, and his mail"


def test_what_an_earlier_start_said_is_not_said_of_this_one(host: Host) -> None:
    host.start(NEW)
    host.pull(NEXT)
    host.up(PLACES[NEW])
    wait_for(host.loops)
    host.url = unused()
    assert "ends at each start" in host.run(1, "plan").text
    host.container.put_archive(PLACES[NEW]["data"], archive("schema", b"v1\n"))
    host.container.restart(timeout=0)
    wait_for(host.serves)
    said = host.run(1, "plan").text
    assert "ends at each start" not in said
    assert host.url in said


@pytest.mark.parametrize("after", [NEW, NEXT])
def test_a_volume_where_the_image_does_not_look_is_told_in_bootstrap_mode(host: Host, after: str) -> None:
    host.start(OLD)
    kept = host.kept()
    host.pull(after)
    host.up(PLACES[OLD])
    wait_for(lambda: b"bootstrap mode" in host.container.logs())
    with answering(host, after):
        plan = host.run(0, "plan", "--output", "json")
    assert {item["actions"][0] for item in plan.json["changes"]} == {"create"}
    told = "\n".join(said_of(host, plan, "warning"))
    for place in PLACES[NEW].values():
        assert f"keeps data in {place}, and no named volume is mounted there" in told
    assert f"data is mounted at /opt/stalwart, where the image {host.latest} keeps nothing" in told
    assert f"what is in the volume stays in it, and {pinned(host, OLD)} opens it again" in told
    assert ("moved from 0.16 to 1.x" in told, "moved from 0.15 to 0.16" in told) == (after == NEXT, after == NEW)
    assert host.kept() == kept
