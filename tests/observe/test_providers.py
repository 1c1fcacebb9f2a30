"""What is made of Brevo's answers, and how it is asked: once, with patience, and never twice with a wrong key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.desired.provider_records import ProviderAnswer
from reconciler.desired.spec.smtp import Provider
from reconciler.observe.providers import Providers
from reconciler.problem import Problem, SecretUnreadable, Severity
from reconciler.simulator.brevo import Brevo
from reconciler.simulator.wire import Fault, Reply, Server

ZONE = "mana.how"
KEY = "xkeysib-secret-of-tests"
PATH = f"GET /v3/senders/domains/{ZONE}"
PROVIDER = Provider.model_validate(
    {"preset": "brevo", "username": "me", "password": {"env": "SMTP"}, "api_key": {"env": "API"}}
)


@pytest.fixture
def brevo() -> Brevo:
    return Brevo([ZONE, "other.how"], lambda _name, _kind: [], keys=[KEY])


@pytest.fixture
def server(brevo: Brevo) -> Iterator[Server]:
    with Server(brevo) as serving:
        yield serving


def providers(server: Server, key: str = KEY) -> Providers:
    return Providers(lambda _: key, server.url)


def ask(asked: Providers, domain: str = ZONE, zone: str = ZONE) -> ProviderAnswer:
    return asked("brevo", PROVIDER, zone, domain)


def values(asked: ProviderAnswer) -> set[tuple[str, str, str]]:
    return {(item.type, item.name, str(item.content)) for item in asked.records}


def failed(asked: ProviderAnswer) -> Problem:
    (problem,) = asked.problems
    assert not asked.complete
    assert asked.records == ()
    assert problem.where == "smtp.providers.brevo"
    assert problem.severity is Severity.ERROR
    assert problem.scope == "", "the DNS of everything else goes on"
    assert problem.hint
    assert KEY not in str(problem)
    return problem


def answer(**records: Any) -> Reply:
    return Reply.of({"domain": ZONE, "verified": True, "authenticated": True, "dns_records": records})


def record(kind: str, host: str | None, value: str) -> dict[str, Any]:
    return {"type": kind, "host_name": host, "value": value, "status": True}


# ------------------------------------------------------------------------------------------------------ the answer
def test_the_two_aliases_and_the_verification_are_records_of_the_zone_and_dmarc_is_not(server):
    asked = ask(providers(server))
    code = next(content for _, name, content in values(asked) if name == "@")
    assert values(asked) == {
        ("CNAME", "brevo1._domainkey", "b1.mana-how.dkim.brevo.com"),
        ("CNAME", "brevo2._domainkey", "b2.mana-how.dkim.brevo.com"),
        ("TXT", "@", code),
    }
    assert code.startswith("brevo-code:")
    assert asked.complete
    (problem,) = asked.problems
    assert problem.severity is Severity.WARNING
    assert "has not authenticated mana.how" in problem.summary


def test_the_single_key_of_an_older_account_is_too_short(server, brevo):
    brevo.form = "txt"
    asked = ask(providers(server))
    assert {(item.type, item.name) for item in asked.records} == {("TXT", "mail._domainkey"), ("TXT", "@")}
    assert any("mail._domainkey.mana.how is a key of 1024 bits" in item.summary for item in asked.problems)
    assert {item.severity for item in asked.problems} == {Severity.WARNING}


@pytest.mark.parametrize("form", ["cname", "txt"])
def test_a_mail_domain_below_a_zone_has_its_records_below_it(server, brevo, form):
    brevo.form = form
    brevo.add("news.mana.how")
    names = {item.name for item in ask(providers(server), "news.mana.how").records}
    keys = {"brevo1._domainkey.news", "brevo2._domainkey.news"} if form == "cname" else {"mail._domainkey.news"}
    assert names == {*keys, "news"}


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("brevo1._domainkey", "brevo1._domainkey"),
        ("brevo1._domainkey.", "brevo1._domainkey"),
        ("brevo1._domainkey.mana.how", "brevo1._domainkey"),
        ("Brevo1._DomainKey.MANA.how.", "brevo1._domainkey"),
    ],
)
def test_names_are_relative_or_whole_with_and_without_a_last_dot(server, host, name):
    told = answer(dkim1Record=record("CNAME", host, "b1.mana-how.dkim.brevo.com."), dkim_record=None)
    server.faults.append(Fault(reply=told))
    asked = ask(providers(server))
    assert values(asked) == {("CNAME", name, "b1.mana-how.dkim.brevo.com")}
    assert asked.problems == ()


@pytest.mark.parametrize("host", ["", "@", None, "mana.how", "mana.how."])
def test_the_domain_itself_has_many_names(server, host):
    alias = record("CNAME", "brevo1._domainkey", "b1.brevo.com")
    server.faults.append(Fault(reply=answer(brevo_code=record("TXT", host, "brevo-code:0a"), dkim1Record=alias)))
    assert ("TXT", "@", "brevo-code:0a") in values(ask(providers(server)))


@pytest.mark.parametrize(
    "records",
    [
        {"dkim1Record": record("CNAME", "www", "evil.example")},
        {"dkim1Record": record("A", "brevo1._domainkey", "192.0.2.1")},
        {"dkim1Record": record("CNAME", "brevo1._domainkey", "two words")},
        {"dkim1Record": {"host_name": "brevo1._domainkey"}},
        {"brevo_code": record("TXT", "@", "v=spf1 +all")},
        {"brevo_code": "text"},
    ],
)
def test_what_brevo_does_not_ask_for_is_not_written(server, records):
    server.faults.append(Fault(reply=answer(**records)))
    assert "can't be used" in failed(ask(providers(server))).summary


@pytest.mark.parametrize("reply", [Reply(body=b"<html>"), Reply.of([]), Reply.of({"dns_records": None})])
def test_an_answer_of_another_kind_is_said(server, reply):
    server.faults.append(Fault(reply=reply))
    assert "not what Brevo documents" in failed(ask(providers(server))).summary


def test_a_domain_that_is_not_added_warns_and_keeps_what_is_there(server):
    asked = ask(providers(server), "news.mana.how")
    assert not asked.complete
    (problem,) = asked.problems
    assert problem.severity is Severity.WARNING
    assert "news.mana.how is not added at Brevo" in problem.summary


def test_an_account_without_keys_yet_keeps_what_is_there(server):
    server.faults.append(Fault(reply=answer(brevo_code=record("TXT", "@", "brevo-code:0a"), dkim_record=None)))
    asked = ask(providers(server))
    assert not asked.complete
    assert ["names no DKIM record" in item.summary for item in asked.problems] == [True]


# ---------------------------------------------------------------------------------------------------------- asking
def test_a_domain_is_asked_for_once_and_without_an_api_key_nothing_is(server):
    asked = providers(server)
    assert ask(asked) is ask(asked)
    ask(asked, "other.how", "other.how")
    assert server.counts == {PATH: 1, "GET /v3/senders/domains/other.how": 1}
    bare = Provider.model_validate({"preset": "brevo", "username": "me", "password": {"env": "SMTP"}})
    assert asked("brevo", bare, ZONE, "third.how") == ProviderAnswer()
    assert server.counts.total() == 2


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_never_tried_again(server, status):
    server.faults.append(Fault(reply=Reply.of({"code": "unauthorized", "message": "Key not found"}, status), times=9))
    asked = providers(server, "xkeysib-wrong")
    problem = failed(ask(asked))
    assert f"answers {status}: Key not found" in problem.summary
    assert "{env: API}" in problem.hint
    assert failed(ask(asked, "other.how", "other.how")) == problem
    assert server.counts.total() == 1


def test_an_address_that_brevo_does_not_know_is_told_apart(server):
    message = "We have detected you are using an unrecognised IP address 192.0.2.1"
    server.faults.append(Fault(reply=Reply.of({"code": "unauthorized", "message": message}, 401)))
    assert "authorised_ips" in failed(ask(providers(server))).hint


@pytest.mark.parametrize(
    "fault",
    [
        {"lose": True},
        {"refuse": True},
        {"reply": Reply.of({}, 503)},
        {"reply": Reply.of({}, 429, Retry_After="1")},
        {"reply": Reply.of({}, 429, **{"x-sib-ratelimit-reset": "1"})},
    ],
)
def test_a_lost_answer_and_a_pause_are_tried_once_more(server, fault):
    server.faults.append(Fault(**fault))
    assert ask(providers(server)).complete
    assert server.counts[PATH] == 2


@pytest.mark.parametrize("fault", [{"lose": True}, {"reply": Reply.of({}, 503)}])
def test_a_second_fault_ends_it_for_all_domains(server, fault):
    server.faults.append(Fault(times=9, **fault))
    asked = providers(server)
    failed(ask(asked))
    failed(ask(asked, "other.how", "other.how"))
    assert server.counts.total() == 2


def test_a_long_pause_is_not_waited_for(server):
    server.faults.append(Fault(reply=Reply.of({}, 429, Retry_After="3600")))
    assert "429" in failed(ask(providers(server))).summary
    assert server.counts.total() == 1


def test_redirects_are_not_followed(server):
    server.faults.append(Fault(reply=Reply(302, headers={"location": f"{server.url}/v3/elsewhere"})))
    assert "302" in failed(ask(providers(server))).summary
    assert server.counts.total() == 1


def test_an_answer_without_end_is_cut(server):
    server.faults.append(Fault(reply=Reply(body=b" " * (2 << 20))))
    assert "does not end" in failed(ask(providers(server))).summary


@pytest.mark.parametrize(
    ("key", "words"), [("xsmtpsib-123", "is an SMTP key"), ("two words", "white space"), ("a\nb", "white space")]
)
def test_a_key_of_another_kind_is_not_sent(server, key, words):
    problem = failed(ask(providers(server, key)))
    assert words in problem.summary
    assert key not in str(problem)
    assert server.counts.total() == 0


def test_the_key_goes_over_tls_or_stays_here():
    for url in ("http://api.brevo.com", "http://192.0.2.1", "ftp://localhost.example", "http://brevo"):
        assert "in clear text" in failed(ask(Providers(lambda _: KEY, url))).summary


def test_a_key_that_can_t_be_read_says_which():
    def unreadable(ref: Any) -> str:
        raise SecretUnreadable(Problem(str(ref), "the environment variable API is not set", "export API"))

    problem = failed(ask(Providers(unreadable)))
    assert "{env: API}" in problem.summary
    assert problem.hint.startswith("export API")


def test_nobody_listens():
    with Server(lambda _: Reply.of({})) as gone:
        url = gone.url
    assert "no answer" in failed(ask(Providers(lambda _: KEY, url))).summary
