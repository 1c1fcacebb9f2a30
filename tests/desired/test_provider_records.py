"""Which records of SMTP providers are published, and which stay while a provider does not tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconciler.desired.derivation import Facts, desire, provider_questions
from reconciler.desired.load import load
from reconciler.desired.presets import PRESETS
from reconciler.desired.provider_records import ProviderAnswer
from reconciler.desired.spec import Spec
from reconciler.dns.records import record
from reconciler.plan import Desired, Plan, diff
from reconciler.problem import InvalidDirectory, Problem, Severity
from reconciler.resources import Live, Observation, Record, Variable

ZONE = "mana.how"
HEAD = """\
version: 1
stack: mana
targets:
  cloudflare: {token: {env: TOKEN}}
  compose: {file: compose.yml}
accounts: {a@mana.how: {}, b@elsewhere.example: {}}
dns: {mana.how: [{type: TXT, name: _dmarc, content: v=DMARC1; p=none}]}
"""
LOGIN = "username: me, password: {env: SMTP}"
BREVO = f"brevo: {{preset: brevo, {LOGIN}, api_key: {{env: API}}}}"
OWN = f"own: {{host: stalwart, port: 587, {LOGIN}}}"
ALIAS = record(ZONE, "CNAME", "brevo1._domainkey", "b1.mana-how.dkim.brevo.com")
CODE = record(ZONE, "TXT", "@", "brevo-code:0a1b")
POLICY = record(ZONE, "TXT", "_dmarc", "v=DMARC1; p=none")
BROKEN = ProviderAnswer(problems=(Problem("smtp.providers.brevo", "no answer", "plan again"),), complete=False)


class Api:
    """Stands for a provider's API: it notes what it is asked."""

    def __init__(self, answer: ProviderAnswer = ProviderAnswer((ALIAS, CODE))) -> None:  # noqa: B008 (a frozen value)
        self.answer = answer
        self.asked: list[tuple[str, str, str]] = []

    def __call__(self, name: str, _provider: Any, zone: str, domain: str) -> ProviderAnswer:
        self.asked.append((name, zone, domain))
        return self.answer


def wanted(spec: Spec, seen: dict[str, Observation] | None, api: Api | None) -> Desired:
    asked = {(item[0], item[3]): api(*item) for item in provider_questions(spec)} if api else None
    return desire(spec, seen, Facts(asked=asked))


def desired(path: Path, smtp: str, api: Api | None = None, live: tuple[Live, ...] = (), more: str = "") -> Desired:
    (path / "a.yaml").write_text(f"{HEAD}{more}smtp: {{{smtp}}}\n")
    return wanted(load(path).spec, {"cloudflare": Observation("cloudflare", live)}, api)


def records(found: Desired) -> set[Record]:
    return {item for item in found.resources if isinstance(item, Record)} - {POLICY}


def ours(*found: Record) -> tuple[Live, ...]:
    return tuple(Live(item, str(index), "mana") for index, item in enumerate(found))


def planned(found: Desired, live: tuple[Live, ...]) -> Plan:
    return diff(found, {"cloudflare": Observation("cloudflare", live)}, stack="mana")


@pytest.mark.parametrize(
    ("smtp", "published"),
    [
        (f"provider: brevo, providers: {{{BREVO}}}", True),
        (f"provider: own, providers: {{{OWN}, {BREVO[:-1]}, standby: true}}}}", True),
        (f"provider: own, providers: {{{OWN}, {BREVO}}}", False),
        (f"provider: own, providers: {{{OWN}, {BREVO}}}, consumers: {{n: {{provider: brevo}}}}", True),
    ],
)
def test_a_provider_in_use_or_standing_by_is_published_for_the_mail_domains_of_declared_zones(
    tmp_path, smtp, published
):
    api = Api()
    found = desired(tmp_path, smtp, api)
    assert records(found) == ({ALIAS, CODE} if published else set())
    assert set(api.asked) == ({("brevo", ZONE, ZONE)} if published else set())
    assert found.provided == ({"brevo": (ALIAS, CODE)} if published else {})


def test_standing_by_keeps_records_after_the_switch_and_without_it_they_go(tmp_path):
    live = ours(POLICY, ALIAS, CODE)
    standby = f"provider: own, providers: {{{OWN}, {BREVO[:-1]}, standby: true}}}}"
    assert not planned(desired(tmp_path, standby, Api(), live), live).changes
    gone = planned(desired(tmp_path, f"provider: own, providers: {{{OWN}, {BREVO}}}", Api(), live), live)
    assert {change.address for change in gone.changes if change.deletes} == {
        "dns/mana.how/CNAME/brevo1._domainkey",
        "dns/mana.how/TXT/@",
    }


OWN_DNS = """\
brevo: {preset: brevo, username: me, password: {env: SMTP}, api_key: {env: API}, dns: {mana.how: [
  {type: CNAME, name: brevo1._domainkey, content: b1.mana-how.dkim.brevo.com, ttl: 300},
  {type: CNAME, name: bounces, content: bounces.brevo.com}]}}"""


def test_the_yaml_adds_to_what_the_api_says_and_one_record_twice_is_one(tmp_path):
    found = desired(tmp_path, f"provider: brevo, providers: {{{OWN_DNS}}}", Api())
    assert {(item.type, item.name, item.ttl) for item in records(found)} == {
        ("CNAME", "brevo1._domainkey", 300),
        ("CNAME", "bounces", 1),
        ("TXT", "@", 1),
    }
    assert found.problems == ()
    without = desired(tmp_path, f"provider: brevo, providers: {{{OWN_DNS}}}")
    assert {item.name for item in records(without)} == {"brevo1._domainkey", "bounces"}


def beside(path: Path, written: str) -> None:
    """Declare a record beside the policy, and Brevo in use."""
    text = HEAD.replace("dns: {mana.how: [", f"dns: {{mana.how: [{written},")
    (path / "a.yaml").write_text(f"{text}smtp: {{provider: brevo, providers: {{{BREVO}}}}}\n")


def test_a_record_that_also_stands_under_dns_is_one(tmp_path):
    beside(tmp_path, "{type: TXT, name: '@', content: 'brevo-code:0a1b', comment: by hand}")
    found = wanted(load(tmp_path).spec, None, Api())
    assert [item.comment for item in records(found) if item.name == "@"] == ["by hand"]


OTHER_DNS = OWN_DNS.replace("b1.mana-how", "b9.mana-how")
SELECTOR = "dkim: {mana.how: [{selector: brevo1, algorithm: ed25519}]}\n"


@pytest.mark.parametrize(("provider", "more"), [(BREVO, SELECTOR), (OTHER_DNS, "")])
def test_what_the_directory_has_at_a_place_is_not_replaced(tmp_path, provider, more):
    found = desired(tmp_path, f"provider: brevo, providers: {{{provider}}}", Api(), more=more)
    assert ALIAS not in records(found)
    (problem,) = (item for item in found.problems if item.where == "smtp.providers.brevo")
    assert problem.severity is Severity.ERROR
    assert "asks for CNAME brevo1._domainkey.mana.how" in problem.summary


def test_while_the_api_does_not_tell_its_records_stay_and_everything_else_goes_on(tmp_path):
    old, foreign = record(ZONE, "A", "old", "192.0.2.1"), record(ZONE, "CNAME", "x._domainkey", "x.example")
    spf = record(ZONE, "TXT", "@", "v=spf1 -all")
    live = (*ours(POLICY, ALIAS, CODE, old), Live(foreign, "9"))
    beside(tmp_path, "{type: TXT, name: '@', content: v=spf1 -all}")
    found = wanted(load(tmp_path).spec, {"cloudflare": Observation("cloudflare", live)}, Api(BROKEN))
    plan = planned(found, live)
    assert {(change.actions[0].value, change.resource) for change in plan.changes} == {("delete", old), ("create", spf)}
    assert plan.errors == BROKEN.problems
    assert foreign not in records(found), "what is not ours is left alone"


def test_a_key_that_retires_goes_while_the_api_does_not_tell(tmp_path):
    key = record(ZONE, "TXT", "s1._domainkey", "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
    live = ours(POLICY, key, ALIAS)
    more = "dkim: {mana.how: [{selector: s1, algorithm: ed25519, stage: retired}]}\n"
    found = desired(tmp_path, f"provider: brevo, providers: {{{BREVO}}}", Api(BROKEN), live, more)
    assert [change.resource for change in planned(found, live).changes] == [key]


def test_a_preset_brings_host_and_port_and_needs_records_which_may_not_be_known(tmp_path):
    env = 'consumers: {n: {env: {H: "{host}:{port}"}}}'
    found = desired(tmp_path, f"provider: p, providers: {{p: {{preset: postmark, {LOGIN}}}}}, {env}")
    (variable,) = (item for item in found.resources if isinstance(item, Variable))
    assert variable.running == "smtp.postmarkapp.com:587"
    assert variable.login is not None
    assert variable.login.provider == "p"
    assert found.provided == {"p": ()}
    assert desired(tmp_path, f"provider: own, providers: {{{OWN}}}, {env}").provided == {}


def test_a_provider_that_nothing_tells_of_keeps_what_it_was_given_and_is_told_while_it_stands_by(tmp_path):
    brevo = f"brevo: {{host: smtp-relay.brevo.com, port: 587, standby: true, {LOGIN}}}"
    found = desired(tmp_path, f"provider: own, providers: {{{OWN}, {brevo}}}", live=ours(ALIAS, CODE))
    assert records(found) == {ALIAS, CODE}
    assert found.provided == {"brevo": (ALIAS, CODE)}
    (warning,) = found.problems
    assert (warning.severity, "are not known" in warning.summary) == (Severity.WARNING, True)


def test_a_domain_without_a_policy_is_warned_about_unless_one_is_live(tmp_path):
    def policies(*live: Record) -> list[Problem]:
        (tmp_path / "a.yaml").write_text(
            HEAD.replace("{type: TXT, name: _dmarc, content: v=DMARC1; p=none}", "")
            + f"smtp: {{provider: brevo, providers: {{{BREVO}}}}}\n"
        )
        seen = {"cloudflare": Observation("cloudflare", tuple(map(Live, live)))}
        return [item for item in wanted(load(tmp_path).spec, seen, Api()).problems if "DMARC" in item.summary]

    (problem,) = policies()
    assert problem.severity is Severity.WARNING
    assert problem.summary.startswith("mana.how has no DMARC record")
    assert policies(POLICY) == []


@pytest.mark.parametrize(
    ("provider", "words"),
    [
        (f"{{host: h, port: 25, {LOGIN}, api_key: {{env: API}}}}", "is for an API that is not known"),
        (f"{{preset: resend, {LOGIN}, api_key: {{env: API}}}}", "is for an API that is not known"),
        ("{preset: brevo, account: a@mana.how}", "smtp-relay.brevo.com does not know"),
        (f"{{preset: brevo, {LOGIN}, api_key: xkeysib-1}}", "api_key"),
    ],
)
def test_what_does_not_fit_a_provider(tmp_path, provider, words):
    accounts = HEAD.replace("a@mana.how: {}", "a@mana.how: {password: {env: A}}")
    (tmp_path / "a.yaml").write_text(f"{accounts}smtp: {{providers: {{p: {provider}}}}}\n")
    with pytest.raises(InvalidDirectory) as caught:
        load(tmp_path)
    assert words in str(caught.value)
    assert "xkeysib-1" not in str(caught.value)


def test_only_the_ports_of_implicit_tls_begin_with_it():
    for preset in PRESETS.values():
        assert preset.port not in preset.implicit


def test_l4_a_providers_records_alone_declare_no_zone(tmp_path: Path) -> None:
    own = f"own: {{host: h.example, port: 587, {LOGIN}, dns: {{other.how: [{{type: TXT, name: '@', content: x}}]}}}}"
    found = desired(tmp_path, f"provider: own, providers: {{{own}}}")
    assert found.zones == {ZONE}
    assert {item.zone for item in found.resources if isinstance(item, Record)} == {ZONE, "other.how"}
    live = Live(record("other.how", "MX", "@", "mail.other.how", priority=1), "1", "mana")
    plan = diff(found, {"cloudflare": Observation("cloudflare", [live])}, stack="mana")
    assert not any(change.deletes for change in plan.changes)
    assert plan.unmanaged == ("dns/other.how/MX/@",)
