"""What is said of a key, for each kind of mismatch: from values alone."""

from __future__ import annotations

import base64
import datetime as dt
from typing import Any

import pytest

from reconciler import keys
from reconciler.desired.spec import Spec
from reconciler.dkim import standing as agreement
from reconciler.dkim.findings import Agrees, Mismatch, Signing, Standing
from reconciler.dns.publication import Answer, Question
from reconciler.problem import Problem, Severity
from reconciler.resources import UNMANAGED, SecretRef, Signature

TODAY = dt.date(2026, 11, 22)
ED = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(range(1, 33))).decode()
NAME = "ed202611._domainkey.mana.how"
RIGHT = f"v=DKIM1; k=ed25519; h=sha256; p={ED}"
ENTRY = {"selector": "ed202611", "algorithm": "ed25519", "public_key": ED, "private_key": {"file": "../key.pem"}}


def tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 128 | len(length)]) + length + content


def rsa(bits: int, last: int = 1) -> str:
    """Make what reads as a public key of that length."""
    modulus = tlv(2, b"\0" + ((1 << (bits - 1)) + last).to_bytes(bits // 8))
    return keys.public_key("rsa", base64.b64encode(tlv(0x30, modulus + tlv(2, b"\1\0\1"))).decode())


def said(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if value is not None}


def directory(*entries: dict[str, Any], zones: tuple[str, ...] = ("mana.how",), **more: Any) -> Spec:
    targets = {"cloudflare": {"token": {"env": "T"}}}
    document = {
        "version": "1",
        "stack": "mana",
        "targets": targets,
        "dkim": {"mana.how": [said(entry) for entry in entries]},
    }
    return Spec.model_validate(document | {"dns": {zone: [] for zone in zones}} | more)


def signature(key: Any = ED, selector: str = "ed202611", signs: Any = True, algorithm: str = "ed25519") -> Signature:
    return Signature("mana.how", selector, algorithm, key, signs)


def answers(*values: Any, name: str = NAME) -> dict[Question, tuple[Answer, ...]]:
    """Return what each name server shows: a value, several, none, or an `Answer`."""
    found = []
    for number, value in enumerate(values, 1):
        server = f"ns{number}.example"
        texts = () if value is None else (value,) if isinstance(value, str) else value
        found.append(value if isinstance(value, Answer) else Answer(server, tuple(texts)))
    return {Question(name, "TXT"): tuple(found)}


def half(result: Any) -> Any:
    return lambda _ref, _algorithm: result


SERVER = (signature(),)


def judge(
    entry: dict[str, Any] | None = None,
    server: Any = SERVER,
    shown: Any = (RIGHT, RIGHT),
    private: Any = ED,
    today: dt.date = TODAY,
    **more: Any,
) -> Standing:
    """Judge one key; by default one with which all is well."""
    entries = () if entry is None else (ENTRY | entry,)
    found = agreement.standings(directory(*entries, **more), server, answers(*shown), today, half(private))
    assert len(found) == 1
    return found[0]


def kinds(standing: Standing) -> list[Mismatch]:
    assert all(item.problem.where == standing.address and item.problem.hint for item in standing.findings)
    return [item.kind for item in standing.findings]


def the(standing: Standing, kind: Mismatch) -> Problem:
    """Return the only finding."""
    assert kinds(standing) == [kind]
    return standing.findings[0].problem


def test_all_is_well() -> None:
    standing = judge({})
    assert kinds(standing) == []
    assert (standing.signing, standing.agrees, standing.stage) == (Signing.SIGNS, Agrees.YES, "active")
    assert standing.address == "dkim/mana.how/ed202611"
    assert not standing.unread


@pytest.mark.parametrize(
    "same",
    [
        f"p={ED};k=ed25519",
        f" v=DKIM1 ;k=ed25519;  t=s; s=email; p={ED[:20]} {ED[20:]} ;",
        f"v=DKIM1; k=ed25519; h=sha1:sha256; n=hello; p={ED}",
    ],
)
def test_records_are_compared_by_meaning(same: str) -> None:
    standing = judge({}, shown=(same, RIGHT))
    assert kinds(standing) == []
    assert standing.agrees is Agrees.YES


def test_an_rsa_key_in_pkcs1_is_the_same_key() -> None:
    key = rsa(2048)
    bare = base64.b64encode(base64.b64decode(key)[24:]).decode()
    standing = judge(
        {"algorithm": "rsa", "public_key": key},
        (signature(key, algorithm="rsa"),),
        (f"v=DKIM1; p={bare}", f"k=rsa; p={key}"),
        key,
    )
    assert kinds(standing) == []
    assert standing.agrees is Agrees.YES


# ----------------------------------------------------------------------------------------------------------- server
def test_the_server_lacks_the_key() -> None:
    standing = judge({}, server=())
    problem = the(standing, Mismatch.SERVER_LACKS_KEY)
    assert problem.severity is Severity.ERROR
    assert "reconciler apply" in problem.hint
    assert (standing.signing, standing.agrees) == (Signing.ABSENT, Agrees.NO)


@pytest.mark.parametrize("private", [OTHER, Problem("{file: ../key.pem}", "can't be read", "create it")])
def test_a_key_that_can_t_be_brought_is_put_right_first(private: Any) -> None:
    assert the(judge({}, server=()), Mismatch.SERVER_LACKS_KEY).hint == "`reconciler apply` brings it from private_key"
    first = judge({}, server=(), private=private).findings[0]
    assert (first.kind, first.problem.hint.endswith("once that is put right")) == (Mismatch.SERVER_LACKS_KEY, True)


def test_a_key_without_private_half_can_only_be_made_anew() -> None:
    standing = judge({"private_key": None}, server=())
    assert kinds(standing) == [Mismatch.SERVER_LACKS_KEY, Mismatch.PRIVATE_KEY_ABSENT]
    assert all("reconciler dkim rotate mana.how" in item.problem.hint for item in standing.findings)


@pytest.mark.parametrize("signs", [True, False])
def test_the_server_has_another_key_under_the_selector(signs: bool) -> None:
    standing = judge({}, server=(signature(OTHER, signs=signs),))
    problem = the(standing, Mismatch.SERVER_HAS_ANOTHER_KEY)
    assert OTHER in problem.hint
    assert ("signs with" in problem.summary) is signs
    assert (standing.signing, standing.agrees) == (Signing.ANOTHER, Agrees.NO)


def test_of_two_keys_under_one_selector_the_wrong_one_counts() -> None:
    standing = judge({}, server=(signature(), signature(OTHER)))
    assert kinds(standing) == [Mismatch.SERVER_HAS_ANOTHER_KEY]
    assert standing.agrees is Agrees.NO


def test_the_server_has_it_under_an_id_or_a_stage_that_does_not_sign() -> None:
    standing = judge({}, server=(signature(signs=False),))
    the(standing, Mismatch.SERVER_DOES_NOT_SIGN)
    assert (standing.signing, standing.agrees) == (Signing.IDLE, Agrees.NO)


def test_the_server_signs_with_an_undeclared_key() -> None:
    standing = judge(None)
    assert "removed: [dkim/mana.how/ed202611]" in the(standing, Mismatch.SERVER_SIGNS_UNDECLARED).hint
    assert (standing.stage, standing.agrees) == ("", Agrees.YES)


def test_an_undeclared_key_that_signs_has_to_be_published_too() -> None:
    standing = judge(None, shown=(None, None))
    assert kinds(standing) == [Mismatch.SERVER_SIGNS_UNDECLARED, Mismatch.NOT_PUBLISHED]
    assert RIGHT in standing.findings[1].problem.hint
    assert standing.agrees is Agrees.NO


@pytest.mark.parametrize("shown", [(None, None), (RIGHT, RIGHT)])
def test_a_spare_key_of_the_server_harms_nobody(shown: Any) -> None:
    standing = judge(None, server=(signature(signs=False),), shown=shown)
    assert kinds(standing) == []
    assert standing.agrees is Agrees.YES


@pytest.mark.parametrize(
    ("stage", "kind"),
    [
        ("pending", Mismatch.SERVER_SIGNS_TOO_EARLY),
        ("retiring", Mismatch.SERVER_STILL_SIGNS),
        ("retired", Mismatch.SERVER_STILL_SIGNS),
    ],
)
def test_the_server_signs_with_a_key_whose_stage_does_not(stage: str, kind: Mismatch) -> None:
    standing = judge({"stage": stage})
    assert kinds(standing)[0] is kind
    assert stage in standing.findings[0].problem.summary
    assert standing.agrees is Agrees.YES  # the mail verifies; it is the directory that says otherwise


def test_a_rule_of_ones_own_leaves_open_which_keys_sign() -> None:
    standing = judge({}, server=(signature(signs=UNMANAGED),))
    the(standing, Mismatch.SIGNING_UNTOLD)
    assert (standing.signing, standing.agrees) == (Signing.UNTOLD, Agrees.UNTOLD)


def test_a_server_that_was_not_read_leaves_open_whether_they_agree() -> None:
    standing = judge({}, server=None)
    assert kinds(standing) == []
    assert (standing.signing, standing.agrees) == (Signing.UNREAD, Agrees.UNTOLD)


def test_a_server_that_was_not_read_does_not_hide_what_dns_shows() -> None:
    standing = judge({}, server=None, shown=(None, None))
    the(standing, Mismatch.NOT_PUBLISHED)


def test_a_key_that_the_server_does_not_show_can_t_be_compared() -> None:
    assert judge({}, server=(signature(UNMANAGED),)).agrees is Agrees.UNTOLD


# -------------------------------------------------------------------------------------------------------------- DNS
def test_not_published_at_all() -> None:
    standing = judge({}, shown=(None, None))
    problem = the(standing, Mismatch.NOT_PUBLISHED)
    assert NAME in problem.summary
    assert "--adopt dns/mana.how/TXT/ed202611._domainkey" in problem.hint
    assert standing.agrees is Agrees.NO


def test_in_a_zone_that_is_not_ours_the_record_is_written_out() -> None:
    assert RIGHT in the(judge({}, shown=(None, None), zones=("other.example",)), Mismatch.NOT_PUBLISHED).hint


def test_published_at_some_name_servers_only() -> None:
    standing = judge({}, shown=(RIGHT, None))
    summary = the(standing, Mismatch.PARTLY_PUBLISHED).summary
    assert "only at ns1.example: ns2.example does not" in summary
    assert standing.agrees is Agrees.NO


def test_a_pending_key_that_is_not_published_yet_only_warns() -> None:
    problem = the(judge({"stage": "pending"}, server=(), shown=(None, None)), Mismatch.NOT_PUBLISHED)
    assert problem.severity is Severity.WARNING


def test_another_key_is_published() -> None:
    standing = judge({}, shown=(f"k=ed25519; p={OTHER}",) * 2)
    assert the(standing, Mismatch.ANOTHER_KEY_PUBLISHED).summary == "another key is published than the declared"
    assert standing.agrees is Agrees.NO


def test_a_defect_of_one_name_server_names_it() -> None:
    summary = the(judge({}, shown=(RIGHT, f"k=ed25519; p={OTHER}")), Mismatch.ANOTHER_KEY_PUBLISHED).summary
    assert summary.startswith("at ns2.example ")


def test_two_records_at_one_name() -> None:
    standing = judge({}, shown=([RIGHT, "v=spf1 -all"], RIGHT))
    assert "2 TXT records" in the(standing, Mismatch.SEVERAL_RECORDS).summary
    assert standing.agrees is Agrees.NO


def test_revoked() -> None:
    standing = judge({}, shown=("v=DKIM1; k=ed25519; p=",) * 2)
    the(standing, Mismatch.REVOKED)
    assert standing.agrees is Agrees.NO


def test_testing_warns_and_still_agrees() -> None:
    standing = judge({}, shown=(f"v=DKIM1; k=ed25519; t=s:y; p={ED}",) * 2)
    assert the(standing, Mismatch.TESTING).severity is Severity.WARNING
    assert standing.agrees is Agrees.YES


@pytest.mark.parametrize("value", [f"v=DKIM1; p={ED}", f"v=DKIM1; k=rsa; p={ED}", f"k=dsa; p={ED}"])
def test_a_wrong_algorithm(value: str) -> None:
    standing = judge({}, shown=(value,) * 2)
    the(standing, Mismatch.WRONG_ALGORITHM)
    assert standing.agrees is Agrees.NO


def test_a_hash_that_excludes_ours() -> None:
    standing = judge({}, shown=(f"v=DKIM1; k=ed25519; h=sha1; p={ED}",) * 2)
    the(standing, Mismatch.HASH_EXCLUDED)
    assert standing.agrees is Agrees.NO


def test_a_service_that_excludes_mail() -> None:
    the(judge({}, shown=(f"v=DKIM1; k=ed25519; s=tlsrpt; p={ED}",) * 2), Mismatch.MAIL_EXCLUDED)


@pytest.mark.parametrize(
    "value",
    [RIGHT + RIGHT, f"{RIGHT}; {RIGHT}", f"v=DKIM1; k=ed25519; p={ED}p={ED}", f"v=DKIM1; k=ed25519; p={ED}{ED}"],
)
def test_a_value_that_was_pasted_twice(value: str) -> None:
    standing = judge({}, shown=(value,) * 2)
    the(standing, Mismatch.DOUBLED)
    assert standing.agrees is Agrees.NO


@pytest.mark.parametrize("public", [ED[:-4], ED[:-1], "!" + ED[1:], ED.replace("A", "=", 1), "AAAA", "p=x"])
def test_a_damaged_key(public: str) -> None:
    standing = judge({}, shown=(f"v=DKIM1; k=ed25519; p={public}",) * 2)
    assert "damaged" in the(standing, Mismatch.DAMAGED).summary
    assert standing.agrees is Agrees.NO


@pytest.mark.parametrize("public", [rsa(2048)[:-8], "MIIB", "MA==", "AAAA"])
def test_a_damaged_rsa_key(public: str) -> None:
    key = rsa(2048)
    standing = judge(
        {"algorithm": "rsa", "public_key": key}, (signature(key, algorithm="rsa"),), (f"p={public}",) * 2, key
    )
    the(standing, Mismatch.DAMAGED)


@pytest.mark.parametrize("value", ["v=spf1 -all", "", "hello; world", f'"{RIGHT}"', f"v=DKIM2; k=ed25519; p={ED}"])
def test_what_is_no_key_record(value: str) -> None:
    the(judge({}, shown=(value,) * 2), Mismatch.NO_KEY_RECORD)


def test_a_cname_that_leads_to_the_key() -> None:
    led = [Answer(f"ns{number}.example", (RIGHT,), alias="keys.example.net") for number in (1, 2)]
    standing = judge({}, shown=led)
    problem = the(standing, Mismatch.ALIAS)
    assert problem.severity is Severity.WARNING
    assert "keys.example.net, which shows the key" in problem.summary
    assert standing.agrees is Agrees.YES


def test_a_cname_that_leads_to_nothing() -> None:
    led = [Answer(f"ns{number}.example", (), alias="keys.example.net") for number in (1, 2)]
    standing = judge({}, shown=led)
    problem = the(standing, Mismatch.ALIAS)
    assert problem.severity is Severity.ERROR
    assert "does not show" in problem.summary
    assert standing.agrees is Agrees.NO


def test_a_name_server_that_can_t_be_asked() -> None:
    standing = judge({}, shown=(RIGHT, Answer("ns2.example", unread="timed out")))
    summary = the(standing, Mismatch.UNREAD).summary
    assert "ns2.example" in summary
    assert "timed out" in summary
    assert standing.unread
    assert standing.agrees is Agrees.UNTOLD


def test_what_one_name_server_has_wrong_counts_whatever_another_would_say() -> None:
    standing = judge({}, shown=(None, Answer("ns2.example", unread="timed out")))
    assert kinds(standing) == [Mismatch.UNREAD, Mismatch.NOT_PUBLISHED]
    assert standing.agrees is Agrees.NO


def test_no_name_server_at_all() -> None:
    standing = judge({}, shown=())
    the(standing, Mismatch.UNREAD)
    assert standing.unread
    assert standing.agrees is Agrees.UNTOLD


@pytest.mark.parametrize(("bits", "severity"), [(2048, None), (1024, Severity.WARNING), (768, Severity.ERROR)])
def test_a_weak_key(bits: int, severity: Severity | None) -> None:
    key = rsa(bits)
    standing = judge(
        {"algorithm": "rsa", "public_key": None}, (signature(key, algorithm="rsa"),), (f"p={key}",) * 2, key
    )
    if severity is None:
        assert kinds(standing) == []
    else:
        problem = the(standing, Mismatch.WEAK)
        assert problem.severity is severity
        assert str(bits) in problem.summary
    assert standing.agrees is Agrees.YES


def test_a_retired_key_that_is_still_published() -> None:
    standing = judge({"stage": "retired"}, server=(), shown=(RIGHT, None))
    problem = the(standing, Mismatch.STILL_PUBLISHED)
    assert "ns1.example" in problem.summary
    assert "until when mail still needs it" in problem.hint, "`apply` refuses it for a week"
    assert standing.agrees is Agrees.NO


@pytest.mark.parametrize("shown", [(None, None), ("v=DKIM1; p=", None)])
def test_a_retired_key_is_gone_or_revoked(shown: Any) -> None:
    standing = judge({"stage": "retired"}, server=(), shown=shown)
    assert kinds(standing) == []
    assert standing.agrees is Agrees.YES


# ------------------------------------------------------------------------------------------------------ private key
def test_a_private_key_that_does_not_fit() -> None:
    problem = the(judge({}, private=OTHER), Mismatch.PRIVATE_KEY_OF_ANOTHER)
    assert "{file: ../key.pem}" in problem.summary
    assert OTHER in problem.hint


def test_a_private_key_that_can_t_be_read() -> None:
    why = Problem("{file: ../key.pem}", "the private key can't be read: key.pem: No such file", "create it")
    problem = the(judge({}, private=why), Mismatch.PRIVATE_KEY_UNREADABLE)
    assert problem.summary == why.summary
    assert problem.hint.startswith("create it")
    assert problem.severity is Severity.WARNING


@pytest.mark.parametrize(("stage", "word"), [("active", "volume"), ("pending", "turn")])
def test_a_key_that_the_server_alone_holds(stage: str, word: str) -> None:
    server = SERVER if stage == "active" else ()
    assert word in the(judge({"private_key": None, "stage": stage}, server), Mismatch.PRIVATE_KEY_ABSENT).summary


def test_private_keys_are_left_alone_where_nobody_may_read_them() -> None:
    found = agreement.standings(directory(ENTRY), SERVER, answers(RIGHT), TODAY)
    assert kinds(found[0]) == []


def test_the_private_half_says_what_is_declared() -> None:
    standing = judge({"public_key": None}, private=OTHER, shown=(RIGHT, RIGHT))
    assert kinds(standing) == [Mismatch.SERVER_HAS_ANOTHER_KEY, Mismatch.ANOTHER_KEY_PUBLISHED]


def test_a_key_that_only_the_server_holds_is_published_as_it_is() -> None:
    standing = judge({"public_key": None, "private_key": None}, shown=(f"k=ed25519; p={OTHER}",) * 2)
    assert kinds(standing) == [Mismatch.PRIVATE_KEY_ABSENT, Mismatch.ANOTHER_KEY_PUBLISHED]
    assert "than the server's" in standing.findings[1].problem.summary


# ----------------------------------------------------------------------------------------------------- days, stages
@pytest.mark.parametrize(("days", "due"), [(0, False), (1, False), (2, True), (9, True)])
def test_a_pending_key_that_everybody_sees_waits_too_long(days: int, due: bool) -> None:
    since = TODAY - dt.timedelta(days=days)
    standing = judge({"stage": "pending", "since": since.isoformat()}, server=())
    assert kinds(standing) == ([Mismatch.PENDING_OVERDUE] if due else [])
    assert standing.age == days
    assert standing.agrees is Agrees.YES


def test_a_pending_key_that_one_does_not_show_is_not_overdue() -> None:
    standing = judge({"stage": "pending", "since": "2026-11-01"}, server=(), shown=(RIGHT, None))
    assert kinds(standing) == [Mismatch.PARTLY_PUBLISHED]


@pytest.mark.parametrize(("days", "due"), [(7, False), (8, True)])
def test_a_retiring_key_is_done_after_seven_full_days(days: int, due: bool) -> None:
    since = TODAY - dt.timedelta(days=days)
    standing = judge({"stage": "retiring", "since": since.isoformat()}, server=())
    assert kinds(standing) == ([Mismatch.RETIRING_OVERDUE] if due else [])


@pytest.mark.parametrize(("days", "due"), [(180, False), (181, True)])
def test_a_key_is_rotated_after_six_months(days: int, due: bool) -> None:
    since = TODAY - dt.timedelta(days=days)
    standing = judge({"since": since.isoformat()})
    assert kinds(standing) == ([Mismatch.OLD] if due else [])
    assert all("reconciler dkim rotate mana.how" in item.problem.hint for item in standing.findings)


@pytest.mark.parametrize(
    ("selector", "age"),
    [("ed202611", 21), ("rsa202611b", 21), ("v1-ed25519-20260101", 325), ("mana2026", None), ("mail", None)],
)
def test_without_a_day_the_age_is_that_of_the_selector(selector: str, age: int | None) -> None:
    server = (signature(selector=selector, signs=False),)
    found = agreement.standings(directory(), server, {}, TODAY)
    assert found[0].age == age


# ------------------------------------------------------------------------------------------------------------ which
def test_every_name_is_asked_of_what_is_declared_and_what_the_server_has() -> None:
    asked = agreement.key_questions(directory(ENTRY), (signature(selector="old"),))
    assert asked == {Question(NAME, "TXT"), Question("old._domainkey.mana.how", "TXT")}


def test_keys_come_in_the_order_of_the_directory_those_of_the_server_behind() -> None:
    spec = directory(ENTRY | {"selector": "z"}, ENTRY | {"selector": "b", "stage": "retired"})
    more = Signature("a.example", "s", "rsa", UNMANAGED, UNMANAGED)
    found = agreement.standings(spec, (more, signature(selector="m"), signature(selector="z")), {}, TODAY)
    assert [(item.domain, item.selector) for item in found] == [
        ("mana.how", "z"),
        ("mana.how", "b"),
        ("mana.how", "m"),
        ("a.example", "s"),
    ]


def test_a_domain_in_other_letters_is_one() -> None:
    document = {"version": "1", "stack": "mana", "targets": {}, "dkim": {"bücher.example": [ENTRY]}}
    spec = Spec.model_validate(document)
    server = (Signature("xn--bcher-kva.example", "ed202611", "ed25519", ED),)
    found = agreement.standings(spec, server, {}, TODAY, half(ED))
    assert [(item.address, item.stage) for item in found] == [("dkim/xn--bcher-kva.example/ed202611", "active")]


def test_what_dns_holds_is_quoted_no_longer_than_it_helps() -> None:
    standing = judge({}, shown=(f"v=DKIM1; k={'x' * 5000}; p={ED}",) * 2)
    assert len(the(standing, Mismatch.WRONG_ALGORITHM).summary) < 200


def test_a_private_keys_reference_is_what_is_asked_for() -> None:
    asked = []

    def half(ref: SecretRef, algorithm: str) -> str:
        asked.append((str(ref), algorithm))
        return ED

    spec = directory(ENTRY, ENTRY | {"selector": "gone", "stage": "retired"})
    agreement.standings(spec, (), {}, TODAY, half)
    assert asked == [("{file: ../key.pem}", "ed25519")]
