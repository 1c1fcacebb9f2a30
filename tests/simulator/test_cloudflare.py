"""The fake of Cloudflare's API, rule by rule, through real HTTP."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import cloudflare
import httpx
import pytest

from reconciler.simulator.cloudflare import Cloudflare, Token
from reconciler.simulator.wire import Server

ZONE = "mana.how"
TIMES = ("created_on", "modified_on", "comment_modified_on", "tags_modified_on")
A = {"type": "A", "name": "mail", "content": "192.0.2.1", "ttl": 300}
TXT = {"type": "TXT", "name": "@", "content": '"v=spf1 -all"', "ttl": 1}
MX = {"type": "MX", "name": "@", "content": "mail.mana.how", "priority": 10, "ttl": 300}


@dataclass
class Api:
    fake: Cloudflare
    server: ClassVar[Server]
    http: ClassVar[httpx.Client]

    @property
    def records(self):
        return f"zones/{self.fake.zone_id(ZONE)}/dns_records"

    def post(self, **record):
        return self.http.post(self.records, json=record)

    def made(self, **record):
        """The record as it comes back."""
        answer = self.post(**record)
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]

    def batch(self, **body):
        return self.http.post(f"{self.records}/batch", json=body)

    def list(self, **query):
        return self.http.get(self.records, params=query).json()


@pytest.fixture(scope="module", autouse=True)
def wire():
    """One server and one connection for all tests: each test puts a fake of its own behind them."""
    with Server(Cloudflare([])) as server, httpx.Client(base_url=f"{server.url}/client/v4/", trust_env=False) as http:
        Api.server, Api.http = server, http
        yield


@contextmanager
def serving(zones=(ZONE,), token="demo", **options):
    fake = Api.server.fake = Cloudflare(zones, **options)
    Api.http.headers["authorization"] = f"Bearer {token}"
    yield Api(fake)
    assert Api.server.crashes == []


@pytest.fixture
def api():
    with serving() as api:
        yield api


@pytest.fixture
def paid():
    with serving(plan="paid") as api:
        yield api


def refused(answer, code, *, chain=0, status=400):
    """A refusal with the envelope that the API gives it."""
    body = answer.json()
    assert (answer.status_code, body["success"], body["result"], body["messages"]) == (status, False, None, []), body
    error = body["errors"][0]
    assert (error["code"], error.get("error_chain", [{"code": 0}])[0]["code"]) == (code, chain), body
    return error


def invalid(answer, chain):
    return refused(answer, 1004, chain=chain)["error_chain"][0]["message"]


def without(record, *names):
    return {key: value for key, value in record.items() if key not in names}


class TestEnvelope:
    def test_of_a_record(self, api):
        answer = api.post(**A).json()
        assert without(answer, "result") == {"success": True, "errors": [], "messages": []}
        assert without(answer["result"], "id", *TIMES) == {
            "name": "mail.mana.how",
            "type": "A",
            "content": "192.0.2.1",
            "proxiable": True,
            "proxied": False,
            "ttl": 300,
            "comment": None,
            "tags": [],
            "settings": {},
            "meta": {},
        }
        assert len(answer["result"]["id"]) == 32
        assert "comment_modified_on" not in answer["result"]

    def test_of_a_listing(self, api):
        api.made(**A)
        answer = api.list()
        assert answer["result_info"] == {"page": 1, "per_page": 100, "count": 1, "total_count": 1, "total_pages": 1}
        assert answer["result"] == api.fake.records(ZONE)

    def test_useful_text_is_in_the_chain(self, api):
        error = refused(api.post(**A | {"ttl": 59}), 1004, chain=9021)
        assert error["message"] == "DNS Validation Error"

    def test_cause_without_its_wrapping(self):
        with serving(wrap_errors=False) as api:
            refused(api.post(**A | {"ttl": 59}), 9021)

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff"])
    def test_malformed_body(self, api, body):
        refused(api.http.post(api.records, content=body), 9207)

    @pytest.mark.parametrize("field", ["type", "ttl", "proxied", "comment", "tags", "settings", "data"])
    def test_malformed_field(self, api, field):
        refused(api.post(**A | {field: b"x".hex() if field not in ("type", "comment") else 5}), 9207)

    def test_no_route(self, api):
        refused(api.http.get("accounts"), 7000, status=404)
        refused(api.http.get(f"{api.server.url}/zones"), 7000, status=404)
        refused(api.http.delete(api.records), 10405, status=405)


class TestAuthentication:
    @pytest.mark.parametrize("value", ["Bearer", "Bearer a b", "demo", "Bearer x\ty", "Bearer {env: TOKEN}"])
    def test_malformed_header(self, api, value):
        refused(api.http.get("zones", headers={"authorization": value}), 6003, chain=6111)

    def test_token_sent_as_key(self, api):
        answer = api.http.get("zones", headers={"x-auth-key": "demo", "x-auth-email": "a@b"})
        assert [item["code"] for item in refused(answer, 6003, chain=6102)["error_chain"]] == [6102, 6103]

    def test_no_credentials(self, api):
        refused(httpx.get(f"{api.server.url}/client/v4/zones", trust_env=False), 9106)

    def test_unknown_token(self):
        with serving(tokens={"good": Token()}, token="bad") as api:
            assert refused(api.http.get("zones"), 9109, status=403)["message"] == "Invalid access token"

    def test_token_of_another_address(self):
        with serving(tokens={"demo": Token(elsewhere=True)}) as api:
            assert "127.0.0.1" in refused(api.http.get("zones"), 9109, status=403)["message"]

    def test_read_only_token(self):
        with serving(tokens={"demo": Token(dns="read")}) as api:
            record_id = api.fake.add(ZONE, **A)
            assert api.list()["result"][0]["id"] == record_id
            before = api.fake.records(ZONE)
            one = f"{api.records}/{record_id}"
            refused(api.post(**TXT), 10000, status=403)
            refused(api.batch(deletes=[{"id": record_id}]), 10000, status=403)
            refused(api.http.patch(one, json={"ttl": 60}), 10000, status=403)
            refused(api.http.put(one, json=A), 10000, status=403)
            refused(api.http.delete(one), 10000, status=403)
            assert api.fake.records(ZONE) == before

    def test_token_without_dns(self):
        with serving(tokens={"demo": Token(dns="none")}) as api:
            assert api.http.get("zones").json()["result_info"]["count"] == 1
            refused(api.http.get(api.records), 10000, status=403)

    def test_token_of_another_zone(self):
        with serving(["mana.how", "other.example"], tokens={"demo": Token(zones=frozenset({"other.example"}))}) as api:
            assert [zone["name"] for zone in api.http.get("zones").json()["result"]] == ["other.example"]
            refused(api.http.get(api.records), 10000, status=403)

    def test_verify_does_not_tell_what_for(self):
        with serving(tokens={"demo": Token(dns="none")}) as api:
            answer = api.http.get("user/tokens/verify").json()
            assert (answer["success"], answer["result"]["status"]) == (True, "active")
            assert answer["messages"][0]["code"] == 10000
            assert set(answer["result"]) == {"id", "status"}

    def test_expired_token(self):
        with serving(tokens={"demo": Token(status="expired")}) as api:
            assert api.http.get("user/tokens/verify").json()["result"]["status"] == "expired"
            refused(api.http.get("zones"), 9109, status=403)


class TestZones:
    def test_pages(self):
        names = [f"zone{number}.example" for number in range(60)]
        with serving(names) as api:
            pages = [api.http.get("zones", params=query).json() for query in ({}, {"per_page": 99}, {"page": 3})]
            assert [len(page["result"]) for page in pages] == [20, 50, 20]
            assert pages[1]["result_info"]["per_page"] == 50
            assert pages[2]["result_info"]["total_pages"] == 3

    def test_by_name_and_id(self, api):
        zone = api.http.get("zones", params={"name": ZONE}).json()["result"][0]
        assert (zone["name"], zone["plan"]["legacy_id"]) == (ZONE, "free")
        assert api.http.get(f"zones/{zone['id']}").json()["result"] == zone
        assert api.http.get("zones", params={"name": "other.example"}).json()["result"] == []

    @pytest.mark.parametrize("zone", [ZONE, "", "0123"])
    def test_name_or_nothing_as_id(self, api, zone):
        refused(api.http.get(f"zones/{zone}/dns_records"), 7003, status=404)

    def test_unknown_id(self, api):
        refused(api.http.get(f"zones/{'0' * 32}/dns_records"), 10000, status=403)


class TestListing:
    @pytest.mark.parametrize("count", [99, 100, 101, 250])
    def test_default_page_is_100(self, count):
        with serving(quota=1000) as api:
            for number in range(count):
                api.fake.add(ZONE, **A | {"name": f"n{number}"})
            pages = [api.list(page=page) for page in range(1, -(-count // 100) + 2)]
            assert pages[-1]["result"] == []  # past the end is no error
            assert {page["result_info"]["total_count"] for page in pages} == {count}
            assert pages[0]["result_info"]["total_pages"] == -(-count // 100)
            assert len({record["id"] for page in pages for record in page["result"]}) == count

    def test_page_is_cut_to_the_most(self):
        with serving(per_page_max=5) as api:
            for number in range(8):
                api.fake.add(ZONE, **A | {"name": f"n{number}"})
            answer = api.list(per_page=100)
            assert answer["result_info"] == {"page": 1, "per_page": 5, "count": 5, "total_count": 8, "total_pages": 2}

    def test_bad_page(self, api):
        refused(api.http.get(api.records, params={"page": "x"}), 1000)
        refused(api.http.get(api.records, params={"per_page": "0"}), 1000)

    def test_order(self, api):
        for number, ttl in enumerate((300, 60, 900)):
            api.fake.add(ZONE, **A | {"name": f"n{number}", "ttl": ttl})
        assert [record["ttl"] for record in api.list(order="ttl")["result"]] == [60, 300, 900]
        assert [record["ttl"] for record in api.list(order="ttl", direction="desc")["result"]] == [900, 300, 60]

    @pytest.mark.parametrize(
        ("query", "names"),
        [
            ({"type": "TXT"}, ["mana.how"]),
            ({"name": "MAIL.mana.how"}, ["mail.mana.how"]),
            ({"name.startswith": "www"}, ["www.mana.how"]),
            ({"content.contains": "SPF1"}, ["mana.how"]),
            ({"comment.endswith": "Reconciler:mana"}, ["mail.mana.how"]),
            ({"comment.present": "true"}, ["mail.mana.how"]),
            ({"comment.absent": "true"}, ["mana.how", "www.mana.how"]),
            ({"proxied": "true"}, ["www.mana.how"]),
            ({"type": "A", "proxied": "false"}, ["mail.mana.how"]),
            ({"type": "TXT", "proxied": "true", "match": "any"}, ["mana.how", "www.mana.how"]),
            ({"search": "spf"}, ["mana.how"]),
            ({"unknown": "x"}, ["mail.mana.how", "mana.how", "www.mana.how"]),
        ],
    )
    def test_filters(self, api, query, names):
        api.fake.add(ZONE, **A, comment="the host reconciler:mana")
        api.fake.add(ZONE, **TXT)
        api.fake.add(ZONE, type="A", name="www", content="8.8.8.8", proxied=True)
        answer = api.list(**query)
        assert sorted(record["name"] for record in answer["result"]) == names
        assert answer["result_info"]["total_count"] == len(names)

    def test_tag_filters(self, paid):
        paid.made(**A, tags=["team:mail"])
        assert [paid.list(**{"tag.present": name})["result_info"]["count"] for name in ("Team", "x")] == [1, 0]
        assert paid.list(**{"tag.exact": "team:MAIL"})["result_info"]["count"] == 1
        assert paid.list(**{"tag.absent": "team"})["result_info"]["count"] == 0


class TestNames:
    @pytest.mark.parametrize(
        ("sent", "stored"),
        [
            ("@", "mana.how"),
            ("mana.how", "mana.how"),
            ("Mana.How.", "mana.how"),
            ("sub", "sub.mana.how"),
            ("SUB.mana.how", "sub.mana.how"),
            ("*", "*.mana.how"),
            ("_dmarc", "_dmarc.mana.how"),
            ("bücher", "xn--bcher-kva.mana.how"),
            ("XN--BCHER-KVA", "xn--bcher-kva.mana.how"),
            ("日本", "xn--wgv71a.mana.how"),
            ("other.example", "other.example.mana.how"),
        ],
    )
    def test_come_back_whole(self, api, sent, stored):
        assert api.made(**A | {"name": sent})["name"] == stored

    @pytest.mark.parametrize("name", ["", "a..b", "a!", "a b", "x" * 64, "a.*", "☃.-", None, 5])
    def test_invalid(self, api, name):
        invalid(api.post(**A | {"name": name}), 9000)

    @pytest.mark.parametrize("kind", ["CNAME", "MX", "NS", "PTR"])
    def test_targets_lose_their_dot(self, api, kind):
        sent = {"type": kind, "name": "x", "content": "Mail.BÜCHER.example.", "ttl": 1, "priority": 0}
        assert api.made(**sent)["content"] == "mail.xn--bcher-kva.example"

    def test_target_at_is_the_zone(self, api):
        assert api.made(type="CNAME", name="www", content="@", ttl=1)["content"] == ZONE


class TestContent:
    def test_addresses(self, api):
        assert api.made(type="AAAA", name="x", content="2001:DB8:0::1", ttl=1)["content"] == "2001:db8::1"
        for content in ("192.0.2.256", 5, None):
            invalid(api.post(**A | {"content": content}), 9005)
        invalid(api.post(**A | {"type": "AAAA"}), 9006)

    def test_hosts(self, api):
        invalid(api.post(type="CNAME", name="x", content=".", ttl=1), 9007)
        invalid(api.post(type="CNAME", name="x", content="x.mana.how.", ttl=1), 9039)
        invalid(api.post(**MX | {"content": "a b"}), 9009)

    def test_null_mx_needs_its_priority(self, api):
        null = {"type": "MX", "name": "@", "content": ".", "ttl": 1}
        refused(api.post(**null), 1004, chain=1000)
        made = api.made(**null, priority=0)
        assert (made["content"], made["priority"]) == (".", 0)

    def test_openpgpkey(self, api):
        assert api.made(type="OPENPGPKEY", name="x", content="mQENBF==", ttl=1)["content"] == "mQENBF=="
        invalid(api.post(type="OPENPGPKEY", name="x", content="?", ttl=1), 1000)

    @pytest.mark.parametrize("kind", ["SPF", "ALIAS", "SOA", "", None])
    def test_unserved_types(self, api, kind):
        refused(api.post(**TXT | {"type": kind}), 1004, chain=1000)


DATA = [
    ("CAA", {"flags": 0, "tag": "issue", "value": "ca.example; accounturi=x"}, '0 issue "ca.example; accounturi=x"'),
    ("CERT", {"type": 1, "key_tag": 2, "algorithm": 3, "certificate": "AQID"}, "1 2 3 AQID"),
    ("DNSKEY", {"flags": 257, "protocol": 3, "algorithm": 13, "public_key": "AQID"}, "257 3 13 AQID"),
    ("HTTPS", {"priority": 1, "target": ".", "value": 'alpn="h3,h2"'}, '1 . alpn="h3,h2"'),
    (
        "LOC",
        {
            "lat_degrees": 37,
            "lat_minutes": 46,
            "lat_seconds": 46.5,
            "lat_direction": "N",
            "long_degrees": 122,
            "long_minutes": 23,
            "long_seconds": 35,
            "long_direction": "W",
            "altitude": 0,
            "size": 100,
            "precision_horz": 0,
            "precision_vert": 0,
        },
        "37 46 46.500 N 122 23 35.000 W 0.00m 100.00m 0.00m 0.00m",
    ),
    (
        "NAPTR",
        {"order": 1, "preference": 2, "flags": "S", "service": "SIP+D2U", "regex": "", "replacement": "a.example."},
        '1 2 "S" "SIP+D2U" "" a.example.',
    ),
    ("SMIMEA", {"usage": 3, "selector": 1, "matching_type": 1, "certificate": "ab12"}, "3 1 1 ab12"),
    ("SRV", {"priority": 0, "weight": 1, "port": 993, "target": "mail.mana.how"}, "0 1 993 mail.mana.how"),
    ("SSHFP", {"algorithm": 4, "type": 2, "fingerprint": "ab12"}, "4 2 ab12"),
    ("SVCB", {"priority": 0, "target": "svc.example.", "value": ""}, "0 svc.example."),
    ("TLSA", {"usage": 3, "selector": 1, "matching_type": 1, "certificate": "ab12"}, "3 1 1 ab12"),
    ("URI", {"weight": 5, "target": "https://mana.how/"}, '5 "https://mana.how/"'),
]


class TestData:
    @pytest.mark.parametrize(("kind", "data", "content"), DATA, ids=[kind for kind, _, _ in DATA])
    def test_comes_back_with_rendered_content(self, api, kind, data, content):
        made = api.made(type=kind, name="_x._tcp", data=data, ttl=1, priority=7)
        assert (made["data"], made["content"]) == (data, content)

    @pytest.mark.parametrize(("kind", "data", "content"), DATA, ids=[kind for kind, _, _ in DATA])
    def test_is_required(self, api, kind, data, content):
        assert "is a required data field" in invalid(
            api.post(type=kind, name="_x._tcp", content=content, ttl=1, priority=7), 9101
        )
        for part in data:
            invalid(api.post(type=kind, name="_x._tcp", data=without(data, part), ttl=1, priority=7), 9101)

    def test_numbers_are_checked(self, api):
        data = dict(DATA[7][1])
        for port in (65536, -1, 1.5, "x", True, [1], 10**400):
            invalid(api.post(type="SRV", name="_x._tcp", data=data | {"port": port}, ttl=1), 9101)

    def test_null_srv_and_old_fields(self, api):
        data = {"service": "_imap", "proto": "_tcp", "name": ZONE, "priority": 0, "weight": 0, "port": 0, "target": "."}
        made = api.made(type="SRV", name="_imap._tcp", data=data, ttl=1)
        assert made["data"] == {"priority": 0, "weight": 0, "port": 0, "target": "."}
        assert (made["content"], made["priority"]) == ("0 0 0 .", 0)

    def test_caa_flags_come_back_as_sent(self, api):
        made = api.made(type="CAA", name="x", data={"flags": "128", "tag": "issue", "value": ";"}, ttl=1)
        assert made["data"]["flags"] == "128"

    def test_priority_within_the_data(self, api):
        made = api.made(type="MX", name="@", content="a.example", data={"priority": 0}, ttl=1)
        assert (made["priority"], "data" in made) == (0, False)
        data = {"priority": 3, "weight": 5, "target": "x:y"}
        assert api.made(type="URI", name="u", data=data, priority=9, ttl=1)["priority"] == 3

    def test_ds_stands_on_its_ns(self, api):
        ds = {"type": "DS", "name": "sub", "ttl": 1}
        ds["data"] = {"key_tag": 1, "algorithm": 13, "digest_type": 2, "digest": "AB12"}
        ns = {"type": "NS", "name": "sub", "content": "ns.example", "ttl": 1}
        refused(api.post(**ds), 1000)
        refused(api.batch(posts=[ds, ns]), 1000)
        done = api.batch(posts=[ns, ds]).json()["result"]["posts"]
        assert done[1]["content"] == "1 13 2 AB12"
        both = [{"id": record["id"]} for record in done]
        refused(api.batch(deletes=both), 1000)
        assert api.batch(deletes=both[::-1]).status_code == 200


class TestTxt:
    def test_quoted_comes_back_as_sent(self, api):
        for number, content in enumerate(['"a"', '"a" "b"', '"a\\"b"', '"a\\\\b"', '"a;b ; c"', '" x "']):
            answer = api.post(**TXT | {"name": f"t{number}", "content": content}).json()
            assert (answer["result"]["content"], answer["messages"]) == (content, [])

    @pytest.mark.parametrize("content", ["v=spf1 -all", '"', '"a" b', 'a "b"', '"a"b"', "'", "\\"])
    def test_unquoted_is_stored_raw_with_a_warning(self, api, content):
        answer = api.post(**TXT | {"content": content}).json()
        assert answer["result"]["content"] == content
        assert "quotation marks" in answer["messages"][0]["message"]

    @pytest.mark.parametrize("content", ["", " ", '""', '"" ""', None])
    def test_empty(self, api, content):
        assert "empty" in invalid(api.post(**TXT | {"content": content}), 1000)

    @pytest.mark.parametrize("content", ['"a\nb"', "a\nb", '"ü"'])
    def test_only_printable_ascii(self, api, content):
        invalid(api.post(**TXT | {"content": content}), 9051)

    @pytest.mark.parametrize(
        ("length", "strings"),
        [
            (254, [254]),
            (255, [255]),
            (256, [255, 1]),
            (510, [255, 255]),
            (511, [255, 255, 1]),
            (766, [255, 255, 255, 1]),
        ],
    )
    def test_long_string_is_split(self, api, length, strings):
        content = api.made(**TXT | {"content": f'"{"x" * length}"'})["content"]
        assert [len(part) for part in content.strip('"').split('" "')] == strings

    def test_escapes_survive_a_split(self, api):
        content = api.made(**TXT | {"content": '"' + "x" * 254 + '\\"\\\\\\200"'})["content"]
        assert content == '"' + "x" * 254 + '\\"" "\\\\\\200"'

    def test_all_of_a_name_together(self, api):
        for number in range(32):
            api.made(**TXT | {"content": f'"{number:03}{"x" * 247}"'})
        refused = api.post(**TXT | {"content": f'"y{"x" * 200}"'}).json()["errors"]
        assert [item["code"] for item in refused] == [83011]


class TestTtlAndProxy:
    @pytest.mark.parametrize("ttl", [1, 60, 86400])
    def test_allowed(self, api, ttl):
        assert api.made(**A | {"ttl": ttl})["ttl"] == ttl

    @pytest.mark.parametrize("ttl", [0, 2, 59, 86401, -1, None, True])
    def test_refused(self, api, ttl):
        invalid(api.post(**A | {"ttl": ttl}), 9021)

    def test_omitted(self, api):
        invalid(api.post(**without(A, "ttl")), 9021)

    def test_proxied_is_automatic(self, api):
        made = api.made(**A | {"content": "8.8.8.8", "proxied": True})
        assert (made["ttl"], made["proxied"], made["proxiable"]) == (1, True, True)

    @pytest.mark.parametrize("record", [TXT, MX])
    def test_type_that_cannot_be_proxied(self, api, record):
        invalid(api.post(**record, proxied=True), 9004)

    def test_targets_that_cannot_be_proxied(self, api):
        assert api.made(**A | {"content": "10.0.0.1"})["proxiable"] is False
        invalid(api.post(**A | {"content": "10.0.0.1", "proxied": True}), 9041)
        invalid(api.post(**A | {"content": "1.1.1.1", "proxied": True}), 9003)

    def test_settings(self, paid):
        cname = {"type": "CNAME", "content": "a.example", "ttl": 1}
        assert "settings" not in paid.made(**cname, name="a")
        assert paid.made(**cname, name="b", settings={"flatten_cname": True})["settings"] == {"flatten_cname": True}
        flat = paid.made(**cname, name="c", proxied=True, settings={"flatten_cname": True, "ipv4_only": True})
        assert flat["settings"] == {"ipv4_only": True}
        assert paid.made(**TXT, settings={"ipv4_only": False})["settings"] == {}


class TestCommentsAndTags:
    def test_comment_of_100_on_free(self, api):
        made = api.made(**A, comment="x" * 100)
        assert made["comment_modified_on"] == made["created_on"]
        assert "100" in invalid(api.post(**TXT, comment="x" * 101), 9313)

    def test_comment_of_500_on_paid(self, paid):
        paid.made(**A, comment="x" * 500)
        invalid(paid.post(**TXT, comment="x" * 501), 9313)

    def test_newline(self, api):
        invalid(api.post(**A, comment="a\nb"), 1000)

    def test_empty_is_none(self, api):
        made = api.made(**A, comment="")
        assert made["comment"] is None
        assert "comment_modified_on" not in made

    def test_no_tags_on_free(self, api):
        assert invalid(api.post(**A, tags=["a:b"]), 9300) == "DNS record has 1 tags, exceeding the quota of 0."
        assert api.made(**A, tags=[])["tags"] == []

    def test_tags_on_paid(self, paid):
        assert "tags_modified_on" in paid.made(**A, tags=["team:mail", "x"])
        invalid(paid.post(**TXT, tags=["x"] * 21), 9300)
        for tag in ("cf-x", "x" * 33, "x:" + "y" * 101):
            invalid(paid.post(**TXT, tags=[tag]), 1000)
        refused(paid.post(**TXT, tags=[5]), 9207)


class TestConflicts:
    def test_cname_and_addresses(self, api):
        cname = {"type": "CNAME", "name": "mail", "content": "a.example", "ttl": 1}
        api.made(**A)
        refused(api.post(**cname), 81053)
        api.made(**cname | {"name": "www"})
        refused(api.post(**cname | {"name": "www"}), 81053)
        refused(api.post(**A | {"name": "www"}), 81054)
        api.made(**TXT | {"name": "www"})

    def test_ns_stands_alone(self, api):
        ns = {"type": "NS", "name": "sub", "content": "ns1.example", "ttl": 1}
        api.made(**ns)
        api.made(**ns | {"content": "ns2.example"})
        refused(api.post(**A | {"name": "sub"}), 81056)
        api.made(**A)
        refused(api.post(**ns | {"name": "mail"}), 81056)
        api.made(**TXT)
        api.made(**ns | {"name": "@"})

    @pytest.mark.parametrize("change", [{}, {"ttl": 60}, {"comment": "other"}, {"name": "MAIL.mana.how."}])
    def test_identical(self, api, change):
        api.made(**A)
        refused(api.post(**A | change), 81058)

    def test_identical_txt_in_other_quotes(self, api):
        api.fake.add(ZONE, **TXT | {"content": "v=spf1 -all"})
        refused(api.post(**TXT), 81058)
        refused(api.post(**TXT | {"content": '"v=spf1" " -all"'}), 81058)

    def test_same_target_with_two_priorities(self, api):
        api.made(**MX)
        api.made(**MX | {"priority": 20})
        refused(api.post(**MX), 81058)

    def test_quota(self):
        with serving(quota=2) as api:
            record_id = api.made(**A)["id"]
            api.made(**TXT)
            refused(api.post(**MX), 81045)
            refused(api.batch(posts=[MX]), 81045)
            assert api.batch(posts=[MX], deletes=[{"id": record_id}]).status_code == 200

    def test_quota_of_the_plans(self):
        for plan, quota in (("free", 200), ("paid", 3500)):
            with serving(plan=plan) as api:
                for number in range(quota):
                    api.fake.add(ZONE, **A | {"name": f"n{number}"})
                refused(api.post(**MX), 81045)


class TestWrites:
    def test_put_resets_what_is_not_sent(self, api):
        made = api.made(**A | {"content": "8.8.8.8", "proxied": True}, comment="mine")
        put = api.http.put(f"{api.records}/{made['id']}", json=A | {"content": "8.8.4.4"}).json()["result"]
        assert (put["id"], put["content"], put["proxied"], put["comment"]) == (made["id"], "8.8.4.4", False, None)
        assert put["created_on"] == made["created_on"]
        assert put["modified_on"] > made["modified_on"]
        invalid(api.http.put(f"{api.records}/{made['id']}", json=without(A, "ttl")), 9021)

    def test_patch_keeps_what_is_not_sent(self, api):
        made = api.made(**MX, comment="mine")
        patched = api.http.patch(f"{api.records}/{made['id']}", json={"ttl": 60}).json()["result"]
        assert without(patched, "ttl", "modified_on") == without(made, "ttl", "modified_on")
        assert patched["modified_on"] > made["modified_on"]
        other = api.http.patch(f"{api.records}/{made['id']}", json={"comment": "yours"}).json()["result"]
        assert other["comment_modified_on"] == other["modified_on"]
        cleared = api.http.patch(f"{api.records}/{made['id']}", json={"comment": ""}).json()["result"]
        assert (cleared["comment"], "comment_modified_on" in cleared) == (None, False)

    def test_patch_of_each_kind_of_data(self, api):
        for kind, data, content in DATA:
            made = api.made(type=kind, name=f"_x._{kind}", data=data, ttl=1, priority=7)
            patched = api.http.patch(f"{api.records}/{made['id']}", json={"ttl": 60}).json()["result"]
            assert (patched["data"], patched["content"], patched["ttl"]) == (data, content, 60)

    def test_patch_to_another_type(self, api):
        made = api.made(**MX)
        patched = api.http.patch(f"{api.records}/{made['id']}", json={"type": "TXT", "content": '"x"'}).json()["result"]
        assert (patched["type"], patched["content"], "priority" in patched) == ("TXT", '"x"', False)
        refused(api.http.patch(f"{api.records}/{made['id']}", json={"type": "A"}), 1004, chain=9005)

    def test_delete_answers_the_id(self, api):
        record_id = api.made(**A)["id"]
        assert api.http.get(f"{api.records}/{record_id}").json()["result"]["id"] == record_id
        assert api.http.delete(f"{api.records}/{record_id}").json()["result"] == {"id": record_id}
        assert api.fake.records(ZONE) == []

    def test_no_such_record(self, api):
        for method in ("GET", "PUT", "PATCH", "DELETE"):
            body = None if method in ("GET", "DELETE") else A
            refused(api.http.request(method, f"{api.records}/{'0' * 32}", json=body), 81044, status=404)

    def test_cloudflares_own_refuse_writes(self, api):
        record_id = api.fake.add(ZONE, **MX, meta={"email_routing": True, "read_only": True})
        before = api.fake.records(ZONE)
        assert api.list()["result"][0]["meta"]["read_only"] is True
        refused(api.http.delete(f"{api.records}/{record_id}"), 1000)
        refused(api.http.patch(f"{api.records}/{record_id}", json={"comment": "x"}), 1000)
        refused(api.batch(posts=[A], puts=[MX | {"id": record_id}]), 1000)
        assert api.fake.records(ZONE) == before


class TestBatch:
    def test_order_is_the_apis(self, api):
        cname = api.made(type="CNAME", name="mail", content="a.example", ttl=1)
        kept, changed = api.made(**TXT), api.made(**MX)
        answer = api.batch(
            posts=[A],
            puts=[TXT | {"id": kept["id"], "ttl": 60}],
            patches=[{"id": changed["id"], "priority": 5}],
            deletes=[{"id": cname["id"]}],
        ).json()["result"]
        assert list(answer) == ["deletes", "patches", "puts", "posts"]
        assert answer["deletes"][0] == cname
        assert (answer["patches"][0]["priority"], answer["puts"][0]["ttl"]) == (5, 60)
        assert answer["posts"][0]["name"] == "mail.mana.how"
        assert len(api.fake.records(ZONE)) == 3

    def test_what_was_not_sent_is_null(self, api):
        assert api.batch(posts=[A]).json()["result"]["deletes"] is None

    @pytest.mark.parametrize(
        ("bad", "code", "chain", "status"),
        [
            ({"posts": [TXT, A | {"ttl": 2}, A]}, 1004, 9021, 400),
            ({"posts": [TXT, A]}, 81058, 0, 400),
            ({"posts": [TXT], "patches": [{"id": "0" * 32}]}, 81044, 0, 404),
            ({"posts": [TXT], "puts": [A]}, 81044, 0, 404),
            ({"posts": ["x"]}, 9207, 0, 400),
            ({"posts": {}}, 9207, 0, 400),
        ],
    )
    def test_all_or_nothing(self, api, bad, code, chain, status):
        api.made(**A)
        gone = api.made(**MX)
        before, listed = api.fake.records(ZONE), api.list()
        refused(api.batch(**{"deletes": [{"id": gone["id"]}]} | bad), code, chain=chain, status=status)
        assert api.fake.records(ZONE) == before
        assert api.list() == listed
        assert api.batch(posts=[TXT]).status_code == 200  # and nothing of it stays in the way

    @pytest.mark.parametrize(("plan", "limit"), [("free", 200), ("paid", 3500)])
    def test_limit(self, plan, limit):
        with serving(plan=plan) as api:
            posts = [A | {"name": f"n{number}"} for number in range(limit)]
            refused(api.batch(posts=posts[:-1], deletes=[{"id": "x"}] * 2), 1000)
            assert api.fake.records(ZONE) == []
            assert len(api.batch(posts=posts).json()["result"]["posts"]) == limit

    def test_warns_of_unquoted_text(self, api):
        assert len(api.batch(posts=[A, TXT | {"content": "raw"}]).json()["messages"]) == 1

    def test_concurrent_writers_never_lose_a_record(self, api):
        def write(number):
            return api.batch(posts=[A | {"name": f"n{number}-{item}"} for item in range(5)]).status_code

        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(write, range(20))) == {200}
        assert api.list()["result_info"]["total_count"] == 100


class TestRate:
    def test_headers_and_the_long_wait(self):
        now = 0.0
        with serving(rate_limit=3, clock=lambda: now) as api:
            answers = [api.http.get("zones") for _ in range(4)]
            assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
            refused(answers[3], 971, status=429)
            assert answers[3].headers["retry-after"] == "300"
            now = 299.0
            assert api.http.get("zones").headers["retry-after"] == "1"
            now = 300.0
            assert api.http.get("zones").status_code == 200

    def test_off_by_default(self, api):
        assert "x-ratelimit-remaining" not in api.http.get("zones").headers


class TestOthers:
    def test_add_knows_no_limits(self, api):
        api.fake.add(ZONE, **TXT | {"content": "raw", "ttl": 5}, comment="x" * 200, tags=["a"])
        record = api.list()["result"][0]
        assert (record["content"], record["ttl"], len(record["comment"])) == ("raw", 5, 200)

    def test_edit_and_remove(self, api):
        record_id = api.fake.add(ZONE, **A, comment="theirs")
        before = api.fake.records(ZONE)[0]
        api.fake.edit(ZONE, record_id, content="192.0.2.9")
        after = api.list()["result"][0]
        assert without(after, "content", "modified_on") == without(before, "content", "modified_on")
        api.fake.remove(ZONE, record_id)
        assert api.list()["result"] == []

    def test_dump_and_load(self, api):
        api.made(**A, comment="mine")
        state = json.loads(json.dumps(api.fake.dump()))
        listed = api.list()
        with serving() as other:
            other.fake.load(state)
            assert other.fake.records(ZONE) == api.fake.records(ZONE)
            assert other.list() == listed
            refused(other.post(**A), 81058)
            assert len({record["id"] for record in [other.made(**TXT), *api.fake.records(ZONE)]}) == 2


class TestOfficialClient:
    @pytest.fixture
    def client(self, api):
        http = httpx.Client(trust_env=False)
        url = f"{api.server.url}/client/v4"
        with cloudflare.Cloudflare(api_token="demo", base_url=url, max_retries=0, http_client=http) as client:
            yield client

    def test_typed_models_parse_every_type(self, api, client):
        zone_id = api.fake.zone_id(ZONE)
        plain = [A, TXT, MX | {"name": "m"}, {"type": "NS", "name": "ns", "content": "a.example", "ttl": 1}]
        plain += [{"type": "AAAA", "name": "a6", "content": "2001:db8::1", "ttl": 1}]
        plain += [{"type": kind, "name": kind, "content": "a.example", "ttl": 1} for kind in ("CNAME", "PTR")]
        # The schema wants a comment of this type alone; without one the client takes it for an A.
        plain += [{"type": "OPENPGPKEY", "name": "key", "content": "AQID", "ttl": 1, "comment": "x"}]
        posts = plain + [
            {"type": kind, "name": f"_d._{kind}", "data": data, "priority": 1, "ttl": 1} for kind, data, _ in DATA
        ]
        done = client.dns.records.batch(zone_id=zone_id, posts=posts)
        assert [record.type for record in done.posts] == [record["type"] for record in posts]
        listed = list(client.dns.records.list(zone_id=zone_id, name={"endswith": ZONE}))
        assert {record.id for record in listed} == {record.id for record in done.posts}
        for record in listed:  # strict: the shape is the schema's, nothing was merely let through
            type(record).model_validate(record.model_dump(by_alias=True, exclude_unset=True))

    def test_zones_and_token(self, api, client):
        zone = client.zones.list(name=ZONE).result[0]
        assert type(zone).model_validate(zone.model_dump(exclude_unset=True)).id == api.fake.zone_id(ZONE)
        assert client.user.tokens.verify().status == "active"

    def test_refusal(self, api, client):
        with pytest.raises(cloudflare.BadRequestError) as caught:
            client.dns.records.create(zone_id=api.fake.zone_id(ZONE), **A | {"ttl": 59})
        assert caught.value.errors[0].code == 1004
