"""A directory is valid as a whole or not at all: every mistake of every file at once, each at its place."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.desired import spec, starter
from reconciler.desired.load import Directory, load
from reconciler.desired.spec import mail
from reconciler.dns.records import record as make_record
from reconciler.dns.types import TYPES
from reconciler.problem import InvalidDirectory
from reconciler.resources import SecretRef

EXAMPLE = Path(__file__).parents[1] / "example" / "desired-state"
SECRET = "hunter2-canary"
HEAD = "version: 1\nstack: mana\n"


def write(path: Path, **files: str) -> Path:
    for name, text in files.items():
        (path / f"{name}.yaml").write_text(text)
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(InvalidDirectory) as caught:
        load(path)
    assert SECRET not in str(caught.value) + repr(caught.value)
    return [str(problem) for problem in caught.value.problems]


def only(path: Path, text: str) -> str:
    (found,) = problems(write(path, a=HEAD + text))
    return found


def good(path: Path, text: str) -> spec.Spec:
    return load(write(path, a=HEAD + text)).spec


# ------------------------------------------------------------------------------------------------------ the example
@pytest.fixture(scope="module")
def example() -> Directory:
    return load(EXAMPLE)


def test_the_example_loads(example: Directory) -> None:
    assert example.spec.stack == "mana"
    assert example.spec.accounts["postmaster@mana.how"].quota == 1 << 30
    assert example.spec.accounts["admin"].password == SecretRef("env", "STALWART_ADMIN_PASSWORD")
    assert example.spec.stalwart.auto_ban.scan == "off"
    assert example.spec.smtp.links[0].ends == ("mana-auth.MANA_SERVICE_KEY", "mana-notify.SERVICE_KEY")
    assert [key.stage for key in example.spec.dkim["mana.how"]] == ["active", "active"]
    assert len(example.files) == 6
    assert re.fullmatch("[0-9a-f]{64}", example.digest)


def test_places_of_the_example(example: Directory) -> None:
    assert str(example.places.of("dns", "mana.how", 1, "priority")) == "dns.yaml:5:63"
    assert str(example.places.of("dns", "mana.how", 1)) == "dns.yaml:5:7"
    assert str(example.places.of("accounts", "admin")) == "accounts.yaml:3:3"
    assert str(example.places.of("targets", "cloudflare", 0, "token")) == "reconciler.yaml:13:5"
    assert str(example.places.of("stalwart", "listeners", "submission", "bind", 0)) == "stalwart.yaml:8:24"
    assert example.places.of("dns", "mana.how", 1, "ttl") is None


def test_every_reference_of_the_example(example: Directory) -> None:
    found = {str(ref) for _, ref in spec.references(example.spec)}
    assert found >= {"{env: BREVO_SMTP_KEY}", "{env: MANA_SERVICE_KEY}", "{file: ../secrets/rsa2026.pem}"}
    assert all(example.places.of(*path) for path, _ in spec.references(example.spec))


def test_absent_is_not_null_and_not_empty(tmp_path: Path) -> None:
    text = "accounts:\n  a@b.c: {}\n  d@b.c: {quota: null, aliases: [], groups: ~, description: null}\n"
    accounts = good(tmp_path, text.replace(", description: null", "")).accounts
    assert not accounts["a@b.c"].model_fields_set
    assert accounts["d@b.c"].model_fields_set == {"quota", "aliases", "groups"}
    assert accounts["d@b.c"].aliases == ()
    assert accounts["d@b.c"].groups is None
    assert accounts["a@b.c"].roles == ("user",)
    assert accounts["a@b.c"].enforce_password is True


def test_null_clears_texts_too(tmp_path: Path) -> None:
    text = "accounts:\n  a@b.c: {description: null}\ndns:\n  b.c:\n    - {type: A, name: x, content: 1.2.3.4, comment: ~}\n"  # noqa: E501
    loaded = good(tmp_path, text)
    assert loaded.accounts["a@b.c"].model_fields_set == {"description"}
    assert loaded.accounts["a@b.c"].description is None
    assert "comment" in loaded.dns["b.c"][0].model_fields_set


# ------------------------------------------------------------------------------------------------------- many files
def test_maps_are_spread_over_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub", smtp="smtp: {providers: {two: {host: h, port: 25, username: u, password: {env: P}}}}")
    write(
        tmp_path,
        a=HEAD + "accounts: {a@b.c: {}}\ndns: {b.c: []}\nsmtp: {provider: two, providers: }",
        b="accounts: {d@b.c: {}}\ndns: {d.e: []}\nx-free: 1",
        c="# nothing\n",
        d="x-free: 2",
    )
    loaded = load(tmp_path)
    assert set(loaded.spec.accounts) == {"a@b.c", "d@b.c"}
    assert set(loaded.spec.dns) == {"b.c", "d.e"}
    assert loaded.files == ("a.yaml", "b.yaml", "c.yaml", "d.yaml", "sub/smtp.yaml")
    assert str(loaded.places.of("smtp", "providers", "two", "host")) == "sub/smtp.yaml:1:32"


@pytest.mark.parametrize(
    "text",
    ["accounts: {a@b.c: {}}", "dns: {b.c: []}", "dkim: {b.c: []}", "stack: x", "smtp: {provider: p}", "policy: {}"],
)
def test_a_key_stands_once(tmp_path: Path, text: str) -> None:
    write(tmp_path, a=HEAD.replace("stack: mana\n", "" if "stack" in text else "stack: mana\n") + text, b=text)
    found = [problem for problem in problems(tmp_path) if "stands twice" in problem]
    assert len(found) == 1
    assert found[0].startswith("b.yaml:1:")
    assert "the first is at a.yaml:" in found[0]


def test_the_digest_follows_the_contents(tmp_path: Path) -> None:
    first = load(write(tmp_path, a=HEAD)).digest
    (tmp_path / "more.sops.yaml").write_text("x: !tag [")
    assert load(tmp_path).digest == first
    assert load(write(tmp_path, a=HEAD + "\n")).digest != first


def test_secrets_and_dot_files_are_no_desired_state(tmp_path: Path) -> None:
    write(tmp_path, a=HEAD, b=f"anything: {SECRET}\nsops: {{version: 3}}\n")
    (tmp_path / "c.sops.yaml").write_text("not: [yaml")
    (tmp_path / ".hidden.yaml").write_text("not: [yaml")
    (tmp_path / ".git").mkdir()
    write(tmp_path / ".git", config="not: [yaml")
    (tmp_path / "README.md").write_text("not: [yaml")
    assert load(tmp_path).files == ("a.yaml",)


# ---------------------------------------------------------------------------------------------------- hostile files
def test_names_that_would_not_be_read(tmp_path: Path) -> None:
    write(tmp_path, a=HEAD)
    (tmp_path / "b.yml").write_text("x: 1")
    (tmp_path / "c.YAML").write_text("x: 1")
    first, second = problems(tmp_path)
    assert first == "b.yml: ends in .yml and would not be read (rename it to b.yaml)"
    assert "rename it to c.yaml" in second


def test_links(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    write(outside, secret=f"accounts: {SECRET}")
    (inside / "..data").mkdir()
    write(inside / "..data", a=HEAD)
    (inside / "a.yaml").symlink_to("..data/a.yaml")  # how Kubernetes mounts a ConfigMap
    (tmp_path / "link").symlink_to(inside)
    assert load(tmp_path / "link").spec.stack == "mana"
    (inside / "b.yaml").symlink_to(outside / "secret.yaml")
    (inside / "c").symlink_to(outside)
    (inside / "d.yaml").symlink_to("d.yaml")
    (inside / "e").symlink_to(".")
    found = problems(inside)
    assert [problem.split(":")[0] for problem in found] == ["b.yaml", "c", "d.yaml", "e"]
    assert "leaves the directory" in found[0]
    assert "leaves the directory" in found[1]
    assert "leads back" in found[3]


def test_what_is_no_file_does_not_block(tmp_path: Path) -> None:
    write(tmp_path, a=HEAD)
    os.mkfifo(tmp_path / "b.yaml")
    assert problems(tmp_path) == [
        "b.yaml: is no regular file (remove it, or rename it so that it does not end in .yaml)"
    ]


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, a=HEAD)
    with (tmp_path / "b.yaml").open("wb") as file:
        file.truncate(100 << 30)
    assert problems(tmp_path) == ["b.yaml: is larger than 1 MiB (spread it over several files)"]


def test_t11_many_links_to_the_largest_file_fill_no_memory(tmp_path: Path) -> None:
    write(tmp_path, a=HEAD, b=f"x-a: {'a' * (1 << 19)}\n")
    for number in range(400):
        (tmp_path / f"c{number}.yaml").symlink_to("b.yaml")
    tracemalloc.start()
    try:
        found = problems(tmp_path)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == [".: holds more than 8 MiB of YAML (is this the right directory?)"]
    assert most < 64 << 20


def test_t11_aliases_of_all_files_together_are_bounded(tmp_path: Path) -> None:
    many = "- &a [x,x,x,x,x,x,x,x,x]\n- &b [*a,*a,*a,*a,*a,*a,*a,*a]\n- [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
    names = [f"f{number:03}" for number in range(200)]
    write(tmp_path, a=HEAD, **{name: f"x-{name}:\n{many}" for name in names})
    first = problems(tmp_path)[0]
    assert re.match(r"f\d\d\d\.yaml:\d:\d+: x-f\d\d\d\[\d\]\S*: anchors explode", first), first
    write(tmp_path, **dict.fromkeys(names[20:], "# nothing"))
    load(tmp_path)


ONE_DOMAIN = ("bücher.de", "BÜCHER.de", "xn--bcher-kva.de", "ｂücher.de", "bücher。de", "bücher.de.")
KEYED = "{{selector: {}, algorithm: ed25519, public_key: oR3PJitX2xsZh5sFm1Lt5gMqR2jureP2WxVdY9CTjk4=}}"


@pytest.mark.parametrize("other", ONE_DOMAIN)
def test_l2_two_spellings_of_a_domain_are_one(tmp_path: Path, other: str) -> None:
    """One would be removed, moved or written with another token by the other's name."""
    declared = f"accounts: {{a@bücher.de: {{}}}}\ndkim: {{bücher.de: [{KEYED.format('s')}]}}\n"
    for gone in ("account/a@{}", "account/A@{}", "domain/{}", "dkim/{}/s", "dkim/{}/S"):
        found = only(tmp_path, f"{declared}removed: ['{gone.format(other)}']")
        assert f"removed[0]: {gone.format(other)} is declared at a.yaml" in found
    moved = "moved: [{{from: 'account/{}', to: 'account/{}'}}]"
    assert "is still declared" in only(tmp_path, declared + moved.format(f"a@{other}", "a@bücher.de"))
    both = f"moved: [{{from: 'account/b@{other}', to: account/a@bücher.de}}]\nremoved: [account/b@bücher.de]"
    assert "is also removed" in only(tmp_path, declared + both)


@pytest.mark.parametrize("other", ["BÜCHER.de", "xn--bcher-kva.de", "ｂücher.de"])
def test_l2_a_zone_and_a_key_s_domain_stand_once_however_they_are_spelled(tmp_path: Path, other: str) -> None:
    zones = f"[{{token: {{env: A}}, zones: [bücher.de]}}, {{token: {{env: B}}, zones: [{other}]}}]"
    assert "also stands at" in only(tmp_path, f"targets: {{cloudflare: {zones}}}")
    assert "also stands at" in only(tmp_path, f"dns: {{bücher.de: [], {other}: []}}")
    keys = f"bücher.de: [{KEYED.format('s')}], {other}: [{KEYED.format('t')}]"
    assert "also stands at" in only(tmp_path, f"dkim: {{{keys}}}")
    token = f"targets: {{cloudflare: {{token: {{env: A}}, zones: [bücher.de]}}}}\ndns: {{{other}: []}}\n"
    write(tmp_path, a=f"{HEAD}{token}accounts: {{a@bücher.de: {{}}}}\nstalwart: {{default_domain: {other}}}")
    load(tmp_path)


@pytest.mark.parametrize(
    "moves",
    [
        "{from: account/x@m.h, to: account/b@m.h}, {from: account/y@m.h, to: account/b@m.h}",
        "{from: account/x@m.h, to: account/b@m.h}, {from: account/X@M.H, to: account/c@m.h}",
    ],
)
def test_l2_a_mailbox_goes_to_one_account_and_an_account_has_one(tmp_path: Path, moves: str) -> None:
    found = only(tmp_path, f"accounts: {{b@m.h: {{}}, c@m.h: {{}}}}\nmoved: [{moves}]")
    assert "also stands at a.yaml:4:" in found


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ad\u200bmin@m.h", "ZERO WIDTH SPACE"),
        ("nimda\u202e@m.h", "RIGHT-TO-LEFT OVERRIDE"),
        ("adm\u00adin", "SOFT HYPHEN"),
        ("jose\u0301@m.h", "write jos\u00e9@m.h"),
        ("jose\u0301", "write jos\u00e9"),
    ],
)
def test_l2_a_name_that_only_looks_like_another_is_refused(tmp_path: Path, name: str, why: str) -> None:
    written = json.dumps(name)
    assert why in only(tmp_path, f"accounts: {{{written}: {{}}}}")
    if "@" in name:
        assert why in only(tmp_path, f"accounts: {{a@m.h: {{aliases: [{written}]}}}}")


@pytest.mark.parametrize(
    "text",
    [
        "accounts:\n" + "".join(f"  a{number}@m.h: []\n" for number in range(30_000)),
        "dns:\n  m.h:\n" + "  - {type: A, name: a, content: x, ttl: x}\n" * 20_000,
        "accounts:\n" + "".join(f"  a{number}@m.h: {{}}\n  a{number}@m.h: {{}}\n" for number in range(20_000)),
        "dns:\n  m.h:\n" + "  - {type: A, name: a, content: 192.0.2.1}\n" * 20_000,
        "accounts:\n" + "".join(f"  a@m{number}.h: {{}}\n" for number in range(30_000)),
    ],
    ids=["values", "entries", "keys", "records", "logins"],
)
def test_t11_of_a_directory_of_mistakes_alone_a_thousand_are_told(tmp_path: Path, text: str) -> None:
    """Each was looked for among all the others: a file of a megabyte took ten minutes."""
    write(tmp_path, a=HEAD + text)
    assert 1000 <= len(problems(tmp_path)) <= 1001


def test_an_unreadable_file(tmp_path: Path) -> None:
    write(tmp_path, a=HEAD)
    (tmp_path / "b.yaml").symlink_to("gone.yaml")
    assert problems(tmp_path) == [
        "b.yaml: can't be read: No such file or directory (give us the right to read it, or remove it)"
    ]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"a: \xff\xfe", "a.yaml:1:4: is not UTF-8"),
        ("stack: mana".encode("utf-16"), "a.yaml:1:1: is UTF-16"),
        (b"a: \0", "a.yaml:1:4: has the character U+0000"),
        (b"- a\n", "a.yaml:1:1: must be a map"),
        (b"", "a.yaml:1:1: stack: is missing"),
    ],
)
def test_what_is_no_map_of_text(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    assert any(problem.startswith(what) for problem in problems(tmp_path))


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbf" + HEAD.encode())
    assert load(tmp_path).spec.stack == "mana"


def test_no_directory_and_an_empty_one(tmp_path: Path) -> None:
    assert "does not exist" in problems(tmp_path / "none")[0]
    assert "holds no *.yaml" in problems(tmp_path)[0]
    (tmp_path / "file").touch()
    assert "is not a directory" in problems(tmp_path / "file")[0]
    write(tmp_path, a="sops: {}")
    assert "say nothing" in problems(tmp_path)[0]


def test_ten_thousand_records(tmp_path: Path) -> None:
    lines = [f"    - {{type: A, name: h{i}, content: 10.0.{i >> 8}.{i & 255}}}\n" for i in range(10_000)]
    loaded = good(tmp_path, "dns:\n  mana.how:\n" + "".join(lines))
    assert len(loaded.dns["mana.how"]) == 10_000


# ------------------------------------------------------------------------------------------------ all at once, where
def test_all_mistakes_of_all_files_by_file_and_line(tmp_path: Path) -> None:
    write(
        tmp_path,
        a=HEAD + "dns:\n  mana.how:\n    - {type: A, name: a, content: 1.2.3.4, ttl: 30}\n    - {type: MX, name: a}\n",
        b="accounts:\n  a@x.y: {quotas: 1}\n  a@z.y: {}\n  b@z.y: {login: a}\nsmtp: {provider: c}\n",
        c="stalwart: []\nsmtp: 1\n",
    )
    assert problems(tmp_path) == [
        "a.yaml:5:49: dns.mana.how[0].ttl: must be auto, or 60 to 86400 seconds (write ttl: auto, or ttl: 300)",
        "a.yaml:6:7: dns.mana.how[1].content: is missing: MX needs a content (write content: VALUE)",
        "b.yaml:2:11: accounts.a@x.y.quotas: is not known (did you mean quota?)",
        (
            "b.yaml:4:18: accounts.b@z.y.login: has the login a, and so has b.yaml:3:3 (accounts.a@z.y) "
            "(give one of them a login of its own: `login: NAME`)"
        ),
        "b.yaml:5:18: smtp.provider: there is no provider c (declare it under smtp.providers)",
        ("c.yaml:1:1: stalwart: must be a map (write KEY: VALUE lines below it, {KEY: VALUE}, or {} for an empty one)"),
        "c.yaml:2:1: smtp: stands twice (the first is at b.yaml:5:1: keep one)",
    ]


def test_what_may_stand_in_an_unreadable_file_is_not_missed(tmp_path: Path) -> None:
    write(tmp_path, a="smtp: {provider: c}\naccounts: {a@z.y: {}, a@x.y: {}}", b="stack: [\n")
    first, second = problems(tmp_path)
    assert first.startswith("a.yaml:2:23: accounts.a@x.y: has the login a")
    assert second.startswith("b.yaml:2:1: is not YAML")


def test_places_hold_beside_entries_that_are_left_out(tmp_path: Path) -> None:
    rows = ["ttl: 5", "", "ttl: 6", "", ""]
    lines = [f"    - {{type: A, name: a, content: 1.2.3.{4 if row else 5}, {row}}}\n" for row in rows]
    found = problems(write(tmp_path, a=HEAD + "dns:\n  mana.how:\n" + "".join(lines)))
    assert [problem.split(": ")[1] for problem in found] == [
        *("dns.mana.how[0].ttl", "dns.mana.how[2].ttl", "dns.mana.how[3]", "dns.mana.how[4]"),
    ]
    assert "a.yaml:6:7 (dns.mana.how[1])" in found[2]


@pytest.mark.parametrize(
    "text",
    [
        f"accounts: {{a@b.c: {{password: {SECRET}}}}}",
        f"accounts: {{a@b.c: {{password: {{{SECRET}}}}}}}",
        f"accounts: {{a@b.c: {{password: {{env: '{SECRET} x'}}}}}}",
        f"accounts: {{a@b.c: {{password: [{SECRET}]}}}}",
        f"accounts: {{a@b.c: {{password: *{SECRET} }}}}",
        f"accounts: {{a@b.c: {{password: !{SECRET} }}}}",
        f"stack2: '{SECRET}",
        f"targets: {{cloudflare: {{token: {SECRET}}}}}",
        f"targets: {{cloudflare: [{{token: {SECRET}}}]}}",
        f"targets: {{cloudflare: {SECRET}}}",
        f"targets: {{stalwart: {{url: 'http://admin:{SECRET}@localhost', username: a, password: {{env: P}}}}}}",
        f"targets: {{stalwart: {{url: 'http://localhost', username: a, password: [{{env: P}}, {SECRET}]}}}}",
        f"dkim: {{b.c: [{{selector: a, algorithm: rsa, private_key: '{SECRET}'}}]}}",
        f"dkim: {{b.c: [{{selector: a, algorithm: rsa, public_key: '-----BEGIN PRIVATE KEY {SECRET}'}}]}}",
        f"stalwart: {{settings: {{queue.route.relay.auth.secret: {SECRET}}}}}",
        f"smtp: {{links: [{{value: {SECRET}, in: [a.B]}}]}}",
        f"smtp: {{consumers: {{a: {{env: {{P: 'x{{{SECRET}}}'}}}}}}}}",
        f"smtp: {{providers: {{a: {{host: h, port: 1, username: u, password: {SECRET}}}}}}}",
    ],
)
def test_a_secret_written_out_is_not_repeated(tmp_path: Path, text: str) -> None:
    found = problems(write(tmp_path, a=HEAD + text))  # `problems` looks for it
    assert found
    assert all(problem.startswith("a.yaml:3:") and problem.endswith(")") for problem in found)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("accounts: {a@b.c: {password: }}", "must be a reference"),
        ("accounts: {a@b.c: {roles: admin}}", "write [ONE, ANOTHER]"),
        ("accounts: {a@b.c: {quota: 1 Gigabyte}}", "write it like 1 GiB"),
        ("accounts: {a@b.c: {enforce_password: maybe}}", "write one of the two"),
        ("accounts: {~: {}}", "has nothing as a key"),
        ("dkim: {b.c: [{selector: a, algorithm: rsa, stage: old}]}", "write stage: pending"),
        ("policy: {max_deletes: -1}", "write it in digits alone"),
        ("stalwart: {auto_ban: {auth: often}}", "write off, 30/1d"),
        ("smtp: {providers: {p: {host: 'h:587', port: 587, username: u, password: {env: P}}}}", "is no host"),
        ("smtp: {links: [a.B]}", "is no link (write [SERVICE.VARIABLE"),
        ("smtp: {links: [{value: {env: X}, in: [a]}]}", "write it like web.SMTP_PASSWORD"),
        ("smtp: {consumers: {c: {env: {A: {host}}}}}", 'without quotes, which YAML reads as a map (write "{host}")'),
        ("smtp: {consumers: {c: {env: {A: {password|url}}}}}", 'write "{password|url}"'),
    ],
)
def test_every_hint_clears_what_it_is_about(tmp_path: Path, text: str, what: str) -> None:
    assert what in only(tmp_path, text)


def test_a_host_may_be_an_address(tmp_path: Path) -> None:
    provider = "{host: '2001:db8::1', port: 587, username: u, password: {env: P}}"
    assert good(tmp_path, f"smtp: {{providers: {{p: {provider}}}}}").smtp.providers["p"].host == "2001:db8::1"


# --------------------------------------------------------------------------------------------------- what fits where
STANDBY = """\
targets: {compose: {file: c.yml}}
smtp:
  provider: one
  providers:
    one: {host: a.example, port: 587, username: u, password: {env: P}}
    two: {host: b.example, port: 587, username: u, password: {env: P}, standby: true}
"""
ACCOUNTS = "accounts: {admin: {}, n@m.h: {password: {env: N}}, p@m.h: {aliases: [q@m.h]}}\n"
KEY = "oR3PJitX2xsZh5sFm1Lt5gMqR2jureP2WxVdY9CTjk4="


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("accounts: {a@b.c: {}, A@b.c: {}}", "has the login a, and so has a.yaml:3:12 (accounts.a@b.c)"),
        ("accounts: {a@b.c: {}, d@b.c: {aliases: [a@b.c]}}", "also the address at a.yaml:3:12 (accounts.a@b.c)"),
        ("accounts: {a@b.c: {aliases: [x@b.c]}, d@b.c: {aliases: [X@b.c]}}", "accounts.a@b.c.aliases[0]"),
        ("accounts: {a@b.c: {login: x}, A@b.c: {}}", "A@b.c is also the address at a.yaml:3:12 (accounts.a@b.c)"),
        ("accounts: {a@b.c: {}}\ngroups: {a@b.c: {}}", "a.yaml:4:10: groups.a@b.c: a@b.c is also the address at a.yaml:3:12"),  # noqa: E501
        ("lists: {a@b.c: {}}\ngroups: {d@b.c: {aliases: [A@B.c]}}", "is also the address at a.yaml:3:9 (lists.a@b.c)"),
        ("groups: {a@b.c: {aliases: [x@bücher.c]}}\nlists: {d@b.c: {aliases: [x@xn--bcher-kva.c]}}", "lists.d@b.c.aliases[0]"),  # noqa: E501
        ("groups: {a@b.c: {}, A@b.c: {}}", "A@b.c is also the address at a.yaml:3:10 (groups.a@b.c)"),
        ("lists: {a@b.c: {members: [D@b.c]}, d@b.c: {}}", "D@b.c is the list at a.yaml:3:36 (lists.d@b.c)"),
        ("lists: {a@b.c: {members: [x@b.c]}, d@b.c: {aliases: [x@b.c]}}", "the server passes no mail on from a list"),
        ("groups: {a@b.c: {}}\naccounts: {d@b.c: {groups: [e@b.c]}}\nlists: {e@b.c: {}}", "e@b.c is no group but stands at a.yaml:5:9"),  # noqa: E501
        ("groups: {a@b.c: {aliases: [e@b.c]}}\naccounts: {d@b.c: {groups: [e@b.c]}}", "write the key of one under groups"),  # noqa: E501
        ("domains: {b.c: {aliases: [x.c]}, x.c: {}}", "x.c is a domain of its own at a.yaml:3:34 (domains.x.c)"),
        ("domains: {b.c: {aliases: [X.c]}}\nlists: {a@x.c: {}}", "X.c is a domain of its own at a.yaml:4:9 (lists.a@x.c)"),  # noqa: E501
        ("domains: {b.c: {aliases: [b.c]}}", "b.c is a domain of its own"),
        ("domains: {b.c: {aliases: [x.c]}, d.c: {aliases: [x.c]}}", "x.c is also an alias at a.yaml:3:27"),
        ("domains: {bücher.c: {}, xn--bcher-kva.c: {}}", "also stands at a.yaml:3:11 (domains.bücher.c)"),
        ("domains: {b.c: {sub_addressing: }}", "must be true or false"),
        ("domains: {b.c: {catch_all: b.c}}", "is no e-mail address"),
        ("groups: {a: {}}", "is no e-mail address"),
        ("lists: {a@b.c: {members: [b]}}", "is no e-mail address"),
        ("groups: {a@b.c: {}}\nremoved: [group/A@b.c]", "group/A@b.c is declared at a.yaml:3:10 (groups.a@b.c)"),
        ("lists: {a@b.c: {}}\nremoved: [list/a@b.c]", "list/a@b.c is declared at a.yaml:3:9 (lists.a@b.c)"),
        ("lists: {a@b.c: {}}\nremoved: [domain/b.c]", "domain/b.c is declared at a.yaml:3:9 (lists.a@b.c)"),
        ("domains: {b.c: {}}\nremoved: [domain/b.c]", "domain/b.c is declared at a.yaml:3:11 (domains.b.c)"),
        ("accounts: {a@b.c: {groups: [s@b.c]}}\nremoved: [group/s@b.c]", "a@b.c belongs to s@b.c, as a.yaml:3:29"),
        ("domains: {b.c: {catch_all: X@b.c}}\nremoved: [account/x@b.c]", "x@b.c is the catch-all of b.c, as a.yaml:3:28"),  # noqa: E501
        ("accounts: {a@b.c: {password: {account: a@b.c}}}", "password of an account"),
        ("accounts: {a@b.c: {quota: 0}}", "write null for none"),
        ("accounts: {a@b.c: {description: }}\nstalwart: {default_domain: b.d}", "did you mean b.c? Else `domains: {b.d: {}}`"),  # noqa: E501
        (ACCOUNTS + "smtp: {consumers: {s: {env: {P: {account: n@m.x}}}}}", "did you mean n@m.h?"),
        (ACCOUNTS + "smtp: {providers: {a: {host: h, port: 1, account: admin}}}", "a.yaml:3:12 (accounts.admin) has no"),  # noqa: E501
        (ACCOUNTS + "smtp: {consumers: {s: {env: {P: '{host}'}}}}", "none is chosen"),
        (ACCOUNTS + "smtp: {consumers: {s: {provider: x}}}", "there is no provider x"),
        (STANDBY + "  failover: {to: three}", "smtp.failover.to: there is no provider three"),
        (STANDBY + "  failover: {to: one}", "smtp.failover.to: is the provider in use itself"),
        (STANDBY.partition("\n")[2] + "  failover: {to: two}", "smtp.failover: switches services"),
        (STANDBY.replace("standby: true", "standby: false") + "  failover: {to: two}", "two does not stand by"),
        (STANDBY.replace("provider: one", "") + "  failover: {to: two}", "stands in for smtp.provider, and none is"),
        (STANDBY + "  failover: {to: two, after: 1}", "smtp.failover.after: is no time (write it like 90s"),
        ("smtp: {consumers: {s: {env: {P: x}}}, links: [{value: {env: V}, in: [s.P]}]}", "is also set at a.yaml:3:33"),
        ("smtp: {links: [{value: {env: V}, in: [s.P]}, {value: {env: W}, in: [s.P]}]}", "is also set at a.yaml:3:39"),
        ("smtp: {providers: {a: {account: b, port: 1}}}\naccounts: {b: {password: {env: B}}}", "host: is missing"),
        (f"dkim: {{m.h: [{{selector: a, algorithm: ed25519, public_key: {KEY}}}, {{selector: a, algorithm: rsa}}]}}", "stands at"),  # noqa: E501
        ("dkim: {m.h: [{selector: a, algorithm: rsa}, {selector: b, algorithm: rsa}]}", "a second active rsa key"),
        ("dkim: {m.h: [{selector: a, algorithm: rsa, stage: retiring}]}", "public_key: is missing"),
        ("dkim: {m.h: [{selector: a, algorithm: rsa, since: 2026-13-01}]}", "must be a day"),
        ("dkim: {m.h: [{selector: a..b, algorithm: rsa}]}", "is no selector"),
        ("dkim: {m.h: [{selector: a, algorithm: rsa}]}\ndns: {m.h: [{type: TXT, name: a._domainkey, content: x}]}", "is the record of the DKIM key at a.yaml:3:14"),  # noqa: E501
        ("dkim: {s.m.h: [{selector: a, algorithm: rsa}]}\ndns: {m.h: [{type: TXT, name: A._domainkey.s, content: x}]}", "is the record of the DKIM key"),  # noqa: E501
        ("stalwart: {settings: {lookup.default.hostname: x}}", "has a word of its own: stalwart.hostname"),
        ("stalwart: {settings: {server.hostname: x}}", "has a word of its own: stalwart.hostname"),
        ("stalwart: {settings: {server.auto-ban.scan.rate: x}}", "has a word of its own: stalwart.auto_ban"),
        ("stalwart: {settings: {server.allowed-ip.1.2.3.4: ''}}", "has a word of its own: stalwart.allowed_ips"),
        ("stalwart: {settings: {server.listener.x.bind: ''}}", "has a word of its own: stalwart.listeners"),
        ("stalwart: {settings: {signature.x.selector: ''}}", "has a word of its own: dkim"),
        ("stalwart: {objects: {SystemSettings: {singleton: {defaultHostname: x}}}}", "a word of its own: stalwart.hostname"),  # noqa: E501
        ("stalwart: {allowed_ips: [{network: n}]}", "add targets.compose"),
        ("stalwart: {allowed_ips: [10.0.0.1/8, 10.0.0.0/8]}", "also stands at a.yaml:3:26"),
        ("removed: [account/a@b.c]\naccounts: {a@b.c: {}}", "is declared at a.yaml:4:12"),
        ("removed: [domain/b.c]\naccounts: {a@b.c: {}}", "is declared at a.yaml:4:12"),
        ("removed: [dns/m.h/A/x]", "is no address that can stand here"),
        ("moved: [{from: account/a, to: account/b}]\naccounts: {a: {}, b: {}}", "is still declared at a.yaml:4:12"),
        ("moved: [{from: account/a, to: account/b}]", "account/b is not declared"),
        ("moved: [{from: account/a, to: account/b}, {from: account/b, to: account/c}]\naccounts: {c: {}}", "else write one move from account/a to account/c"),  # noqa: E501
        ("adopt: [account/ab@m.h]\n" + ACCOUNTS, "account/ab@m.h is not declared"),
        ("targets: {cloudflare: [{token: {env: A}, zones: [m.h]}, {token: {env: B}, zones: [m.h]}]}", "also stands at a.yaml:3:50"),  # noqa: E501
        ("targets: {cloudflare: [{token: {env: A}, zones: [m.h]}, {token: {env: B}}]}", "says no zones"),
        ("targets: {cloudflare: [{token: {env: A}, zones: [m.h]}]}\ndns: {x.y: []}", "is a zone of no token"),
        ("targets: {stalwart: {url: 'http://mail.m.h', username: a, password: {env: A}}}", "clear text"),
        ("targets: {stalwart: {url: 'http://192.168.1.2', username: a, password: {env: A}}}", "clear text"),
        ("stack2: x", "did you mean stack?"),
        ("dns: {m.h: }", "must be a list (write [ONE, ANOTHER]"),
    ],
)  # fmt: skip
def test_what_does_not_fit(tmp_path: Path, text: str, what: str) -> None:
    problem = only(tmp_path, text)
    assert what in problem
    assert re.match(r"a\.yaml:\d+:\d+: \S+: .*\(", problem)


RECORDS = [
    ("{type: A, name: a, content: 1.2.3}", "'1.2.3' is no IPv4 address"),
    ("{type: AAAA, name: a, content: 1.2.3.4}", "is no IPv6 address"),
    ("{type: MX, name: a, content: b.c}", "MX needs a priority"),
    ("{type: MX, name: a, content: b.c, priority: 70000}", "a number from 0 to 65535"),
    ("{type: TXT, name: a, content: ''}", "TXT needs a content"),
    ("{type: TXT, name: a, content: x, priority: 1}", "TXT has no priority"),
    ("{type: TXT, name: a, content: x, proxied: on}", "only A, AAAA and CNAME can be proxied"),
    ("{type: TXT, name: a, content: x, data: {a: b}}", "TXT takes content, not data"),
    ("{type: A, name: a, content: 1.2.3.4, proxied: true, ttl: 60}", "has ttl: auto"),
    ("{type: A, name: a, content: 1.2.3.4, ttl: 1}", "write ttl: auto"),
    ("{type: A, name: a, content: 1.2.3.4, proxied: maybe}", "must be true or false"),
    ("{type: A, name: a.m.h, content: 1.2.3.4}", 'write "a"'),
    ("{type: A, name: m.h, content: 1.2.3.4}", 'write "@"'),
    ("{type: A, name: a., content: 1.2.3.4}", "ends in a dot"),
    ("{type: A, name: a.*, content: 1.2.3.4}", "is no record's name"),
    ("{type: A, name: a, content: 1.2.3.4, comment: " + "x" * 85 + "}", "84 fit beside our mark"),
    ('{type: A, name: a, content: 1.2.3.4, comment: "a\\nb"}', "a line break"),
    ("{type: A, name: a, content: 1.2.3.4, comment: 'x reconciler:other'}", "an ownership mark"),
    ("{type: SPF, name: a, content: v=spf1}", "write type: TXT"),
    ("{type: MXX, name: a, content: b}", "is no type that Cloudflare serves"),
    ("{type: CAA, name: a, data: {flags: 0, tag: issue}}", "CAA needs value"),
    ("{type: SRV, name: a}", "write data: {priority: ..., weight: ..., port: ..., target: ...}"),
    ("{type: CNAME, name: a, content: 1.2.3.4}", "is an address, where a name has to stand"),
    ('{type: A, name: "a\\u200eb", content: 1.2.3.4}', ".name: 'a\\u200eb' is not a name: it holds the invisible"),
    (
        '{type: A, name: "a\\u00a0b", content: 1.2.3.4}',
        "name: is no record's name: it holds the invisible character NO",
    ),
    ("{type: MX, name: a, content: 10 b.c, priority: 20}", "priority: MX has two priorities, 20 and 10"),
    (
        "{type: SRV, name: _a._tcp, data: {priority: 0, weight: 0, port: 99999, target: a}}",
        "data.port: port of SRV: 999",
    ),
    ("{type: SRV, name: _a._tcp, content: 0 0 99999 a}", "content: port of SRV: 99999 is not an unsigned 16-bit"),
    ("{type: TLSA, name: _25._tcp.a, content: 3 1 1 abc}", "content: TLSA: "),
    ("{type: NS, name: '@', content: ns1.x.y}", "name: the zone's own NS are Cloudflare's"),
    ("{type: A, name: 'a,b', content: 1.2.3.4}", "name: 'a,b' holds what no name at Cloudflare has"),
    ("{type: A, name: " + ".".join(["x" * 60] * 5) + ", content: 1.2.3.4}", "name: "),
    ("{type: A, name: " + ".".join(["x" * 62] * 4) + ", content: 1.2.3.4}", "253 are allowed"),
    ("{type: CNAME, name: a, content: 'https://x.y/z'}", "content: 'https://x.y/z' is no host's name"),
    ("{type: MX, name: a, content: 'mail.x.y:25', priority: 1}", "is no host's name"),
    ("{type: SRV, name: _a._tcp, data: {priority: 0, weight: 0, port: 1, target: '*.x'}}", "data.target: '*.x' is no"),
    ("{type: CNAME, name: a, content: a.m.h}", "content: is an alias of itself"),
    ("{type: CNAME, name: a, content: '.'}", "is no host's name"),
    ("{type: A, name: a, content: 10.0.0.1, proxied: true}", "a private address, which can't be proxied"),
    ("{type: AAAA, name: a, content: 'fe80::1%eth0'}", "is no IPv6 address"),
    ('{type: A, name: a, content: 1.2.3.4, comment: "a\\x1bb"}', "comment: holds a character that Cloudflare takes in"),
    ("{type: TXT, name: a, content: " + "x" * 4081 + "}", "content: takes 4098 bytes, and Cloudflare allows 4096"),
    ("{type: SRV, name: _a._tcp, content: 0 0 1 192.0.2.1}", "content: 192.0.2.1 is an address"),
]


@pytest.mark.parametrize(("text", "what"), RECORDS)
def test_a_wrong_record(tmp_path: Path, text: str, what: str) -> None:
    assert what in only(tmp_path, f"dns: {{m.h: [{text}]}}")


@pytest.mark.parametrize(
    ("texts", "what"),
    [
        (
            ("type: A, name: a, content: 1.2.3.4", "type: a, name: A, content: 1.2.3.4, ttl: 60"),
            "is the same record as",
        ),
        (("type: TXT, name: a, content: xy", 'type: TXT, name: a, content: \'"x" "y"\''), "is the same record as"),
        (("type: TXT, name: '@', content: v=spf1 -all", "type: TXT, name: '@', content: v=spf1 a"), "a second SPF"),
        (
            ("type: TXT, name: _smtp._tls, content: v=TLSRPTv1", "type: TXT, name: _smtp._tls, content: v=TLSRPTv1;"),
            "TLSRPT",
        ),
        (
            ("type: TXT, name: _mta-sts, content: v=STSv1; id=1", "type: TXT, name: _mta-sts, content: v=STSv1; id=2"),
            "MTA-STS",
        ),
        (
            ("type: TXT, name: a._bimi, content: v=BIMI1; l=", "type: TXT, name: a._bimi, content: v=BIMI1"),
            "second BIMI",
        ),
        (("type: TXT, name: a._domainkey, content: x", "type: TXT, name: a._domainkey, content: y"), "a second DKIM"),
        (("type: TXT, name: _dmarc, content: v=DMARC1;p=none", "type: TXT, name: _dmarc, content: v=DMARC1"), "DMARC"),
        (("type: CNAME, name: a, content: b.c", "type: TXT, name: a, content: x"), "stands beside the CNAME"),
        (("type: CNAME, name: '@', content: b.c", "type: A, name: '@', content: 1.2.3.4"), "stands beside the CNAME"),
        (
            ("type: A, name: a, content: 1.2.3.4", "type: A, name: a, content: 1.2.3.4, proxied: true"),
            "is the same record as",
        ),
        (("type: NS, name: a, content: b.c", "type: TXT, name: a, content: x"), "stands beside the NS"),
        (
            ("type: MX, name: a, content: '.'", "type: MX, name: a, content: b.c, priority: 10"),
            "says that no mail is taken",
        ),
    ],
)
def test_records_that_do_not_go_together(tmp_path: Path, texts: tuple[str, str], what: str) -> None:
    problem = only(tmp_path, "dns: {m.h: [{" + "}, {".join(texts) + "}]}")
    assert what in problem
    assert "a.yaml:3:13" in problem


@pytest.mark.parametrize("domain", ["bücher.example", "BÜCHER.example", "xn--bcher-kva.example"])
@pytest.mark.parametrize("zone", ["bücher.example", "xn--bcher-kva.example"])
def test_the_record_of_a_key_is_known_however_its_domain_is_written(tmp_path: Path, domain: str, zone: str) -> None:
    keys = f"dkim: {{{domain}: [{{selector: a, algorithm: rsa}}]}}"
    problem = only(tmp_path, f"{keys}\ndns: {{{zone}: [{{type: TXT, name: a._domainkey, content: x}}]}}")
    assert "is the record of the DKIM key at a.yaml:3:" in problem


@pytest.mark.parametrize(
    "text",
    [
        'dns: {"m\\u200e.h": [{type: TXT, name: a, content: x}, {type: TXT, name: b, content: x}]}',
        'dkim: {"m\\u200e.h": [{selector: a, algorithm: rsa}]}',
        'accounts: {"a@m\\u200e.h": {}}',
    ],
)
def test_a_wrong_domain_is_said_once_and_named(tmp_path: Path, text: str) -> None:
    problem = only(tmp_path, text)
    assert "it holds the invisible character LEFT-TO-RIGHT MARK" in problem
    assert ".content" not in problem


def test_records_that_do(tmp_path: Path) -> None:
    text = """
dns:
  m.h:
    - {type: CNAME, name: "@", content: b.c}
    - {type: MX, name: "@", content: b.c, priority: 0}
    - {type: MX, name: null, content: ., priority: 0}
    - {type: TXT, name: "*.dev", content: 123, ttl: auto, proxied: off}
    - {type: TXT, name: "*.dev", content: 1.10}
    - {type: CAA, name: "@", data: {flags: 0, tag: issue, value: letsencrypt.org}}
    - {type: CAA, name: "@", content: '0 issuewild ";"'}
    - {type: SRV, name: _imaps._tcp, data: {priority: 0, weight: 1, port: 993, target: mail.m.h}, comment: 'x: "y"'}
    - {type: HTTPS, name: h, data: {priority: 1, target: ., value: alpn="h2"}}
"""
    records = good(tmp_path, text.replace("name: null", "name: nullmx")).dns["m.h"]
    assert [record.content for record in records if record.type == "TXT"] == ["123", "1.10"]
    assert records[3].ttl == "auto"


URI_PRIORITY = {"URI": 1}  # stands beside the data


def test_the_parts_of_types_are_those_of_the_records() -> None:
    for kind, parts in {kind: row.parts for kind, row in TYPES.items() if row.parts}.items():
        assert make_record("m.h", kind, "a", data=dict.fromkeys(parts, "1"), priority=1).type == kind
        for part in set(parts) - ({"value"} if kind in {"HTTPS", "SVCB"} else set()):
            others = {key: "1" for key in parts if key != part}
            with pytest.raises(ValueError, match=part):
                make_record("m.h", kind, "a", data=others, priority=URI_PRIORITY.get(kind))


def test_standby_records_are_checked_with_the_others(tmp_path: Path) -> None:
    text = """
dns: {m.h: [{type: TXT, name: "@", content: v=spf1 -all}]}
smtp:
  providers:
    brevo:
      {host: h, port: 587, username: u, password: {env: P}, standby: %s,
       dns: {m.h: [{type: TXT, name: "@", content: v=spf1 a}]}}
"""
    assert "a second SPF record" in only(tmp_path, text % "true")
    good(tmp_path, text % "false")


def test_off_false_and_rates(tmp_path: Path) -> None:
    ban = good(
        tmp_path, "stalwart: {auto_ban: {scan: off, auth: false, abuse: 30 / 1d, loiter: null}}"
    ).stalwart.auto_ban
    assert (ban.scan, ban.auth, ban.abuse, ban.loiter) == ("off", "off", "30/1d", None)
    assert "loiter" in ban.model_fields_set


def test_settings_keep_their_text_and_objects_their_types(tmp_path: Path) -> None:
    text = (
        "stalwart: {settings: {http.a: true, queue.c: 010, jmap.d: null}, "
        "objects: {Jmap: {singleton: {maxMethodCalls: 3}}, Http: {singleton: {enableHsts: true}}}}"
    )
    loaded = good(tmp_path, text).stalwart
    assert loaded.settings == {"http.a": "true", "queue.c": "010", "jmap.d": None}
    assert loaded.objects == {"Jmap": {"singleton": {"maxMethodCalls": 3}}, "Http": {"singleton": {"enableHsts": True}}}


def test_listeners(tmp_path: Path) -> None:
    text = "stalwart: {listeners: {a: {bind: ['[::]:465'], protocol: smtp}, b: {bind: '0.0.0.0:587', protocol: smtp}, c: {bind: '[::]:465', protocol: smtp, tls: starttls}}}"  # noqa: E501
    listeners = good(tmp_path, text).stalwart.listeners
    assert [listener.tls_implicit for listener in listeners.values()] == [True, False, False]


def test_free_keys(tmp_path: Path) -> None:
    text = """
x-user: &user {roles: [user], x-why: anchors}
accounts:
  x-template: {quota: 1}
  x-ray@m.h: {<<: *user, quota: 1 GB}
targets: {x-a: 1, cloudflare: {token: {env: T}, x-b: 2}}
"""
    assert set(good(tmp_path, text).accounts) == {"x-ray@m.h"}


def test_a_key_in_several_stages(tmp_path: Path) -> None:
    text = f"dkim: {{m.h: [{{selector: a, algorithm: ed25519}}, {{selector: b, algorithm: ed25519, stage: pending, public_key: '{KEY}', since: 2026-11-01}}]}}"  # noqa: E501
    key = good(tmp_path, text).dkim["m.h"][1]
    assert (key.public_key, key.since) == (KEY, dt.date(2026, 11, 1))


def test_plain_http_where_nothing_can_listen(tmp_path: Path) -> None:
    text = "targets: {stalwart: {url: 'http://%s:8080', username: a, password: {env: A}, container: mana-mail%s}}"
    for host in ("localhost", "127.0.0.1", "[::1]", "stalwart", "172.18.0.3", "mana-mail"):
        good(tmp_path, text % (host, ""))
    good(tmp_path, text % ("mail.m.h", ", allow_plain_http: true"))


# ------------------------------------------------------------------------------------------------------------ values
@settings(deadline=None)
@given(size=st.integers(1, 10**9), unit=st.sampled_from(["", "B", "kB", "KB", "MB", "GB", "KiB", "MiB", "GiB"]))
def test_quotas(size: int, unit: str) -> None:
    factor = {"": 1, "b": 1, "k": 1000, "m": 1000**2, "g": 1000**3}[unit.lower()[:1]]
    if unit.endswith("iB"):
        factor = {"K": 1024, "M": 1024**2, "G": 1024**3}[unit[0]]
    assert mail.size(f"{size} {unit}".strip()) == mail.size(f"{size}{unit}") == size * factor


@settings(deadline=None)
@given(st.text(max_size=12))
def test_any_quota_is_a_size_or_a_mistake(text: str) -> None:
    try:
        found = mail.size(text)
    except ValueError:
        return
    assert found is not None
    assert found > 0


# ----------------------------------------------------------------------------------------------- starter and schema
def test_the_starter_is_valid(tmp_path: Path) -> None:
    for name, text in starter.files(domain="mana.how", stack="mana").items():
        (tmp_path / name).write_text(text)
    loaded = load(tmp_path)
    assert loaded.spec.stack == "mana"
    assert set(loaded.spec.dns) == {"mana.how"}
    assert "noreply@mana.how" in loaded.spec.accounts


def test_the_schema_names_every_key() -> None:
    made = spec.schema()
    assert set(made["properties"]) == {
        *(
            "version",
            "stack",
            "targets",
            "policy",
            "daemon",
            "router",
            "accounts",
            "groups",
            "lists",
            "domains",
            "dkim",
            "dns",
        ),
        *("stalwart", "smtp"),
        *("removed", "moved", "adopt"),
    }
    assert "required" not in made
    assert made["$defs"]["Link"]["anyOf"][1]["properties"].keys() == {"value", "in", "check"}
    assert "^x-" in made["$defs"]["Account"]["patternProperties"]


def test_validating_imports_nothing_heavy() -> None:
    code = (
        "import sys, reconciler.desired.load\n"
        "print({'httpx', 'cloudflare', 'docker', 'structlog', 'cryptography', 'email', 'http'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("smtp: {consumers: {-V: {env: {A: b}}}}", "smtp.consumers.-V"),
        ("smtp: {consumers: {--remove-orphans: {env: {A: b}}}}", "smtp.consumers.--remove-orphans"),
        ("smtp: {consumers: {a b: {env: {A: b}}}}", "smtp.consumers.a b"),
        ("smtp: {links: [[-V.A, b.C]]}", "smtp.links[0][0]"),
        ("dns: {--help.example: []}", "dns.--help.example"),
        ("dkim: {x.example: [{selector: -a, algorithm: rsa}]}", "dkim.x.example[0].selector"),
        ("targets: {compose: {file: x, project: -p}}", "targets.compose.project"),
    ],
)
def test_t8_a_name_that_a_program_could_take_for_an_option_is_none(tmp_path, text, place):
    (tmp_path / "a.yaml").write_text(f"version: 1\nstack: mana\n{text}\n")
    with pytest.raises(InvalidDirectory) as caught:
        load(tmp_path)
    assert place in str(caught.value)


@pytest.mark.parametrize("said", ["generation: jmap", 'release: "1"'])
def test_u7_a_postmaster_in_each_domain_is_fine_where_the_address_is_the_login(tmp_path: Path, said: str) -> None:
    server = "targets: {stalwart: {url: 'http://localhost', username: admin, password: {env: A}, SAID}}\n"
    both = "accounts: {postmaster@a.example: {}, postmaster@b.example: {}}\n"
    assert set(good(tmp_path, server.replace("SAID", said) + both).accounts) == {
        "postmaster@a.example",
        "postmaster@b.example",
    }
    assert "has the login postmaster" in only(tmp_path, server.replace("SAID", "generation: rest") + both)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("accounts:\n  a@b.c:\n    quota: 1 GiB\n  password: {env: A}\n", "a.yaml:6:3: accounts.password"),
        ("accounts:\n  a@b.c:\n    quota: 1 GiB\n  aliases: [d@b.c]\n", "a.yaml:6:3: accounts.aliases"),
        ("groups:\n  a@b.c:\n  description: us\n", "a.yaml:5:3: groups.description"),
        ("smtp:\n  providers:\n    brevo:\n    host: x.org\n", "a.yaml:6:5: smtp.providers.host"),
        ("stalwart:\n  listeners:\n    smtp:\n    bind: ['[::]:25']\n", "a.yaml:6:5: stalwart.listeners.bind"),
    ],
)
def test_a_word_one_level_too_shallow_is_told_once_with_what_to_do(tmp_path: Path, text: str, where: str) -> None:
    found = problems(write(tmp_path, a=HEAD + text))
    mine = [item for item in found if item.startswith(where)]
    hint = "indent it one level more, below the entry that it belongs to"
    assert mine == [f"{where}: is a word of an entry, and stands among the entries ({hint})"]


def test_an_address_at_the_left_is_told_where_it_belongs(tmp_path: Path) -> None:
    assert (
        only(tmp_path, "a@b.c: {}") == "a.yaml:3:1: a@b.c: is not known (indent it below accounts:, groups: or lists:)"
    )
