"""The stage with the newer generation: what a recreated container finds, and what its log says."""

import base64
import json
import re
import socket
import urllib.error
import urllib.request

import pytest

from reconciler.simulator.stage import Project, Stage

COMPOSE = """
services:
  mail:
    image: stalwartlabs/stalwart:v0.16.18
    container_name: mail
    restart: always
    environment: [ENVIRONMENT]
    ports: ["1587:587"]
    volumes: [VOLUMES]
volumes: {etc: {}, data: {}}
"""
BOTH = '"etc:/etc/stalwart", "data:/var/lib/stalwart"'
ADMIN = '"STALWART_RECOVERY_ADMIN=admin:from-the-container"'


@pytest.fixture
def stage_of(tmp_path):
    stages = []

    def make(volumes, environment=ADMIN):
        text = COMPOSE.replace("VOLUMES", volumes).replace("ENVIRONMENT", environment)
        (tmp_path / "compose.yaml").write_text(text)
        (tmp_path / ".env").write_text("")
        stage = Stage(["oak.test"], Project(tmp_path / "compose.yaml", tmp_path / ".env"), generation="jmap")
        stages.append(stage.start())
        return stage

    yield make
    for stage in stages:
        stage.stop()


def call(stage, *calls, auth="admin:from-the-container"):
    body = json.dumps({"using": [], "methodCalls": [[name, given, str(at)] for at, (name, given) in enumerate(calls)]})
    headers = {"Authorization": "Basic " + base64.b64encode(auth.encode()).decode(), "Content-Type": "application/json"}
    request = urllib.request.Request(f"{stage.stalwart_server.url}/jmap", body.encode(), headers)
    with urllib.request.urlopen(request) as answer:
        return [response[1] for response in json.load(answer)["methodResponses"]]


def resource(stage):
    with urllib.request.urlopen(f"{stage.stalwart_server.url}/.well-known/oauth-protected-resource") as answer:
        return json.load(answer)["resource"]


def log(stage):
    with urllib.request.urlopen(f"{stage.docker_server.url}/containers/mail/logs?stdout=1&stderr=1") as answer:
        return answer.read().decode(errors="replace")


def engine(stage, path):
    request = urllib.request.Request(f"{stage.docker_server.url}{path}", b"", method="POST")
    with urllib.request.urlopen(request):
        pass


def bootstrap(stage, auth="admin:from-the-container"):
    wanted = {"serverHostname": "mail.oak.test", "defaultDomain": "oak.test"}
    wanted |= {"requestTlsCertificate": False, "generateDkimKeys": False}
    [answer] = call(stage, ("x:Bootstrap/set", {"update": {"singleton": wanted}}), auth=auth)
    engine(stage, "/containers/mail/restart")
    return answer["updated"]["singleton"]


def domains(stage, **options):
    return len(call(stage, ("x:Domain/query", {}), **options)[0]["ids"])


def test_new_volumes_are_bootstrapped_and_kept(stage_of):
    stage = stage_of(BOTH)
    assert resource(stage) == ""
    made = bootstrap(stage)
    assert resource(stage) == "https://mail.oak.test"
    assert domains(stage, auth=f"{made['username']}:{made['secret']}") == 1
    stage.recreate_mail_server()
    assert resource(stage) == "https://mail.oak.test"
    assert domains(stage) == 1


def test_without_a_data_volume_only_the_data_are_lost(stage_of):
    stage = stage_of('"etc:/etc/stalwart"')
    bootstrap(stage)
    assert domains(stage) == 1
    stage.recreate_mail_server()
    assert resource(stage).startswith("https://")
    assert domains(stage) == 0


def test_volumes_of_the_older_generation_keep_nothing(stage_of):
    stage = stage_of('"data:/opt/stalwart-mail"')
    bootstrap(stage)
    stage.recreate_mail_server()
    assert resource(stage) == ""


def test_without_config_json_data_are_not_set_up_anew(stage_of):
    stage = stage_of('"data:/var/lib/stalwart"')
    bootstrap(stage)
    stage.recreate_mail_server()
    wanted = {"serverHostname": "mail.oak.test", "defaultDomain": "oak.test"}
    [answer] = call(stage, ("x:Bootstrap/set", {"update": {"singleton": wanted}}))
    error = answer["notUpdated"]["singleton"]
    assert (error["properties"], error["description"]) == (
        ["dataStore"],
        "The selected data store has already been initialized.",
    )


def test_config_json_of_the_host_is_there_from_the_start(stage_of, tmp_path):
    (tmp_path / "config.json").write_text('{"@type": "RocksDb", "path": "/var/lib/stalwart/"}')
    stage = stage_of('"./config.json:/etc/stalwart/config.json:ro", "data:/var/lib/stalwart"')
    assert resource(stage).startswith("https://")
    assert domains(stage) == 0


def test_a_one_time_password_is_in_the_log_and_new_at_each_start(stage_of):
    stage = stage_of(BOTH, environment="")
    seen = re.findall(r"password: (\w{16})\n", log(stage))
    assert len(seen) == 1
    engine(stage, "/containers/mail/restart")
    first, second = re.findall(r"password: (\w{16})\n", log(stage))
    assert first != second
    with pytest.raises(urllib.error.HTTPError, match="401"):
        bootstrap(stage, auth=f"admin:{first}")
    made = bootstrap(stage, auth=f"admin:{second}")
    assert made["username"] == "admin@oak.test"
    assert domains(stage, auth=f"{made['username']}:{made['secret']}") == 1


def test_the_submission_port_has_its_route_before_it_is_open(stage_of):
    stage = stage_of(BOTH)
    bootstrap(stage)
    routes = dict(item.split("=") for item in stage.environment["RECONCILER_ROUTES"].split())
    host, _, port = routes["stalwart:587"].partition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))
    listener = {"name": "submission", "protocol": "smtp", "bind": {"[::]:587": True}}
    call(stage, ("x:NetworkListener/set", {"create": {"l": listener}}))
    engine(stage, "/containers/mail/restart")
    with socket.create_connection((host, int(port))) as connection:
        assert connection.recv(3) == b"220"
    assert stage.docker.named("mail").host["PortBindings"]["587/tcp"][0]["HostPort"] == port


def test_a_removed_data_volume_leaves_config_json(stage_of):
    stage = stage_of(BOTH)
    bootstrap(stage)
    stage.recreate_mail_server(lost="/var/lib/stalwart")
    assert resource(stage).startswith("https://")
    assert domains(stage) == 0


def test_a_tag_that_moves_finds_none_of_the_older_data(tmp_path):
    text = (
        COMPOSE.replace("v0.16.18", "latest").replace("VOLUMES", '"data:/opt/stalwart"').replace("ENVIRONMENT", ADMIN)
    )
    (tmp_path / "compose.yaml").write_text(text)
    (tmp_path / ".env").write_text("")
    with Stage(["oak.example"], Project(tmp_path / "compose.yaml", tmp_path / ".env")) as stage:
        assert (stage.docker.named("mail").running, 587 in stage.stalwart.ports) == (True, True)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            resource(stage)
        stage.upgrade()
        assert (stage.docker.named("mail").running, resource(stage)) == (True, "")
        assert set(stage.stalwart.ports) == {8080}  # no mail service
        bootstrap(stage)
        assert domains(stage) == 1
