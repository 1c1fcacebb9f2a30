"""What the spec of a mail server means, and what is left alone while it can't be told."""

from pathlib import Path

import pytest

from reconciler.desired.derivation import Facts, desire
from reconciler.desired.load import load
from reconciler.dns.records import dkim_record
from reconciler.plan import diff
from reconciler.problem import InvalidDirectory, Problem, Severity, once
from reconciler.resources import (
    UNMANAGED,
    Account,
    Domain,
    Group,
    Live,
    MailingList,
    Observation,
    Record,
    SecretRef,
    Signature,
    Variable,
)

HEAD = """\
version: 1
stack: mana
targets:
  stalwart: {url: "http://127.0.0.1:1", username: admin, password: {env: ADMIN}}
  cloudflare: {token: {env: TOKEN}}
  compose: {file: compose.yml}
"""


def desired(path: Path, text: str, **seen: Observation):
    (path / "a.yaml").write_text(HEAD + text)
    return desire(load(path).spec, seen or None)


def of(kind, found):
    return [item for item in found.resources if isinstance(item, kind)]


def test_an_adopted_domain_is_taken_from_the_server_s_own_upkeep(tmp_path):
    for name in ("xn--bcher-kva.example", "Bücher.example"):
        found = desired(tmp_path, f"stalwart: {{default_domain: Bücher.example}}\nadopt: [domain/{name}]\n")
        assert of(Domain, found) == [Domain("xn--bcher-kva.example", manual=True)]
    (tmp_path / "a.yaml").write_text(HEAD + "stalwart: {default_domain: mana.how}\n")
    asked = desire(load(tmp_path).spec, adopt=["domain/mana.how"])
    assert of(Domain, asked) == [Domain("mana.how", manual=True)]


def test_an_account_of_an_international_domain_lives_in_its_domain(tmp_path):
    found = desired(
        tmp_path,
        """
accounts:
  Info@Bücher.Example: {password: {env: INFO}, aliases: [Post@BÜCHER.example]}
removed: [account/Old@bücher.example, domain/ÄLTER.example]
moved: [{from: account/was@bücher.example, to: account/Info@Bücher.Example}]
""",
    )
    (account,) = of(Account, found)
    domain = "xn--bcher-kva.example"
    assert of(Domain, found) == [Domain(domain)]
    assert (account.name, account.login, account.email) == (f"info@{domain}", "info", f"info@{domain}")
    assert account.aliases == (f"post@{domain}",)
    assert found.removed == {f"account/old@{domain}", "domain/xn--lter-koa.example"}
    assert found.moved == {f"account/was@{domain}": f"account/info@{domain}"}


KEYED = """
dns: {Mana.how: []}
dkim: {mana.HOW: [{selector: s1, algorithm: ed25519}]}
"""


@pytest.mark.parametrize("unreadable", ["", UNMANAGED])
def test_a_key_that_the_server_holds_and_nobody_can_read_is_not_published_as_revoked(tmp_path, unreadable):
    live = Live(Signature("mana.how", "s1", "ed25519", unreadable))
    found = desired(tmp_path, KEYED, stalwart=Observation("stalwart", [live], generation="rest"))
    assert [item.scope for item in found.problems] == ["dns/mana.how/TXT/s1._domainkey"]
    assert all("p=" not in str(item.content) for item in of(Record, found))
    (signature,) = of(Signature, found)
    assert signature.public_key is UNMANAGED


def test_names_of_keys_and_zones_have_no_case(tmp_path):
    key = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    live = Live(Signature("mana.how", "s1", "ed25519", key))
    found = desired(tmp_path, KEYED, stalwart=Observation("stalwart", [live], generation="rest"))
    (record,) = of(Record, found)
    assert key in record.content


def test_a_variable_says_which_passwords_of_accounts_it_needs_in_clear(tmp_path):
    found = desired(
        tmp_path,
        """
accounts: {noreply@mana.how: {password: {env: NOREPLY}}}
smtp:
  provider: own
  providers: {own: {host: stalwart, port: 587, account: noreply@mana.how}}
  consumers:
    notify:
      env: {PASSWORD: "{password}", HOST: "{host}", OTHER: {account: noreply@mana.how}, FOREIGN: {env: NOREPLY2}}
  links: [{value: {account: noreply@mana.how}, in: [a.X]}]
""",
        stalwart=Observation("stalwart", generation="rest"),
    )
    clear = {item.address: item.clear for item in of(Variable, found)}
    own = (SecretRef("env", "NOREPLY"),)
    assert clear == {
        "smtp/notify/PASSWORD": own,
        "smtp/notify/HOST": (),
        "smtp/notify/OTHER": own,
        "smtp/notify/FOREIGN": (),
        "smtp/a/X": own,
    }


@pytest.mark.parametrize("key", ["server.security.analysis.scan-ban", "frobnicate.it", "queue", "Queue.x"])
def test_a_setting_of_no_version_is_an_error(tmp_path, key):
    with pytest.raises(InvalidDirectory) as caught:
        desired(tmp_path, f"stalwart: {{settings: {{{key}: 'x'}}}}\n")
    assert "is a setting of no version" in str(caught.value)


KEYS = """\
targets: {stalwart: {url: "http://localhost:8080", username: admin, password: {env: P}}}
dkim:
  mana.how:
    - {selector: s1, algorithm: ed25519, public_key: "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
       private_key: {env: K}}
"""


@pytest.mark.parametrize(
    ("half", "severity", "words"),
    [
        ("oR3PJitX2xsZh5sFm1Lt5gMqR2jureP2WxVdY9CTjk4=", Severity.ERROR, "is not the private half"),
        (Problem("{env: K}", "the private key can't be read: K is not set"), Severity.WARNING, "can't get it back"),
    ],
)
def test_a_private_key_that_does_not_fit_or_can_not_be_read_is_told_while_all_is_well(tmp_path, half, severity, words):
    (tmp_path / "a.yaml").write_text(f"version: 1\nstack: mana\n{KEYS}")
    held = Signature("mana.how", "s1", "ed25519", HALF)
    spec, seen = load(tmp_path).spec, {"stalwart": Observation("stalwart", [Live(held)])}
    facts = Facts({(SecretRef("env", "K"), "ed25519"): half})
    (problem,) = desire(spec, seen, facts).problems
    assert (problem.where, problem.severity) == ("dkim/mana.how/s1", severity)
    assert words in problem.summary
    assert desire(spec, {}, facts).problems == ()


def test_u18_a_private_key_that_is_needed_and_can_not_be_read_is_told_once_and_stops_its_key(tmp_path):
    (tmp_path / "a.yaml").write_text(f"version: 1\nstack: mana\n{KEYS}")
    spec = load(tmp_path).spec
    half = Problem("{env: K}", "the private key can't be read: K is not set", "export K")
    facts = Facts({(SecretRef("env", "K"), "ed25519"): half})
    (problem,) = desire(spec, {"stalwart": Observation("stalwart")}, facts).problems
    assert (problem.severity, problem.scope) == (Severity.ERROR, "dkim/mana.how/s1")
    assert problem.hint.startswith("export K; if it is gone for good: ")
    told = Observation("stalwart", problems=(problem,))  # by the target, which looked itself
    assert desire(spec, {"stalwart": told}, facts).problems == ()


def test_u18_a_warning_that_says_what_an_error_says_is_left_out():
    warning, other = Problem("a", "is so", "do this", Severity.WARNING), Problem("b", "is so", "", Severity.WARNING)
    refused = Problem("a", "is so", "do that", Severity.REFUSED, "a")
    assert once([warning, other, refused, other]) == (other, refused)


UNSAID = """\
version: 1
stack: mana
targets: {cloudflare: {token: {env: T}}}
dns: {mana.how: [{type: A, name: mail, content: 192.0.2.1}]}
dkim: {mana.how: [{selector: s1, algorithm: ed25519, private_key: {env: K}}]}
"""
HALF = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


def planned(path, half, *live):
    (path / "a.yaml").write_text(UNSAID)
    seen = {"cloudflare": Observation("cloudflare", tuple(Live(item, "1", "mana") for item in live))}
    facts = Facts({(SecretRef("env", "K"), "ed25519"): half})
    return diff(desire(load(path).spec, seen, facts), seen, stack="mana")


def test_a_private_key_that_can_be_read_serves_dns_without_the_server(tmp_path):
    plan = planned(tmp_path, HALF)
    made = {change.address: change.after for change in plan.changes}
    assert made.keys() == {"dns/mana.how/A/mail", "dns/mana.how/TXT/s1._domainkey"}
    assert HALF in str(made["dns/mana.how/TXT/s1._domainkey"])
    assert plan.problems == ()


@pytest.mark.parametrize("there", [True, False])
def test_the_record_of_a_private_key_that_can_not_be_read_stays_and_the_rest_is_planned(tmp_path, there):
    old = dkim_record("mana.how", "mana.how", "s1", "ed25519", HALF)
    unread = Problem("{env: K}", "the private key can't be read: K is not set")
    plan = planned(tmp_path, unread, *([old] if there else []))
    assert [change.address for change in plan.changes] == ["dns/mana.how/A/mail"]
    assert plan.complete
    assert not plan.errors
    (problem,) = plan.problems
    assert (problem.where, problem.severity) == ("dns/mana.how/TXT/s1._domainkey", Severity.WARNING)
    assert "stays as it is: the private key can't be read" in problem.summary


MAIL = """
accounts:
  till@mana.how: {groups: [Staff@Mana.how, boss, legacy]}
groups:
  staff@mana.how: {description: Staff, aliases: [Team@mana.how]}
  boss@mana.dev: {aliases: }
lists:
  news@Bücher.example: {members: [B@x.y, a@BÜCHER.example, b@X.y], description: }
  all@mana.how: {members: []}
domains:
  Mana.how: {description: Ours, catch_all: Till@Mana.how, aliases: [Mana.net], sub_addressing: false}
  only.example: {}
removed: [group/Old@Mana.how, list/was@mana.how]
"""


def test_groups_lists_and_domains_are_normalised_and_absent_is_unmanaged(tmp_path):
    found = desired(tmp_path, MAIL)
    assert of(Group, found) == [
        Group("staff@mana.how", "Staff", ("team@mana.how",)),
        Group("boss@mana.dev", UNMANAGED, ()),
    ]
    news, everybody = of(MailingList, found)
    puny = "xn--bcher-kva.example"
    assert news == MailingList(f"news@{puny}", None, UNMANAGED, (f"a@{puny}", "b@x.y"))
    assert (everybody.members, everybody.aliases) == ((), UNMANAGED)
    (account,) = of(Account, found)
    assert account.groups == ("boss@mana.dev", "legacy", "staff@mana.how"), "the bare name of a declared group is its"
    domains = {item.name: item for item in of(Domain, found)}
    assert sorted(domains) == ["mana.dev", "mana.how", "only.example", puny], "members elsewhere make no domain"
    assert domains["mana.how"] == Domain("mana.how", UNMANAGED, "Ours", "till@mana.how", ("mana.net",), False)
    assert domains["only.example"] == Domain("only.example")
    assert found.removed == {"group/old@mana.how", "list/was@mana.how"}
    assert found.problems == ()


def test_what_a_domain_can_not_be_up_to_0_15_is_an_error_that_names_0_16(tmp_path):
    seen = Observation("stalwart", generation="rest")
    found = desired(tmp_path, MAIL, stalwart=seen)
    assert [item.where for item in found.problems] == ["domain/mana.how"] * 2
    assert all("needs 0.16" in item.summary for item in found.problems)
    (domain,) = [item for item in of(Domain, found) if item.name == "mana.how"]
    assert domain == Domain("mana.how", UNMANAGED, "Ours", "till@mana.how"), "the rest of it is kept"
    plain = desired(tmp_path, "domains: {mana.how: {sub_addressing: true, aliases: []}}\n", stalwart=seen)
    assert plain.problems == ()
    assert desired(tmp_path, MAIL, stalwart=Observation("stalwart", generation="jmap")).problems == ()
