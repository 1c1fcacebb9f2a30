"""`reconciler dkim list` as a user calls it, against name servers that really answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.resources import Signature
from reconciler.simulator.dns import NameServers

from .conftest import Place, Run

ED = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
OTHER = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
DKIM = f"""\
dkim:
  mana.how:
    - {{selector: ed202611, algorithm: ed25519, since: 2026-11-10, public_key: {ED}, private_key: {{file: ../k.pem}}}}
"""
PEM = """\
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
"""  # the public example of RFC 8463 appendix A.2


class Zone:
    """What the name servers show."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def put(self, content: str, name: str = "ed202611._domainkey.mana.how", kind: str = "TXT") -> None:
        record = {"name": name, "type": kind, "content": content, "ttl": 1, "proxied": False}
        self.records = [*self.records, record | {"modified_on": f"2026-11-22T00:00:{len(self.records):02}Z"}]

    def shown(self) -> dict[str, list[dict[str, Any]]]:
        return {"mana.how": self.records}


@pytest.fixture
def zone() -> Zone:
    return Zone()


@pytest.fixture
def servers(place: Place, zone: Zone, monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServers]:
    place.write(DKIM, "dkim.yaml")
    (place.root / "k.pem").write_text(PEM)
    with NameServers(zone.shown) as servers:
        monkeypatch.setenv("RECONCILER_NAMESERVERS", " ".join(servers.servers))
        monkeypatch.setenv("RECONCILER_TODAY", "2026-11-22")
        monkeypatch.setenv("RECONCILER_DRY_RUN", "no")
        yield servers


def well(place: Place, zone: Zone) -> None:
    zone.put(f'"v=DKIM1; k=ed25519; p={ED}"')
    place.world.put(Signature("mana.how", "ed202611", "ed25519", ED))


def test_all_three_agree(run: Run, place: Place, zone: Zone, servers: NameServers) -> None:
    well(place, zone)
    result = run("dkim", "list")
    assert result.exit_code == 0
    assert "mana.how  ed202611  ed25519    active  12 d  signs   2/2  yes" in result.stdout
    assert "1 key: server and DNS agree about 1." in result.stdout
    assert "→" not in result.stdout


def test_findings_are_no_failure(run: Run, place: Place, zone: Zone, servers: NameServers) -> None:
    place.world.put(Signature("mana.how", "ed202611", "ed25519", OTHER))
    zone.put(f"v=DKIM1; k=ed25519; p={ED}")
    result = run("dkim", "list", "mana.how")
    assert result.exit_code == 0
    assert "another key  2/2  no" in result.stdout
    assert "✗ dkim/mana.how/ed202611: the server signs with another key under this selector" in result.stdout


def test_one_name_server_lags(run: Run, place: Place, zone: Zone, servers: NameServers) -> None:
    servers.hold(1)
    well(place, zone)
    result = run("dkim", "list")
    assert result.exit_code == 0
    assert "1/2 in part" in result.stdout
    assert f"{servers.servers[1]} does not show it yet" in result.stdout


def test_a_name_server_that_is_away_ends_with_1(run: Run, place: Place, zone: Zone, servers: NameServers) -> None:
    well(place, zone)
    servers.stop(1)
    result = run("dkim", "list")
    assert result.exit_code == 1
    assert "1/2 not read  can't be told" in result.stdout
    assert f"the name server {servers.servers[1]} could not be asked" in result.stdout


def test_a_server_that_is_away_hides_nothing_of_dns(run: Run, place: Place, zone: Zone, servers: NameServers) -> None:
    place.world.turn(unread=["stalwart"])
    zone.put(f"v=DKIM1; k=ed25519; p={OTHER}")
    result = run("dkim", "list")
    assert result.exit_code == 1
    assert "stalwart: does not answer" in result.stdout
    assert "another key is published than the declared" in result.stdout
    assert "can't be told" in result.stdout


def test_without_stalwart_dns_is_asked_and_no_private_key_read(run: Run, place: Place, servers: NameServers) -> None:
    (place.root / "k.pem").unlink()
    result = run("dkim", "list", "--target", "cloudflare")
    assert result.exit_code == 0
    assert "Stalwart: was not asked: it is no target here" in result.stdout
    assert "is not published" in result.stdout
    assert "k.pem" not in result.stdout


def test_a_private_key_that_is_missing_is_named(run: Run, place: Place, zone: Zone, servers: NameServers) -> None:
    well(place, zone)
    (place.root / "k.pem").unlink()
    result = run("dkim", "list")
    assert result.exit_code == 0
    assert "the private key can't be read: {file: ../k.pem}" in result.stdout
    assert "2/2  yes" in result.stdout


def test_a_private_key_of_another_is_told_and_never_shown(
    run: Run, place: Place, zone: Zone, servers: NameServers
) -> None:
    place.write(DKIM.replace(ED, OTHER), "dkim.yaml")
    for output in ("text", "json", "markdown"):
        result = run("dkim", "list", "--output", output)
        assert "is not the private half of " in result.stdout
        assert PEM.splitlines()[1] not in result.output


def test_keys_that_only_the_server_has_are_listed(run: Run, place: Place, zone: Zone, servers: NameServers) -> None:
    well(place, zone)
    place.world.put(Signature("mana.how", "old", "ed25519", OTHER))
    result = run("dkim", "list")
    assert "mana.how  old       ed25519    not declared" in result.stdout
    assert "removed: [dkim/mana.how/old]" in result.stdout


def test_a_cname_is_followed_and_told(run: Run, place: Place, zone: Zone, servers: NameServers) -> None:
    place.world.put(Signature("mana.how", "ed202611", "ed25519", ED))
    zone.put("keys.mana.how", kind="CNAME")
    zone.put(f"v=DKIM1; k=ed25519; p={ED}", name="keys.mana.how")
    result = run("dkim", "list")
    assert "a CNAME leads to keys.mana.how, which shows the key" in result.stdout
    assert "2/2 CNAME  yes" in result.stdout


def test_json_is_a_document(run: Run, place: Place, zone: Zone, servers: NameServers) -> None:
    well(place, zone)
    servers.stop(0)
    result = run("dkim", "list", "--output", "json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert (document["format_version"], document["complete"]) == ("1.0", False)
    shown = {item["server"]: item["shows"] for item in document["keys"][0]["nameservers"]}
    assert shown == {servers.servers[0]: None, servers.servers[1]: True}


def test_markdown_is_a_page(run: Run, place: Place, zone: Zone, servers: NameServers) -> None:
    well(place, zone)
    assert "| `mana.how` | `ed202611` |" in run("dkim", "list", "--output", "markdown").stdout


@pytest.mark.parametrize("name", ["else.example", "not a name"])
def test_a_domain_without_keys_is_an_error(run: Run, place: Place, servers: NameServers, name: str) -> None:
    result = run("dkim", "list", name)
    assert result.exit_code == 1
    assert f"{name}: " in result.stderr


def test_nothing_declared(run: Run, place: Place, servers: NameServers) -> None:
    (place.state / "dkim.yaml").unlink()
    result = run("dkim", "list")
    assert result.exit_code == 0
    assert "No DKIM key is declared, and the server has none." in result.stdout
