"""What a failover makes of a spec: only who uses the provider in use is switched, and nothing is unpublished."""

from __future__ import annotations

import pytest

from reconciler.desired.derivation import desire, provider_logins
from reconciler.desired.failover import basis, failed_over
from reconciler.desired.load import load
from reconciler.resources import Record, Variable

DIRECTORY = """\
version: 1
stack: mana
targets:
  stalwart: {url: "http://127.0.0.1:1", username: admin, password: {env: ADMIN}}
  cloudflare: {token: {env: TOKEN}}
  compose: {file: compose.yml}
accounts: {noreply@mana.how: {password: {env: NOREPLY}}}
dns: {mana.how: []}
smtp:
  provider: one
  failover: {to: two}
  providers:
    one:
      host: mail
      port: 587
      account: noreply@mana.how
      dns: {mana.how: [{type: TXT, name: one._domainkey, content: "p=one"}]}
    two: {host: b.example, port: 465, username: u, password: {env: P}, standby: true}
    three: {host: c.example, port: 587, username: u, password: {env: P}}
  consumers:
    usual: {env: {HOST: "{host}"}}
    same: {provider: one, env: {HOST: "{host}"}}
    other: {provider: three, env: {HOST: "{host}"}}
"""


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "a.yaml").write_text(DIRECTORY)
    return load(tmp_path).spec


def hosts(spec):
    return {item.service: item.running for item in desire(spec).resources if isinstance(item, Variable)}


def test_who_uses_the_provider_is_switched_and_nobody_else(spec):
    assert hosts(spec) == {"usual": "mail", "same": "mail", "other": "c.example"}
    assert hosts(failed_over(spec)) == {"usual": "b.example", "same": "b.example", "other": "c.example"}


def test_the_records_of_the_provider_that_is_left_stay(spec):
    names = {item.name for item in desire(failed_over(spec)).resources if isinstance(item, Record)}
    assert names == {item.name for item in desire(spec).resources if isinstance(item, Record)} == {"one._domainkey"}


def test_without_failover_a_spec_stays_as_it_is(spec):
    plain = spec.model_copy(update={"smtp": spec.smtp.model_copy(update={"failover": None})})
    assert failed_over(plain) is plain


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("provider: one\n  failover", "provider: three\n  failover", False),
        ("{to: two}", "{to: two, after: 11m}", False),
        ("other: {provider: three", "other: {provider: two", False),
        ("same: {provider: one, ", "same: {", False),
        ("host: c.example", "host: d.example", True),
        ("dns: {mana.how: []}", "dns: {}", True),
    ],
)
def test_another_word_on_who_delivers_whose_mail_is_another_basis(spec, tmp_path, old, new, same):
    assert old in DIRECTORY
    (tmp_path / "a.yaml").write_text(DIRECTORY.replace(old, new))
    assert (basis(load(tmp_path).spec) == basis(spec)) is same


@pytest.mark.parametrize(
    ("generation", "names"),
    [("rest", {"noreply"}), ("jmap", {"noreply@mana.how"}), (None, {"noreply", "noreply@mana.how"})],
)
def test_the_login_at_a_provider_is_what_the_servers_generation_wants(spec, generation, names):
    assert {item.username for item in provider_logins(spec, "one", generation)} == names
    assert {(item.host, item.port) for item in provider_logins(spec, "two", generation)} == {("b.example", 465)}
