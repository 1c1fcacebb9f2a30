"""The fake of Brevo's API for sender domains, through real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from reconciler.simulator.brevo import Brevo
from reconciler.simulator.cloudflare import Cloudflare
from reconciler.simulator.dns import NameServers
from reconciler.simulator.wire import Server

KEY = "xkeysib-test"
PATH = "/v3/senders/domains"


@dataclass
class World:
    cloudflare: Cloudflare
    dns: NameServers
    fake: Brevo
    http: httpx.Client

    def get(self, path: str = "", key: str | None = KEY) -> httpx.Response:
        return self.http.get(f"{PATH}{path}", headers={"api-key": key} if key else {})

    def records(self, domain: str = "oak.example") -> dict[str, Any]:
        return self.get(f"/{domain}").json()["dns_records"]

    def publish(self, *names: str, domain: str = "oak.example") -> None:
        """Publish records as the API wants them."""
        for name in names:
            record = self.records(domain)[name]
            host = record["host_name"].rstrip(".") or "@"
            self.cloudflare.add("oak.example", type=record["type"], name=host, content=record["value"])

    def state(self, domain: str = "oak.example") -> tuple[bool, bool]:
        found = self.get(f"/{domain}").json()
        return found["verified"], found["authenticated"]


@pytest.fixture
def world() -> Iterator[World]:
    cloudflare = Cloudflare(["oak.example", "elm.example"])
    with NameServers(cloudflare.shown) as names:
        fake = Brevo(["oak.example", "elm.example"], names.values, keys=[KEY])
        with Server(fake) as server, httpx.Client(base_url=server.url, trust_env=False, verify=False) as http:
            yield World(cloudflare, names, fake, http)


def test_who_has_no_key_or_another_one_is_refused(world: World) -> None:
    for path in ("", "/oak.example", "/unknown.example"):
        refused = world.get(path, "xkeysib-other")
        assert (refused.status_code, refused.json()) == (401, {"message": "Key not found", "code": "unauthorized"})
        assert (world.get(path, None).status_code, world.get(path, None).json()["code"]) == (401, "unauthorized")


def test_a_domain_that_is_not_set_up_is_not_found(world: World) -> None:
    reply = world.get("/unknown.example")
    assert (reply.status_code, reply.json()["code"]) == (404, "document_not_found")
    assert world.get("/mail.oak.example").status_code == 404
    assert world.http.get("/v3/account", headers={"api-key": KEY}).status_code == 404
    assert world.http.put(f"{PATH}/oak.example", headers={"api-key": KEY}).status_code == 405


def test_a_new_account_has_two_cnames(world: World) -> None:
    found = world.get("/oak.example").json()
    assert found["domain"] == "oak.example"
    records = found["dns_records"]
    assert set(records) == {"dkim1Record", "dkim2Record", "brevo_code", "dmarc_record"}
    assert records["dkim1Record"] == {
        "type": "CNAME",
        "host_name": "brevo1._domainkey",
        "value": "b1.oak-example.dkim.brevo.com",
        "status": False,
    }
    assert (records["brevo_code"]["type"], records["brevo_code"]["host_name"]) == ("TXT", "@")
    assert records["brevo_code"]["value"].startswith("brevo-code:")
    assert records["brevo_code"]["value"] != world.records("elm.example")["brevo_code"]["value"]
    assert records["dmarc_record"]["host_name"] == "_dmarc"


def test_an_older_account_has_one_text(world: World) -> None:
    world.fake.form = "txt"
    records = world.records()
    assert set(records) == {"dkim_record", "brevo_code", "dmarc_record"}
    assert (records["dkim_record"]["type"], records["dkim_record"]["host_name"]) == ("TXT", "mail._domainkey.")
    assert records["dkim_record"]["value"].startswith("k=rsa;p=MI")
    assert records["brevo_code"]["host_name"] == ""
    world.publish("dkim_record", "brevo_code", "dmarc_record")
    assert world.state() == (True, True)


def test_names_of_a_domain_below_are_relative_to_the_registered_one(world: World) -> None:
    world.fake.add("mail.oak.example")
    hosts = {name: record["host_name"] for name, record in world.records("mail.oak.example").items()}
    assert hosts == {
        "dkim1Record": "brevo1._domainkey.mail",
        "dkim2Record": "brevo2._domainkey.mail",
        "brevo_code": "mail",
        "dmarc_record": "_dmarc.mail",
    }
    world.publish("dkim1Record", "dkim2Record", "brevo_code", "dmarc_record", domain="mail.oak.example")
    assert (world.state("mail.oak.example"), world.state()) == ((True, True), (False, False))


def test_the_state_follows_what_the_name_servers_show(world: World) -> None:
    assert world.state() == (False, False)
    world.publish("brevo_code")
    assert world.state() == (True, False)
    world.dns.hold(1)
    world.publish("dkim1Record", "dkim2Record")
    world.cloudflare.add("oak.example", type="TXT", name="_dmarc", content="v=DMARC1; p=reject")
    assert world.state() == (True, False)
    world.dns.release(1)
    assert world.state() == (True, True)
    listed = {item["domain_name"]: item["authenticated"] for item in world.get().json()["domains"]}
    assert listed == {"oak.example": True, "elm.example": False}
    assert world.get().json()["count"] == 2
    for item in world.cloudflare.records("oak.example"):
        if item["type"] == "CNAME":
            world.cloudflare.edit("oak.example", item["id"], content="elsewhere.example")
    assert {name: item["status"] for name, item in world.records().items()} == {
        "dkim1Record": False,
        "dkim2Record": False,
        "brevo_code": True,
        "dmarc_record": True,
    }
    world.dns.stop()
    assert world.state() == (False, False)
