"""The line's address, told by name servers and by routers on loopback: good ones, slow ones and hostile ones."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from whoami import NameServer, says

from reconciler.observe import line as lines
from reconciler.observe.line import Inquiry
from reconciler.problem import ReconcilerError

NEW, OLD = "84.152.10.20", "91.12.34.56"


# ------------------------------------------------------------------------------------------------------ name servers
def fails(reply, _):
    reply.set_rcode(dns.rcode.REFUSED)
    return reply


def silent(*_):
    return None


def garbage(reply, _):
    return reply.to_wire()[:2] + b"\xff" * 40


def cut(*values):
    """Answer by TCP alone: a datagram says that there is more."""

    def fill(reply, transport):
        if transport == "udp":
            reply.flags |= dns.flags.TC
            return reply
        return says(*values)(reply, transport)

    return fill


FORMS = ("myip.opendns.com/A", "o-o.myaddr.l.google.com/TXT", "whoami.cloudflare/TXT/CH")


@pytest.fixture
def ask():
    """Ask name servers that fill in replies, in the three forms that are known."""
    started = []

    def start(*fills):
        started.extend(NameServer(fill) for fill in fills)
        return Inquiry(None, [f"{form}@127.0.0.1:{item.port}" for form, item in zip(FORMS, started, strict=False)])

    start.servers = started
    yield start
    for server in started:
        server.close()


def test_each_is_asked_its_own_question_and_all_agree(ask):
    found = ask(says(NEW), says(NEW, "edns0-client-subnet 91.0.0.0/24"), says(NEW))()
    assert (found.address, found.told) == (NEW, {NEW})
    assert [server.asked for server in ask.servers] == [
        [("udp", "myip.opendns.com", "A", "IN")],
        [("udp", "o-o.myaddr.l.google.com", "TXT", "IN")],
        [("udp", "whoami.cloudflare", "TXT", "CH")],
    ]


@pytest.mark.parametrize(
    "third", [silent, fails, garbage, says("2001:db8::1"), says(NEW, OLD), says("0.0.0.0"), says()]
)
def test_two_are_enough_whatever_the_third_does(ask, third, monkeypatch):
    monkeypatch.setattr("reconciler.observe.line._ATTEMPT", 0.2)
    began = time.monotonic()
    if third.__qualname__.startswith("says"):  # texts alone can say anything
        found = ask(says(NEW), third, says(NEW))()
    else:
        found = ask(third, says(NEW), says(NEW))()
    assert found.address == NEW
    assert time.monotonic() - began < 5.5


def test_an_answer_that_is_too_long_is_asked_for_by_tcp(ask):
    assert ask(cut(NEW), cut(NEW))().address == NEW
    assert [item[0] for item in ask.servers[0].asked] == ["udp", "tcp"]


def test_what_each_said_is_told_where_none_agree(ask):
    found = ask(says(NEW), says(OLD), fails)()
    assert found.address == ""
    assert found.told == {NEW, OLD}
    ports = [server.port for server in ask.servers]
    assert found.why == (
        f"no two agree (127.0.0.1:{ports[0]}: {NEW}; 127.0.0.1:{ports[1]}: {OLD}; 127.0.0.1:{ports[2]}: says REFUSED)"
    )


def test_without_a_network_it_is_told_within_seconds(ask):
    inquiry = ask(silent, silent, silent)
    began = time.monotonic()
    found = inquiry()
    assert time.monotonic() - began < 5.5
    assert found.address == ""
    assert found.why.count("no answer") == 3


def test_a_port_where_nobody_listens_is_told_at_once():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = Inquiry(None, [f"a/A@127.0.0.1:{port}", f"b/A@127.0.0.1:{port}"])()
    assert found.why.count("connection refused") == 2


def test_nobody_is_asked_twice_within_a_minute(ask, monkeypatch):
    inquiry = ask(says(NEW), says(NEW))
    now = time.monotonic()
    monkeypatch.setattr(lines, "AGE", 60.0)
    assert [inquiry().address for _ in range(3)] == [NEW] * 3
    assert [len(server.asked) for server in ask.servers] == [1, 1]
    for server in ask.servers:
        server.fill = says(OLD)
    inquiry._until = now
    assert inquiry().address == OLD


@pytest.mark.parametrize(
    "text", ["1.1.1.1", "a/A", "a/MX@1.1.1.1", "a/A@", "a/A@1.1.1.1:0", "a/A/HS@1.1.1.1", "a/A@x@y", "a b/A@1.1.1.1"]
)
def test_what_is_no_question_is_named(text):
    with pytest.raises(ReconcilerError) as caught:
        Inquiry(None, [text])
    assert "RECONCILER_WHOAMI" in str(caught.value)


def test_the_known_ones_are_three_owners_by_address():
    assert len({item.server for item in Inquiry(None)._whoami}) == 3
    assert all(item.server.replace(".", "").isdigit() for item in lines.WHOAMI)


# ------------------------------------------------------------------------------------------------------------ routers
DESCRIPTION = """<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major></specVersion><device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><serviceList><service>
<serviceType>urn:schemas-any-com:service:Any:1</serviceType><controlURL>/igdupnp/control/any</controlURL></service>
</serviceList><deviceList><device><serviceList>{}</serviceList></device></deviceList></device></root>"""
SERVICE = """<service><serviceType>urn:schemas-upnp-org:service:{}:1</serviceType>
<serviceId>urn:upnp-org:serviceId:1</serviceId><controlURL>{}</controlURL><SCPDURL>/x.xml</SCPDURL></service>"""
ANSWER = """<?xml version="1.0"?>
<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>
<u:GetExternalIPAddressResponse xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1">
<NewExternalIPAddress>{}</NewExternalIPAddress></u:GetExternalIPAddressResponse></s:Body></s:Envelope>"""
CONTROL = "/igdupnp/control/WANIPConn1"
BOMB = """<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "84.152.10.20">{}]>
<x><NewExternalIPAddress>&a;</NewExternalIPAddress></x>""".format(
    "".join(f'<!ENTITY {chr(98 + at)} "{f"&{chr(97 + at)};" * 10}">' for at in range(9))
)


class Router:
    """A router on loopback: ``pages`` maps a path to the body of its answer, or to what answers in its place."""

    def __init__(self, pages):
        self.asked = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append((self.command, self.path, self.headers.get("soapaction")))
                self.rfile.read(int(self.headers.get("content-length") or 0))
                page = pages.get(self.path, 404)
                with contextlib.suppress(OSError):
                    if callable(page):
                        page(self)
                        return
                    self.send_response(page if isinstance(page, int) else 200)
                    body = b"" if isinstance(page, int) else page.encode()
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads, self.server.block_on_close = True, False
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def router():
    started = []

    def start(*services, path="/igddesc.xml", **pages):
        described = DESCRIPTION.format("".join(SERVICE.format(*item) for item in services))
        started.append(Router({path: described, **pages.get("pages", {})}))
        return started[-1]

    yield start
    for item in started:
        item.server.shutdown()
        item.server.server_close()


WAN = ("WANIPConnection", CONTROL)


def test_a_router_tells_its_address(router):
    there = router(WAN, pages={CONTROL: ANSWER.format(NEW)})
    assert Inquiry(there.url)().address == NEW
    assert there.asked == [
        ("GET", "/igddesc.xml", None),
        ("POST", CONTROL, '"urn:schemas-upnp-org:service:WANIPConnection:1#GetExternalIPAddress"'),
    ]


def test_a_router_of_another_make_is_asked_where_it_describes_itself(router):
    there = router(("WANPPPConnection", "ctl/PPP"), path="/up/rootDesc.xml", pages={"/up/ctl/PPP": ANSWER.format(NEW)})
    assert Inquiry(f"{there.url}/up/rootDesc.xml")().address == NEW


def test_of_two_connections_the_one_that_is_up_counts(router):
    pages = {"/ppp": ANSWER.format("0.0.0.0"), "/fault": 500, CONTROL: ANSWER.format(NEW)}
    there = router(("WANPPPConnection", "/ppp"), ("WANPPPConnection", "/fault"), WAN, pages=pages)
    assert Inquiry(there.url)().address == NEW


def test_the_router_knows_of_cgnat(router):
    found = Inquiry(router(WAN, pages={CONTROL: ANSWER.format("100.70.1.2")}).url)()
    assert (found.address, found.useless) == ("", True)
    assert "CGNAT" in found.why


def huge(request):
    request.send_response(200)
    request.end_headers()
    for _ in range(1000):
        request.wfile.write(b"<x>" + b"y" * 65536)


def dripping(request):
    request.send_response(200)
    request.end_headers()
    for _ in range(100):
        request.wfile.write(b" ")
        time.sleep(0.2)


def leading_away(request):
    request.send_response(302)
    request.send_header("location", "http://127.0.0.1:1/")
    request.send_header("content-length", "0")
    request.end_headers()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (BOMB, "document type"),
        (BOMB.replace("84.152.10.20", "") + " ", "document type"),
        ('<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>', "document type"),
        ('<?xml version="1.0" encoding="made-up"?><x/>', "no XML"),
        ("<a>" * 5000, "no XML"),
        ("not XML", "no XML"),
        ("", "no XML"),
        (ANSWER.format(""), "no IPv4 address"),
        (ANSWER.format("0.0.0.0"), "no IPv4 address"),
        (ANSWER.format("2001:db8::1"), "no IPv4 address"),
        (ANSWER.format("84.152.10.20 91.12.34.56"), "no IPv4 address"),
        (ANSWER.format(f"<b>{NEW}</b>"), "no IPv4 address"),
        ("<x><NewExternalIPAddress>84.152.10.20</NewExternalIPAddress>" * 2 + "</x></x>", "no IPv4 address"),
        (401, "401"),
        (500, "500"),
        (leading_away, "302"),
        (huge, "too large"),
        (dripping, "no answer"),
    ],
)
def test_whatever_a_router_answers_it_is_told_and_believed_of_nothing(router, answer, words):
    began = time.monotonic()
    found = Inquiry(router(WAN, pages={CONTROL: answer}).url)()
    assert found.address == ""
    assert not found.useless
    assert words in found.why
    assert time.monotonic() - began < 7


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("http://127.0.0.1:1/x", "not its own"),
        ("//example.com/x", "not its own"),
        ("https://127.0.0.1/x", "not its own"),
        ("file:///etc/passwd", "at an address that is none"),
        ("http://[::1/x", "at an address that is none"),
        ("http://user@127.0.0.1/x", "at an address that is none"),
        ("/x?y", "at an address that is none"),
    ],
)
def test_a_description_leads_nowhere_else(router, where, words):
    there = router(("WANIPConnection", where), pages={"/x": ANSWER.format(NEW)})
    assert words in Inquiry(there.url)().why
    assert [item[1] for item in there.asked] == ["/igddesc.xml"]


def test_a_description_without_a_connection_is_told(router):
    assert "no connection to the Internet" in Inquiry(router().url)().why
    assert "404" in Inquiry(f"{router().url}/else.xml")().why


def test_a_router_that_is_away_is_not_replaced_by_name_servers(router, ask):
    ask(says(NEW), says(NEW))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = Inquiry(f"http://127.0.0.1:{port}", [f"{FORMS[0]}@127.0.0.1:{item.port}" for item in ask.servers])()
    assert found.address == ""
    assert "no answer" in found.why
    assert [server.asked for server in ask.servers] == [[], []]


def test_a_router_beyond_the_own_networks_is_not_asked():
    found = Inquiry("http://8.8.8.8:49000")()
    assert found.address == ""
    assert "leads to 8.8.8.8" in found.why


@pytest.mark.parametrize("text", ["192.168.178.1", "ftp://192.168.178.1", "http://192.168.178.1/?x", "http://u:p@x"])
def test_what_is_no_router_s_url_is_named(text):
    with pytest.raises(ReconcilerError) as caught:
        Inquiry(text)
    assert "RECONCILER_ROUTER" in str(caught.value)
    assert "u:p" not in str(caught.value)
