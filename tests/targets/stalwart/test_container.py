"""What Docker tells: ports that answer, restarts, a config.toml in the way, and why data was lost."""

import socket
from dataclasses import replace

import pytest

from reconciler.keys import public_half
from reconciler.problem import Severity, TargetUnreadable
from reconciler.resources import UNMANAGED, Domain, Listener, SecretRef, Setting, Signature
from reconciler.simulator.docker import Docker as Engine
from reconciler.simulator.stalwart.rest.server import StalwartRest as Fake
from reconciler.simulator.wire import Server
from reconciler.target import Action, Status
from reconciler.targets.stalwart.container import Container, Docker, Mount, causes, misplaced, version

IMAGE = "stalwartlabs/stalwart:v0.15.5"


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def docker(engine):
    with Server(engine) as server:
        yield server.url.replace("http://", "tcp://")
        assert not server.crashes


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def fake():
    with Fake(environment={"STALWART_ADMIN_PASSWORD": "adm1n-passw0rd"}, open_ports=True) as fake:
        yield fake


def run(engine, fake, *ports, **more):
    """Start a container whose restart restarts the fake, with ports published as they are."""
    engine.add_image(IMAGE, Volumes={"/opt/stalwart": {}})
    engine.on_restart = lambda name: fake.restart() if name == "mana-mail" else None
    engine.files = lambda item, path: fake.config_toml.encode() if path == "/opt/stalwart/etc/config.toml" else None
    published = {f"{port}/tcp": ("127.0.0.1", fake.ports.get(port, port)) for port in ports}
    return engine.run("mana-mail", IMAGE, ports=published, **more)


def opened(world, wanted):
    return {
        item.resource.name: item.resource.open
        for item in world.observe(wanted).live
        if isinstance(item.resource, Listener)
    }


# ---------------------------------------------------------------------------------------------------------- listeners
def test_a_new_listener_opens_with_one_restart_of_the_container(world, fake, engine, docker):
    ports = free_port(), free_port()
    run(engine, fake, *ports)
    world.connect(container="mana-mail", docker_host=docker)
    wanted = [Listener(f"extra{port}", (f"[::]:{port}",), "smtp", index == 1) for index, port in enumerate(ports)]
    starts = engine.named("mana-mail").started
    outcomes = world.apply(wanted)
    assert {item.status for item in outcomes.values()} == {Status.DONE}
    assert all(not item.notes for item in outcomes.values())
    assert engine.named("mana-mail").started > starts
    assert any("restarting" in text for text in world.said)
    assert set(fake.ports) >= set(ports)
    assert world.plan(wanted).changes == ()
    assert [value for name, value in opened(world, wanted).items() if name.startswith("extra")] == [True, True]


def test_a_stored_listener_that_does_not_answer_is_a_restart_that_is_due(world, fake, engine, docker):
    port = free_port()
    world.store({"server.listener.extra.bind": f"[::]:{port}", "server.listener.extra.protocol": "smtp"})
    run(engine, fake, port)
    world.connect(container="mana-mail", docker_host=docker)
    wanted = [Listener("extra", (f"[::]:{port}",), "smtp")]
    (change,) = world.plan(wanted).changes
    assert change.actions == (Action.RESTART,)
    world.server.forget()
    world.apply(wanted)
    assert world.server.writes() == []
    assert world.plan(wanted).changes == ()


def test_probing_ports_is_no_scan(world, fake, engine, docker):
    fake.bans.trust_loopback = False
    run(engine, fake, *fake.ports)
    world.connect(container="mana-mail", docker_host=docker)
    wanted = [
        Listener("submission", ("[::]:587",), "smtp"),
        Listener("submissions", ("[::]:465",), "smtp", tls_implicit=True),
    ]
    for _ in range(35):
        found = opened(world, wanted)
    assert (found["submission"], found["submissions"]) == (True, True)
    assert fake.dump()["blocked"] == []


def test_a_published_port_that_accepts_and_closes_is_not_open(world, fake, engine, docker):
    """Docker's proxy accepts for a container in which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        engine.run("mana-mail", IMAGE, ports={"587/tcp": ("127.0.0.1", proxy.getsockname()[1])})
        world.connect(container="mana-mail", docker_host=docker)
        import threading

        def serve():
            connection, _ = proxy.accept()
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        assert opened(world, [Listener("submission", ("[::]:587",), "smtp")])["submission"] is False
        thread.join()


def test_what_can_not_be_told_is_not_drift(world, fake, engine, docker):
    wanted = [Listener("submission", ("[::]:587",), "smtp"), Listener("http", ("[::]:8080",), "http")]
    assert set(opened(world, wanted).values()) == {UNMANAGED}  # loopback: may be a tunnel
    engine.run("mana-mail", IMAGE)
    world.connect(container="mana-mail", docker_host=docker)
    assert set(opened(world, wanted).values()) == {UNMANAGED}  # not published
    assert world.plan(wanted).changes == ()


def test_where_docker_can_not_be_asked_the_command_is_told(world):
    world.connect(container="mana-mail", docker_host="tcp://127.0.0.1:9")
    (outcome,) = world.apply([Listener("extra", ("[::]:2525",), "smtp")]).values()
    assert outcome.status is Status.DONE
    assert "`docker restart mana-mail`" in outcome.notes[0]


def test_a_container_of_another_name_is_a_warning(world, docker):
    world.connect(container="mana-mial", docker_host=docker)
    (problem,) = world.observe().problems
    assert (problem.where, problem.severity) == ("container mana-mial", Severity.WARNING)


# ---------------------------------------------------------------------------------------------------------- plain http
def test_the_containers_own_names_and_addresses_may_be_asked_in_clear(world, engine, docker):
    engine.run("mana-mail", IMAGE, networks={"stack": ["stalwart"]})
    address = next(iter(engine.named("mana-mail").endpoints.values())).address
    for host in ("mana-mail", "stalwart", address):
        world.connect(url=f"http://{host}:8080", container="mana-mail", docker_host=docker)
        assert world.target._connect(world.reveal), host
    for host in ("10.99.0.1", "192.0.2.7"):
        world.connect(url=f"http://{host}:8080", container="mana-mail", docker_host=docker)
        with pytest.raises(TargetUnreadable, match="unencrypted"):
            world.target._connect(world.reveal)


# ---------------------------------------------------------------------------------------------------------- config.toml
def test_a_database_key_in_the_file_is_named_with_its_line(world, fake, engine, docker):
    run(engine, fake, binds=["stalwart_data:/opt/stalwart"])
    world.connect(container="mana-mail", docker_host=docker)
    fake.config_toml += "\n# mine\n[lookup.default]\nhostname = 'old.mana.how'\n"
    number = len(fake.config_toml.splitlines())
    fake.restart()
    wanted = [Setting("hostname", "mail.mana.how")]
    (problem,) = world.observe(wanted).problems
    assert problem.where == problem.scope == "stalwart/hostname"
    line = f"remove line {number}: `hostname = ...` under [lookup.default] from /opt/stalwart/etc/config.toml"
    assert line in problem.hint
    assert "restart" in problem.hint
    fake.config_toml = fake.config_toml.replace("hostname = 'old.mana.how'\n", "")
    fake.restart()
    world.apply(wanted)
    assert world.plan(wanted).changes == ()


@pytest.fixture
def macro(keys, tmp_path, world):
    path = tmp_path / "key.pem"
    path.write_text(keys["ED"])
    world.secrets["KEY"] = keys["ED"]
    values = {
        "private-key": f"%{{file:{path}}}%",
        "domain": "mana.how",
        "selector": "s1",
        "algorithm": "ed25519-sha256",
    }
    return {f"signature.ed25519-mana.how.{name}": value for name, value in values.items()}


def test_w6_a_key_that_the_file_leads_to_is_the_declared_one(world, fake, engine, docker, macro):
    run(engine, fake, binds=["stalwart_data:/opt/stalwart"])
    world.connect(container="mana-mail", docker_host=docker)
    fake.config_toml += "".join(f"{name} = {value!r}\n" for name, value in macro.items())
    fake.restart()
    key = Signature("mana.how", "s1", "ed25519", public_half("ed25519", world.secrets["KEY"]))
    for wanted in (key, replace(key, private_key=SecretRef("env", "KEY"))):
        plan = world.plan([Domain("mana.how"), wanted])
        assert [item.address for item in plan.changes] == ["domain/mana.how"]
        assert plan.problems == ()


def test_w6_a_macro_in_the_database_signs_nothing_until_the_key_itself_stands_there(world, fake, engine, docker, macro):
    run(engine, fake, binds=["stalwart_data:/opt/stalwart"])
    world.connect(container="mana-mail", docker_host=docker)
    world.store(macro)
    key = Signature("mana.how", "s1", "ed25519", public_half("ed25519", world.secrets["KEY"]))
    wanted = [Domain("mana.how"), replace(key, private_key=SecretRef("env", "KEY"))]
    (problem,) = world.observe(wanted).problems
    assert "it can't sign" in problem.summary
    assert not fake.core.signatures
    assert {item.status for item in world.apply(wanted).values()} == {Status.DONE}
    assert world.plan(wanted).changes == ()
    assert list(fake.core.signatures) == ["ed25519-mana.how"]


def test_without_docker_the_key_is_found_by_reading_back(world, fake):
    fake.config_toml += 'lookup.default.hostname = "old.mana.how"\n'
    fake.restart()
    (outcome,) = world.apply([Setting("hostname", "mail.mana.how")]).values()
    assert outcome.status is Status.FAILED
    assert "the file always wins" in str(outcome.problem)
    assert "`lookup.default.hostname`" in outcome.problem.hint


# ---------------------------------------------------------------------------------------------------------- causes
def container(image, *mounts, volumes=(), labels=None):
    return Container("mana-mail", image, labels or {}, volumes, mounts)


NAMED = Mount("/opt/stalwart-mail", "stalwart_data", anonymous=False)


@pytest.mark.parametrize(
    ("image", "path"),
    [
        ("stalwartlabs/stalwart:v0.15.5", "/opt/stalwart"),
        ("stalwartlabs/stalwart:0.12", "/opt/stalwart"),
        ("stalwartlabs/mail-server:v0.11.8", "/opt/stalwart-mail"),
        ("ghcr.io:5000/stalwartlabs/stalwart:v0.16", "/var/lib/stalwart"),
    ],
)
def test_where_an_image_keeps_its_data_depends_on_its_version(image, path):
    texts = [str(item) for item in causes(container(image))]
    assert any(f"`- stalwart_data:{path}`" in text for text in texts)


def test_the_described_set_up_is_told_with_the_line_to_write():
    lost = Mount("/opt/stalwart", "f" * 64, anonymous=True)
    found = causes(container("stalwartlabs/stalwart:latest", NAMED, lost, volumes=("/opt/stalwart",)))
    texts = [str(item) for item in found]
    assert "- stalwart_data:/opt/stalwart` under" in texts[0]
    assert "in place of `- stalwart_data:/opt/stalwart-mail`" in texts[0]
    assert "keeps nothing" in texts[0]
    assert "write `image: stalwartlabs/stalwart:v0.15.5`" in texts[1]
    assert len(texts) == 2
    assert {item.severity for item in found} == {Severity.WARNING}


def test_volumes_and_versions_are_named_as_the_compose_file_names_them():
    labels = {"com.docker.compose.project": "mana-stack", "org.opencontainers.image.version": "v0.14.1"}
    mount = Mount("/opt/stalwart-mail", "mana-stack_stalwart_data", anonymous=False)
    texts = [str(item) for item in causes(container("stalwartlabs/stalwart", mount, labels=labels))]
    assert "`- stalwart_data:/opt/stalwart` under" in texts[0]
    assert "mana-stack_" not in texts[0]
    assert "`image: stalwartlabs/stalwart:v0.14.1`" in texts[1]


def test_a_volume_beside_a_sound_one_is_told_alone():
    sound = Mount("/opt/stalwart", "stalwart_data", anonymous=False)
    (found,) = causes(container(IMAGE, sound, NAMED, volumes=("/opt/stalwart",)))
    assert "take `- stalwart_data:/opt/stalwart-mail` out" in found.hint


def test_a_sound_set_up_has_no_cause():
    sound = Mount("/opt/stalwart", "stalwart_data", anonymous=False)
    assert causes(container(IMAGE, sound, volumes=("/opt/stalwart",))) == ()
    assert causes(container("stalwartlabs/stalwart@sha256:00", sound, volumes=("/opt/stalwart",))) == ()


def test_what_is_there_is_saved_before_the_mount_is_mended():
    lost = Mount("/opt/stalwart", "f" * 64, anonymous=True)
    described = container(IMAGE, NAMED, lost, volumes=("/opt/stalwart",))
    (found,) = misplaced(described, "rest")
    assert "`docker compose stop mana-mail && docker cp -a mana-mail:/opt/stalwart saved`" in found.hint
    assert found.hint.index("docker cp") < found.hint.index("write `- stalwart_data:/opt/stalwart`")
    assert "docker cp" not in misplaced(described, "rest", lost=True)[0].hint


def test_parts_of_the_data_may_have_a_volume_each():
    etc, data = (Mount(f"/opt/stalwart/{part}", f"/srv/{part}", anonymous=False) for part in ("etc", "data"))
    assert misplaced(container(IMAGE, etc, data, volumes=("/opt/stalwart",)), "rest") == ()
    (found,) = misplaced(container(IMAGE, etc, volumes=("/opt/stalwart",)), "rest")
    assert "keeps data in /opt/stalwart/data" in found.summary


def test_an_image_that_does_not_tell_its_version_is_not_suspected():
    sound = Mount("/opt/stalwart", "stalwart_data", anonymous=False)
    assert misplaced(container("mail:mine", sound), "rest") == ()
    assert misplaced(container("mail:mine"), "rest") != ()


DATABASE = ["stalwart_etc:/etc/stalwart"]


@pytest.mark.parametrize(
    ("files", "binds", "told"),
    [
        ({"/etc/stalwart/config.json"}, DATABASE, False),  # it names a database elsewhere
        ({"/etc/stalwart/config.json", "/var/lib/stalwart"}, DATABASE, True),
        (set(), DATABASE, True),  # bootstrap mode: nothing is there yet, and will be
        ({"/etc/stalwart/config.json"}, [], True),
        ({"/etc/stalwart/config.json", "/var/lib/stalwart"}, [*DATABASE, "data:/var/lib/stalwart"], False),
    ],
)
def test_a_store_elsewhere_needs_no_volume(engine, docker, files, binds, told):
    image = "stalwartlabs/stalwart:v0.16.18"
    engine.add_image(image, Volumes={"/etc/stalwart": {}, "/var/lib/stalwart": {}})
    engine.files = lambda _, path: b"{}" if path in files else None
    engine.run("mana-mail", image, binds=binds)
    found = Docker("mana-mail", docker).examine()
    assert bool(misplaced(found, "jmap")) is told


def test_the_version_is_in_the_tag_or_the_label():
    assert version(container("x:v0.15.5")) == (0, 15)
    assert version(container("x:latest", labels={"org.opencontainers.image.version": "v0.16.1"})) == (0, 16)
    assert version(container("x")) is None


def test_a_lost_server_shows_its_cause(world, fake, engine, docker, wanted):
    engine.add_image("stalwartlabs/stalwart:latest", Volumes={"/opt/stalwart": {}})
    engine.run("mana-mail", "stalwartlabs/stalwart:latest", binds=["stalwart_data:/opt/stalwart-mail"])
    world.connect(container="mana-mail", docker_host=docker)
    observation = world.observe(wanted)
    assert observation.lost
    assert "whatever recreates the container loses it" in str(observation.cause[0])


def test_inspecting_reads_names_networks_and_ports(engine, docker):
    engine.run("mana-mail", IMAGE, networks={"stack": ["stalwart"]}, ports={"587/tcp": ("0.0.0.0", 1587)})
    found = Docker("mana-mail", docker).inspect()
    assert found.ports == {587: ("127.0.0.1", 1587)}
    assert {"mana-mail", "stalwart"} <= found.aliases
    assert found.local


def test_a_container_without_a_config_file_is_fine(engine, docker):
    engine.run("mana-mail", IMAGE)
    container, file = Docker("mana-mail", docker).look()
    assert container.image == IMAGE
    assert file is None


@pytest.mark.parametrize("path", ["/etc/stalwart/config.json", "/var/lib/stalwart"])
def test_a_file_is_seen_although_the_engine_compresses_archives_for_who_takes_it(engine, docker, path):
    engine.add_image(IMAGE)
    engine.files = lambda _, asked: b"{}" if asked == path else None
    engine.run("mana-mail", IMAGE)
    assert Docker("mana-mail", docker).holds(path)
    assert not Docker("mana-mail", docker).holds("/nowhere")
