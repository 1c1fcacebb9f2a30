"""A provider's records: published ahead, kept while its API does not tell, and looked at before the switch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.simulator.wire import Fault, Reply

NOTIFY = "mana-core-notify"
ASKED = "GET /v3/senders/domains/mana.how"
PLAIN = "      host: smtp-relay.brevo.com\n      port: 587\n      username: 94c"
PRESET = "      preset: brevo\n      standby: true\n      api_key: {env: BREVO_API_KEY}\n      username: 94c"


@pytest.fixture
def standing(applied: Any) -> Iterator[Any]:
    """The example with Brevo standing by, before that is applied."""
    applied.edit("smtp.yaml", PLAIN, PRESET)
    literal = 'SMTP_INSECURE_TLS: "true"'
    applied.example.edit("docker-compose.macmini.yml", literal, "SMTP_INSECURE_TLS: ${SMTP_INSECURE_TLS:-true}")
    return applied


def switch(stack: Any) -> None:
    stack.edit("smtp.yaml", "  provider: stalwart\n", "  provider: brevo\n")


def brevos(stack: Any) -> set[tuple[str, str]]:
    """Return type and name of the records in DNS that Brevo asks for and that are ours."""
    wanted = stack.stage.brevo.records("mana.how")
    values = {item["value"] for name, item in wanted.items() if name != "dmarc_record"}
    found = [item for item in stack.records() if item["content"].strip('"') in values]
    assert all((item["comment"] or "").endswith("reconciler:mana") for item in found)
    return {(item["type"], item["name"].removesuffix("mana.how").rstrip(".") or "@") for item in found}


ALL = {("CNAME", "brevo1._domainkey"), ("CNAME", "brevo2._domainkey"), ("TXT", "@")}


def problems(stack: Any, code: int = 0, *argv: str) -> list[dict[str, Any]]:
    """Plan, and return the problems that are about Brevo or the consumer."""
    found = stack.expect(code, "plan", "--output", "json", *argv).json["problems"]
    return [item for item in found if item["where"].startswith("smtp")]


def late(stack: Any) -> list[str]:
    return [item["summary"] for item in problems(stack) if item["where"] == "smtp/mana-notify"]


# ------------------------------------------------------------------------------------------------------ the switch
def test_standing_by_publishes_ahead_and_the_switch_is_one_line(standing: Any) -> None:
    standing.stage.dns.hold(0)
    standing.expect(0, "apply", "--yes")
    assert brevos(standing) == ALL
    assert standing.container(NOTIFY).environment["SMTP_HOST"] == "stalwart"
    assert any("has not authenticated mana.how" in item["summary"] for item in problems(standing))

    switch(standing)
    (summary,) = late(standing)
    assert f"{standing.stage.dns.servers[0]} does not show it yet" in summary
    assert standing.stage.dns.servers[1] not in summary
    standing.stage.dns.release(0)
    assert problems(standing) == [], "every name server shows all, and Brevo sees them"
    standing.expect(0, "apply", "--yes")
    now = standing.container(NOTIFY).environment
    assert (now["SMTP_HOST"], now["SMTP_PORT"]) == ("smtp-relay.brevo.com", "587")
    standing.expect(0, "plan", "--detailed-exitcode")

    standing.edit("smtp.yaml", "  provider: brevo\n", "  provider: stalwart\n")
    standing.expect(0, "apply", "--yes")
    assert brevos(standing) == ALL, "it stands by again"
    standing.edit("smtp.yaml", "      standby: true\n", "")
    standing.expect(0, "apply", "--yes")
    assert brevos(standing) == set()


def test_a_switch_without_publishing_ahead_warns_and_goes_on(standing: Any) -> None:
    switch(standing)
    assert len(late(standing)) == 1
    standing.expect(0, "apply", "--yes")
    assert brevos(standing) == ALL
    assert standing.container(NOTIFY).environment["SMTP_HOST"] == "smtp-relay.brevo.com"
    assert problems(standing) == []


def test_a_switch_to_a_provider_whose_records_nobody_knows_warns(standing: Any) -> None:
    standing.edit("smtp.yaml", "      api_key: {env: BREVO_API_KEY}\n", "")
    switch(standing)
    (summary,) = late(standing)
    assert "are not known" in summary


def test_an_unreachable_name_server_is_named(standing: Any) -> None:
    standing.expect(0, "apply", "--yes")
    switch(standing)
    standing.stage.dns.stop(1)
    (summary,) = late(standing)
    assert f"{standing.stage.dns.servers[1]} could not be asked" in summary


# --------------------------------------------------------------------------------------------------------- the API
@pytest.mark.parametrize(
    ("fault", "requests"),
    [
        ({"refuse": True}, 2),
        ({"reply": Reply.of({"code": "unauthorized", "message": "Key not found"}, 401)}, 1),
    ],
)
def test_while_the_api_does_not_tell_nothing_of_it_goes_and_the_rest_is_applied(
    standing: Any, fault: dict[str, Any], requests: int
) -> None:
    standing.expect(0, "apply", "--yes")
    standing.stage.brevo_server.forget()
    standing.stage.brevo_server.faults.append(Fault(times=99, **fault))
    standing.edit("dns.yaml", "content: 194.191.241.139", "content: 194.191.241.140")
    standing.edit("dns.yaml", "v=spf1 a mx a:mail.mana.how ~all", "v=spf1 mx ~all")
    done = standing.expect(6, "apply", "--yes")
    assert "smtp.providers.brevo" in done.text
    assert standing.secrets["BREVO_API_KEY"] not in done.text
    assert standing.stage.brevo_server.counts == {ASKED: requests}
    assert brevos(standing) == ALL
    assert standing.ours()["A", "mail"]["content"] == "194.191.241.140"
    assert [item["content"] for item in standing.records() if "v=spf1" in item["content"]] == ['"v=spf1 mx ~all"']
    standing.stage.brevo_server.faults.clear()
    standing.expect(0, "plan", "--detailed-exitcode")


def test_a_wrong_key_is_tried_once_for_all_domains(standing: Any) -> None:
    standing.edit("dns.yaml", "dns:\n", "dns:\n  mana.test: []\n")
    standing.edit(
        "accounts.yaml", "accounts:\n", "accounts:\n  sender@mana.test: {password: {env: MANA_SERVICE_KEY}}\n"
    )
    standing.env["BREVO_API_KEY"] = "xkeysib-wrong"
    found = {item["severity"]: item["summary"] for item in problems(standing, 1)}
    assert "401: Key not found" in found["error"]
    assert found["warning"].startswith("mana.test has no DMARC record")
    assert standing.stage.brevo_server.counts.total() == 1


def test_a_domain_that_brevo_does_not_have_is_said(standing: Any) -> None:
    standing.stage.brevo.domains.remove("mana.how")
    try:
        (problem,) = problems(standing)
    finally:
        standing.stage.brevo.add("mana.how")
    assert problem["severity"] == "warning"
    assert "mana.how is not added at Brevo" in problem["summary"]


def test_without_cloudflare_neither_key_nor_api_is_touched(standing: Any) -> None:
    standing.edit("reconciler.yaml", "  stalwart:\n", "  stalwart:\n    generation: rest\n")
    for target in ("stalwart", "compose"):
        standing.expect(0, "plan", "--target", target, drop=("BREVO_API_KEY",))
    assert standing.stage.brevo_server.counts.total() == 0


def test_a_key_of_the_wrong_kind_is_not_sent_to_the_relay(standing: Any) -> None:
    standing.expect(0, "apply", "--yes")
    switch(standing)
    standing.env["BREVO_SMTP_KEY"] = "xkeysib-0123456789"
    before = standing.container(NOTIFY).environment
    done = standing.expect(1, "apply", "--yes")
    assert "is a key for Brevo's API" in done.text
    assert "xkeysib-0123456789" not in done.text
    assert standing.container(NOTIFY).environment == before


# ------------------------------------------------------------------------ a login that only the server's answer tells
@pytest.mark.parametrize("login", ["somebody", "noreply@mana.how"])
def test_a_literal_is_refused_by_the_plan_where_the_server_tells_the_login(applied: Any, login: str) -> None:
    applied.example.edit("docker-compose.macmini.yml", "${SMTP_USER:-noreply}", login)
    before = applied.everything()
    planned = applied.expect(4, "plan")
    assert "holds a literal" in planned.text
    assert applied.expect(4, "apply", "--yes").text.count("holds a literal") == 1
    assert applied.everything() == before, "nothing at all was written"
    [written] = [line.split("`")[1] for line in planned.text.splitlines() if "put there: `SMTP_USER" in line]
    applied.example.edit("docker-compose.macmini.yml", f"SMTP_USER: {login}", written)
    applied.expect(0, "apply", "--yes")
    assert applied.container(NOTIFY).environment["SMTP_USER"] == "noreply"
    applied.expect(0, "plan", "--detailed-exitcode")


def test_a_literal_that_is_the_login_the_server_wants_is_left_alone(applied: Any) -> None:
    applied.example.edit("docker-compose.macmini.yml", "${SMTP_USER:-noreply}", "noreply")
    applied.expect(0, "plan", "--detailed-exitcode")


def test_a_text_with_a_secret_and_the_login_of_the_other_generation_is_set_right(applied: Any) -> None:
    whole = "smtp://{username|url}:{password|url}@{host}"
    applied.edit("smtp.yaml", '        SMTP_USER: "{username}"\n', f'        SMTP_USER: "{whole}"\n')
    applied.expect(0, "apply", "--yes")
    right = applied.container(NOTIFY).environment["SMTP_USER"]
    assert right.startswith("smtp://noreply:")
    wrong = right.replace("noreply:", "noreply%40mana.how:")
    applied.example.edit("docker-compose.macmini.yml", "${SMTP_USER:-noreply}", f'"{wrong}"')
    assert "SMTP_USER" in applied.expect(4, "plan").text
