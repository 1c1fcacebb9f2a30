"""The server's own objects in the YAML: what is refused, and what means the same."""

import gzip
import json
from pathlib import Path

import pytest
from desired.objects_table import derive

from reconciler.desired import objects
from reconciler.desired.derivation import desire
from reconciler.desired.load import load
from reconciler.desired.objects import Misfit, Parts, Type, canonical
from reconciler.desired.spec import Spec, references, schema
from reconciler.problem import InvalidDirectory
from reconciler.resources import Observation, SecretRef, Setting

TESTS = Path(__file__).parents[1]
HEAD = """version: 1
stack: t
targets: {stalwart: {url: 'https://m.h', username: a, password: {env: A}}}
"""
REST = Observation("stalwart", generation="rest")
JMAP = Observation("stalwart", generation="jmap")


def read(path: Path, said: str) -> Spec:
    (path / "a.yaml").write_text(HEAD + f"stalwart: {{objects: {said}}}\n")
    return load(path).spec


def settings(path: Path, said: str) -> dict[str, object]:
    """Return the raw settings that the YAML asks for, by their words."""
    wanted = desire(read(path, said), {"stalwart": JMAP}).resources
    return {item.word: item.value for item in wanted if isinstance(item, Setting)}


@pytest.mark.trap(42, "both")
@pytest.mark.trap(31, "both")
@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("{Htpp: {singleton: {}}}", "Htpp: is no object of the server (did you mean Http?"),
        ("{Http: {singleton: {useXForwaded: true}}}", "is no property of Http (did you mean useXForwarded?"),
        ("{Http: {one: {useXForwarded: true}}}", "is there once only"),
        ("{Http: true}", "must be a map"),
        ("{Http: {singleton: true}}", "must be a map"),
        ("{MtaRoute: {singleton: {}}}", "write its name in place of singleton"),
        ("{MtaRoute: {relay: {address: a}}}", 'must say its type: Mx, Relay, Local (write "@type": Mx'),
        ("{MtaRoute: {relay: {'@type': Relais, address: a}}}", "must be Mx, Relay, Local (did you mean Relay?"),
        ("{MtaRoute: {mx: {'@type': Mx, address: a}}}", "address: is no property of MtaRoute of type Mx"),
        ("{MtaRoute: {relay: {'@type': Relay, name: a}}}", "name: is what the entry is called"),
        ("{Tracer: {Stdout: {'@type': Log}}}", "@type: is what the entry is called"),
        ("{Role: {top: {}}}", "says nothing of it"),
        ("{MailingList: {team: {recipients: []}}}", "write it as NAME@DOMAIN"),
        ("{MailingList: {a@m.h: {emailAddress: a@m.h}}}", "emailAddress: is set by the server alone"),
        ("{Http: {singleton: {useXForwarded: maybe}}}", "useXForwarded: must be true or false"),
        ("{Http: {singleton: {useXForwarded: null}}}", "can't be empty"),
        ("{Http: {singleton: {rateLimitAnonymous: often}}}", "write it like 30/1d"),
        ("{Http: {singleton: {rateLimitAnonymous: {count: 0, period: 1d}}}}", "count: must be at least 1"),
        ("{Security: {singleton: {scanBanPeriod: 1 week}}}", "write it like 30s, 5m, 12h or 1d"),
        ("{Security: {singleton: {scanBanPaths: '*.php'}}}", "must be a list"),
        ("{Security: {singleton: {scanBanPaths: ['']}}}", "write null to clear it"),
        ("{SystemSettings: {singleton: {maxConnections: '8'}}}", "must be a whole number"),
        ("{SystemSettings: {singleton: {proxyTrustedNetworks: [here]}}}", "proxyTrustedNetworks[0]: is no address"),
        ("{SystemSettings: {singleton: {defaultCertificateId: x}}}", "refers to a Certificate, which nothing names"),
        ("{SystemSettings: {singleton: {defaultDomainId: m.h}}}", "a word of its own: stalwart.default_domain"),
        ("{Security: {singleton: {scanBanRate: off}}}", "a word of its own: stalwart.auto_ban.scan"),
        ("{NetworkListener: {smtp: {useTls: true}}}", "words of its own: stalwart.listeners"),
        ("{'x:Domain': {m.h: {}}}", "words of its own: accounts and dkim"),
        ("{MtaConnectionStrategy: {a: {sourceIps: 1.2.3.4}}}", "sourceIps: must be a list"),
        ("{MtaStageData: {singleton: {script: x}}}", "script: must be a map (write {FIELD: VALUE}, of else, match)"),
        ("{Tenant: {t: {}}}", "belongs to the Enterprise edition"),
        ("{Metric: {t: {}}}", "belongs to the Enterprise edition"),
        ("{DataRetention: {singleton: {holdTracesFor: 1d}}}", "belongs to the Enterprise edition"),
        ("{Role: {r: {memberTenantId: t}}}", "belongs to the Enterprise edition"),
        ("{Action: {r: {}}}", "is no setting"),
        ("{BlockedIp: {1.2.3.4: {}}}", "is no setting"),
        ("{ApiKey: {k: {}}}", "belongs to the account that logs in"),
        ("{Certificate: {c: {}}}", "has no name to find it by"),
        ("{Bootstrap: {singleton: {dataStor: {'@type': Sqlite}}}}", "did you mean dataStore?"),
        ("{Bootstrap: {singleton: {dataStore: {'@type': Sqlite, poolMaxConnections: 0}}}}", "must be at least 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_where_it_stands(tmp_path, said, what):
    with pytest.raises(InvalidDirectory) as raised:
        read(tmp_path, said)
    (problem,) = raised.value.problems
    assert what in str(problem)
    assert str(problem).startswith("a.yaml:4:")
    assert problem.hint


@pytest.mark.parametrize(
    "said",
    [
        "{Htp: {singleton: {enableHsts: true}}}",
        "{Http: {singleton: {enableHst: true}}}",
        "{MtaRoute: {r: {'@type': Relays, address: a}}}",
        "{MtaRoute: {r: {'@type': Relay, authSecret: {'@type': Valu, secret: {env: S}}}}}",
        "{MtaRoute: {r: {'@type': Relay, protocol: smpt}}}",
    ],
)
def test_what_is_unknown_is_said_to_be_so_for_one_release(tmp_path, said):
    """Another one may know it: a plan goes by what the server itself has."""
    with pytest.raises(InvalidDirectory) as raised:
        read(tmp_path, said)
    (problem,) = raised.value.problems
    assert "(the names are those of Stalwart 0.16.18)" in problem.hint


def test_all_mistakes_of_all_objects_are_told_at_once(tmp_path):
    with pytest.raises(InvalidDirectory) as raised:
        read(tmp_path, "{Http: {singleton: {a: 1, enableHsts: 2}}, Jmap: {singleton: {maxMethodCalls: x}}, Nope: {}}")
    assert len(raised.value.problems) == 4


@pytest.mark.trap(17, "jmap")
@pytest.mark.trap(23, "both")
@pytest.mark.parametrize(
    "said",
    [
        "{MtaRoute: {r: {'@type': Relay, authSecret: hunter2-hunter2}}}",
        "{MtaRoute: {r: {'@type': Relay, authSecret: {'@type': Value, secret: hunter2-hunter2}}}}",
        "{MtaRoute: {r: {'@type': Relay, authSecret: {'@type': Value, secret: [hunter2-hunter2]}}}}",
        "{Enterprise: {singleton: {licenseKey: {'@type': Value, secret: {value: hunter2-hunter2}}}}}",
        "{OAuthClient: {c: {secret: hunter2-hunter2}}}",
    ],
)
def test_a_secret_is_a_reference_and_never_repeated(tmp_path, said):
    with pytest.raises(InvalidDirectory) as raised:
        read(tmp_path, said)
    assert "hunter2" not in str(raised.value)


def test_a_reference_may_stand_for_the_whole_secret(tmp_path):
    ref = Parts({"@type": "Value", "secret": SecretRef("env", "X")})
    for said in ("{env: X}", "{'@type': Value, secret: {env: X}}"):
        found = settings(tmp_path, f"{{MtaRoute: {{r: {{'@type': Relay, authSecret: {said}}}}}}}")
        assert found["objects/MtaRoute/r/authSecret"] == ref
    spec = read(tmp_path, "{MtaRoute: {r: {'@type': Relay, authSecret: {env: X}}}}")
    place = ("stalwart", "objects", "MtaRoute", "r", "authSecret", "secret")
    assert (place, SecretRef("env", "X")) in list(references(spec))
    told = "{MtaRoute: {r: {'@type': Relay, authSecret: {'@type': File, filePath: /run/x}}}}"
    assert settings(tmp_path, told)["objects/MtaRoute/r/authSecret"] == Parts({"@type": "File", "filePath": "/run/x"})


def test_an_account_s_password_may_be_the_secret(tmp_path):
    (tmp_path / "b.yaml").write_text("accounts: {n@m.h: {password: {env: N}}}")
    found = settings(tmp_path, "{MtaRoute: {r: {'@type': Relay, authSecret: {account: n@m.h}}}}")
    assert found["objects/MtaRoute/r/authSecret"] == Parts({"@type": "Value", "secret": SecretRef("env", "N")})


@pytest.mark.trap(4, "jmap")
@pytest.mark.parametrize(
    ("said", "same"),
    [
        ("{Security: {singleton: {scanBanPaths: [b, a, b]}}}", "{Security: {singleton: {scanBanPaths: {a: true, b: true}}}}"),  # noqa: E501
        ("{Security: {singleton: {scanBanPaths: []}}}", "{'x:Security': {singleton: {scanBanPaths: null}}}"),
        ("{Security: {singleton: {scanBanPeriod: 1d}}}", "{Security: {singleton: {scanBanPeriod: 86400000}}}"),
        ("{Security: {singleton: {scanBanPeriod: 90 m}}}", "{Security: {singleton: {scanBanPeriod: 5400s}}}"),
        ("{Http: {singleton: {rateLimitAnonymous: 30/1d}}}", "{Http: {singleton: {rateLimitAnonymous: {period: 24h, count: 30}}}}"),  # noqa: E501
        ("{Http: {singleton: {rateLimitAnonymous: off}}}", "{Http: {singleton: {rateLimitAnonymous: null}}}"),
        ("{Http: {singleton: {useXForwarded: on}}}", "{Http: {singleton: {useXForwarded: true}}}"),
        ("{Jmap: {singleton: {maxRequestSize: 10 MB}}}", "{Jmap: {singleton: {maxRequestSize: 10000000}}}"),
        ("{Jmap: {singleton: {maxRequestSize: 1 MiB}}}", "{Jmap: {singleton: {maxRequestSize: 1048576}}}"),
        ("{SystemSettings: {singleton: {proxyTrustedNetworks: [10.1.2.3/8]}}}", "{SystemSettings: {singleton: {proxyTrustedNetworks: [10.0.0.0/8]}}}"),  # noqa: E501
        ("{MtaOutboundStrategy: {singleton: {route: {match: [{if: a, then: b}], else: false}}}}", "{MtaOutboundStrategy: {singleton: {route: {else: 'false', match: {'0': {then: b, if: a}}}}}}"),  # noqa: E501
        ("{MailingList: {Team@M.h: {recipients: [a@m.h]}}}", "{MailingList: {team@m.h: {recipients: [a@m.h]}}}"),
    ],
)  # fmt: skip
def test_what_means_the_same_is_equal(tmp_path, said, same):
    assert settings(tmp_path, said) == settings(tmp_path, same)


def test_each_property_is_a_setting_of_its_own(tmp_path):
    said = "{Http: {singleton: {useXForwarded: true}}, MtaHook: {'https://a/b': {tempFailOnError: false, timeout: 5s}}}"
    assert settings(tmp_path, said) == {
        "objects/Http/useXForwarded": True,
        "objects/MtaHook/https://a/b/tempFailOnError": False,
        "objects/MtaHook/https://a/b/timeout": 5000,
    }
    place = objects.place(Setting("objects/MtaHook/https://a/b/timeout", 5000))
    assert place == objects.Place("MtaHook", "https://a/b", "timeout")


def test_bootstrap_is_no_setting_and_objects_are_for_one_generation(tmp_path):
    said = "{Bootstrap: {singleton: {dataStore: {'@type': Sqlite, path: /x}}}, Http: {singleton: {enableHsts: true}}}"
    assert list(settings(tmp_path, said)) == ["objects/Http/enableHsts"]
    spec = read(tmp_path, said)
    assert spec.stalwart.objects["Bootstrap"]["singleton"]["dataStore"] == Parts({"@type": "Sqlite", "path": "/x"})
    wanted = [item for item in desire(spec, {"stalwart": REST}).resources if isinstance(item, Setting)]
    assert wanted == []


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Type("float", low=0, high=1), 2),
        (Type("date"), "soon"),
        (Type("net"), "10.0.0.0/40"),
        (Type("bytes"), "many"),
        (Type("id", "Role"), 3),
        (Type("map", item=Type("text")), []),
        (Type("text"), {"a": 1}),
    ],
)
def test_values_of_the_wrong_type(kind, value):
    with pytest.raises(Misfit):
        canonical(kind, value)


def test_dates_and_numbers_have_one_form():
    assert canonical(Type("date"), "2026-01-01T01:00:00+01:00") == "2026-01-01T00:00:00Z"
    assert canonical(Type("float"), 1) == 1
    assert canonical(Type("enum", "MtaProtocol"), "smtp") == "smtp"


def test_values_can_be_keys_and_do_not_change():
    parts = Parts({"b": (1, 2), "a": Parts({})})
    assert {parts: 1}[Parts({"a": Parts({}), "b": (1, 2)})] == 1
    assert list(parts) == ["a", "b"]
    with pytest.raises(TypeError):
        parts["a"] = 1  # type: ignore[index]


def test_a_directory_without_objects_does_not_read_the_table(tmp_path):
    objects._table.cache_clear()
    (tmp_path / "a.yaml").write_text(HEAD + "stalwart: {hostname: m.h, settings: {http.a: b}}\n")
    desire(load(tmp_path).spec, {"stalwart": JMAP})
    assert objects._table.cache_info().currsize == 0


def test_an_editor_knows_the_names():
    made = schema()["$defs"]["Stalwart"]["properties"]["objects"]["properties"]
    told = "In the server's own words: true or false."
    forwarded = made["Http"]["properties"]["singleton"]["properties"]["useXForwarded"]
    assert forwarded == {"description": told, "type": "boolean"}
    route = made["MtaRoute"]["additionalProperties"]["properties"]
    assert route["@type"]["enum"] == ["Mx", "Relay", "Local"]
    assert route["protocol"]["enum"] == ["smtp", "lmtp"]
    assert "emailAddress" not in made["MailingList"]["additionalProperties"]["properties"]


def test_the_table_is_what_the_schema_says(facts):
    with gzip.open(facts("stalwart/schema-0.16.18.json.gz")) as file:
        assert objects._table() == derive(json.load(file))
