"""A plan as a comment: read at a glance, whole or not to be approved, and nothing in it acts but our own links."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import pytest
from gfm import Page, render
from hypothesis import given, settings
from hypothesis import strategies as st
from properties import tries
from report.test_prose import spaced, texts
from report.test_report import EVERYTHING, REF, a_plan, create, delete, record, update

from reconciler.plan import Plan, Receiver
from reconciler.problem import Problem, Severity
from reconciler.report import comment, markdown
from reconciler.report.links import actions_base, is_base, links
from reconciler.resources import (
    Account,
    AllowedIp,
    Different,
    Domain,
    Listener,
    Live,
    Login,
    MailingList,
    SecretRef,
    Setting,
    Variable,
)
from reconciler.target import Change, Reason

TAGS = {
    *("h3", "p", "strong", "br", "blockquote", "table", "thead", "tbody", "tr", "th", "td", "code", "details"),
    *("summary", "ul", "li", "sub", "a"),
}
LINK = "https://github.com/mana/infra/blob/3f2a9c1/desired-state/dns.yaml#L5"


def outside_folds(page: str) -> str:
    return re.sub(r"<details.*?</details>", "", page, flags=re.DOTALL)


def title(page: str) -> str:
    return next(line for line in page.splitlines() if line.startswith("### "))


def facts(page: str) -> dict[str, Any]:
    found = re.search(r"^<!-- reconciler:facts (\{.*\}) -->$", page, re.MULTILINE)
    assert found
    return dict(json.loads(found[1]))


def check(page: str, allowed: set[str | None]) -> Page:
    """What GitHub makes of it holds nothing but our own."""
    shown = render(page)
    assert shown.names <= TAGS
    assert shown.read() == []
    assert shown.links <= allowed
    assert [item.split()[0] for item in shown.comments] == [
        "reconciler:plan:" + re.sub("[^a-z0-9-]", "", "mana"),
        "reconciler:facts",
    ]
    assert all(number == 4 for number in shown.rows())
    assert len(page.encode()) <= comment.LIMIT
    return shown


# ---------------------------------------------------------------------------------------------- what acts, and what not
@settings(max_examples=tries(60))
@given(texts, texts, texts, st.one_of(texts, spaced), texts)
def test_no_value_acts_in_a_comment(one: str, two: str, name: str, sentence: str, place: str) -> None:
    problem = Problem(place, sentence, sentence)
    plan = a_plan(
        revision=one,
        head=(sentence,),
        changes=(
            create(record("txt", one, type="TXT", comment=two), notes=(sentence,)),
            replace(update(record("a", one, type="TXT"), record("a", two, type="TXT")), address=f"dns/{name}"),
            replace(delete(record("b", two, type="TXT")), address=name),
            create(Account("x@mana.how", description=one, aliases=(two, name))),
        ),
        adopted=(Change(name, (), Reason.DIFFERS, Live(record("@")), record("@"), adopts=True),),
        unmanaged=(two,),
        unread=frozenset({place}),
        problems=(problem, replace(problem, severity=Severity.REFUSED), replace(problem, severity=Severity.WARNING)),
        held=(Problem(name, sentence, sentence, Severity.REFUSED),),
        receivers=(Receiver(one or "h", (SecretRef("file", two), SecretRef("env", name))),),
    )
    shown = check(markdown.plan(plan, links={"dns/mana.how/TXT/txt": LINK}), {LINK})
    assert shown.links == {LINK}
    assert facts(markdown.plan(plan))["approvable"] is False


@given(st.one_of(texts, st.sampled_from(["../x", "/x", "a/../../../evil", "//evil.example"])))
def test_the_name_of_a_file_leads_nowhere_else(name: str) -> None:
    from reconciler.desired.load import Directory, Places
    from reconciler.desired.spec import Spec
    from reconciler.desired.yaml import Mapping, Place

    class Anywhere(Places):
        def of(self, *path: str | int) -> Place:
            return Place(name, 5, 1)

    spec = Spec.model_validate({"stack": "mana", "accounts": {"a@mana.how": {}}})
    directory = Directory(PurePosixPath("x"), spec, Anywhere(Mapping(".", 0)), (), "", "")  # type: ignore[arg-type]
    for base in ("", "https://github.com/mana/infra/blob/3f2a9c1"):
        made = links(directory, ["account/a@mana.how", "dns/mana.how/A/x"], PurePosixPath("desired-state"), base)
        if set(PurePosixPath(name).parts) & {"..", "/", "//"}:
            assert made == {}
            continue
        assert list(made) == ["account/a@mana.how"]
        where = made["account/a@mana.how"]
        assert where.startswith(f"{base}/desired-state" if base else "desired-state")
        assert re.fullmatch(r"[A-Za-z0-9.:/_~%-]*#L5", where)
        page = markdown.plan(a_plan(changes=(create(Account("a@mana.how")),)), links=made)
        assert check(page, {where}).links == {where}


def test_links_go_where_actions_shows_the_revision() -> None:
    told = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "mana/infra", "GITHUB_SHA": "a" * 40}
    assert actions_base(told, "3f2a9c1+") == "https://github.com/mana/infra/blob/3f2a9c1"
    assert actions_base(told, "").endswith("a" * 40)
    assert actions_base({}, "3f2a9c1") == ""
    for name, value in (("GITHUB_SERVER_URL", "https://evil/)("), ("GITHUB_REPOSITORY", "a/b)["), ("GITHUB_SHA", ")")):
        assert actions_base(told | {name: value}, "") == ""
    assert is_base("https://git.example/mana/infra/src/commit/3f2a9c1")
    assert not any(map(is_base, ("javascript:x", "https://a b", "https://a)", "", "//x", "https://a/[b](c)")))


# ------------------------------------------------------------------------------------------------------ at a glance
def test_deletions_and_risks_stand_outside_the_fold() -> None:
    page = markdown.plan(EVERYTHING)
    assert page.startswith("<!-- reconciler:plan:mana -->\n<!-- reconciler:facts {")
    assert title(page) == "### ⛔ mana: 4 create · 4 change · 1 delete · 1 adopt · 1 restart due"
    assert "**Risk:** 1 deletion · the flow of mail (DKIM, SPF, consumer, password) · 1 restart" in page
    shown = outside_folds(page)
    for address in ("dns/mana.how/TXT/gone", "dns/mana.how/CNAME/old", "account/postmaster@mana.how"):
        assert f"`{address}`" in shown
    assert "**Refused** `dns/mana.how/A/api`" in shown
    assert "`compose` could not be read, so this plan can't be approved" in shown
    for address in ("domain/mana.how", "dns/mana.how/A/www"):
        assert f"`{address}`" not in shown
        assert f"`{address}`" in page
    assert facts(page) == {"revision": "3f2a9c1", "fingerprint": EVERYTHING.fingerprint, "approvable": False}
    check(page, set())


def test_one_change() -> None:
    page = markdown.plan(a_plan(changes=(update(record("www", ttl=1), record("www", ttl=300)),), unchanged=40))
    assert title(page) == "### mana: 1 change"
    assert "No deletion, and nothing that touches the flow of mail." in page
    assert "40 unchanged." in page
    assert "<details open><summary>Other changes (1)</summary>" in page
    assert facts(page)["approvable"] is True
    assert len(page.splitlines()) < 30
    check(page, set())


def test_twelve_changes_fold_what_is_no_risk() -> None:
    some = tuple(create(record(f"h{index}")) for index in range(11))
    exchange = update(
        record("@", "a.mana.how", type="MX", priority=10), record("@", "b.mana.how", type="MX", priority=10)
    )
    page = markdown.plan(a_plan(changes=(*some, exchange)))
    assert title(page) == "### mana: 11 create · 1 change"
    assert "**Risk:** the flow of mail (MX)" in page
    assert "`dns/mana.how/MX/@`" in outside_folds(page)
    assert "<details><summary>Other changes (11)</summary>" in page


def test_nothing_to_do_and_only_restarts() -> None:
    assert title(markdown.plan(a_plan(unchanged=41))) == "### ✅ mana: nothing to do"
    assert "41 unchanged." in markdown.plan(a_plan(unchanged=41))
    [due] = [change for change in EVERYTHING.changes if change.restarts]
    page = markdown.plan(a_plan(changes=(due,)))
    assert title(page) == "### mana: 1 restart due"
    assert "**Risk:** 1 restart" in page
    assert "run: docker restart mana-mail" in outside_folds(page)


def test_nothing_could_be_planned() -> None:
    page = markdown.plan(a_plan(unread=frozenset({"stalwart"}), problems=(Problem("stalwart", "does not answer"),)))
    assert title(page) == "### ⛔ mana: nothing could be planned"


def test_what_is_held_is_named_with_the_way_to_approve_it() -> None:
    change = create(record("www"))
    why = Problem(change.address, "is not approved", "reconciler apply --approve 0123456789abcdef", Severity.REFUSED)
    page = markdown.plan(a_plan(changes=(change,), held=(why,)))
    assert title(page) == "### mana: 1 create · 1 held"
    assert "**Held** `dns/mana.how/A/www` is not approved" in outside_folds(page)
    assert "`0123456789abcdef`" in page
    check(page, set())


def of(change: Change, *more: Any) -> str:
    return markdown.plan(a_plan(changes=(change,), compared=tuple(more)))


def variable(value: str, login: Login | None = None) -> Variable:
    return Variable("mana-notify", "SMTP_HOST", value, value, login)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (create(record("@", "mail.mana.how", type="MX")), "MX"),
        (update(record("@", "v=spf1 -all", type="TXT"), record("@", "v=spf1 a -all", type="TXT")), "SPF"),
        (create(record("_dmarc", "v=DMARC1; p=none", type="TXT")), "DMARC"),
        (delete(record("s1._domainkey", "v=DKIM1; p=x", type="TXT")), "DKIM"),
        (update(record("b._domainkey", "a.x", type="CNAME"), record("b._domainkey", "b.x", type="CNAME")), "DKIM"),
        (update(Account("a@mana.how", password=Different()), Account("a@mana.how", password=REF)), "password"),
        (update(Account("a@mana.how", aliases=("b@mana.how",)), Account("a@mana.how", aliases=())), "addresses"),
        (update(MailingList("l@mana.how", members=("b@x",)), MailingList("l@mana.how", members=())), "addresses"),
        (update(Domain("mana.how", catch_all="a@mana.how"), Domain("mana.how", catch_all=None)), "addresses"),
        (create(Listener("smtps", ("[::]:465",), "smtp")), "listener"),
        (update(Setting("hostname", "a.x"), Setting("hostname", "b.x")), "setting"),
        (create(Setting("settings/queue.x", "1")), "setting"),
        (update(variable("a"), variable("b", Login("b", 587, "u", REF, verify_tls=True))), "provider"),
    ],
)
def test_what_touches_the_flow_of_mail_is_called_by_its_name(change: Change, word: str) -> None:
    page = of(change)
    assert re.search(rf"\*\*Risk:\*\* .*the flow of mail \({word}\)", page)
    assert change.address in outside_folds(page)


@pytest.mark.parametrize(
    "change",
    [
        create(record("new._domainkey", "v=DKIM1; p=x", type="TXT")),  # a further key harms nobody
        create(record("www")),
        update(record("www", ttl=1), record("www", ttl=60)),
        create(Account("a@mana.how", password=REF)),
        create(AllowedIp("172.18.0.0/16")),
        update(Account("a@mana.how", quota=1), Account("a@mana.how", quota=2)),
    ],
)
def test_what_does_not_touch_it_is_folded(change: Change) -> None:
    assert "Risk" not in of(change)
    assert change.address not in outside_folds(of(change))


def test_the_host_of_an_exchange_is_where_mail_goes() -> None:
    change = update(record("mail", "192.0.2.1"), record("mail", "192.0.2.2"))
    exchange = record("@", "mail.mana.how", type="MX", priority=10)
    assert "the flow of mail (mail host)" in of(change, ("dns/mana.how/MX/@", exchange, Live(exchange)))
    assert "Risk" not in of(change)


# ------------------------------------------------------------------------------------------------- never too long
@pytest.mark.parametrize("deletions", [3, 400, 900])
def test_a_long_comment_is_cut_with_a_word_at_its_top_and_keeps_every_deletion(deletions: int) -> None:
    many = tuple(create(record(f"h{index}", "ü" * 100, type="TXT")) for index in range(2000))
    gone = tuple(delete(record(f"g{index}", "v=spf1 " + "y" * 90, type="TXT")) for index in range(deletions))
    problems = tuple(Problem(f"dns/{index}", "|" * 500, "@" * 500, Severity.REFUSED) for index in range(200))
    plan = a_plan(changes=(*many, *gone), problems=problems, unmanaged=("u",) * 1000)
    page = markdown.plan(plan, links={change.address: LINK for change in plan.changes})
    check(page, {LINK})
    assert page.index("**Cut:**") < page.index("**Risk:**")
    assert "so this plan can't be approved. All deletions are shown." in page
    assert all(f"`dns/mana.how/TXT/g{index}`" in outside_folds(page) for index in range(deletions))
    assert facts(page)["approvable"] is False
    assert not markdown.is_whole(plan)


def test_three_thousand_changes_are_cut_and_counted() -> None:
    plan = a_plan(changes=tuple(create(record(f"h{index}")) for index in range(3000)), head=())
    page = markdown.plan(plan)
    assert title(page) == "### mana: 3,000 create"
    shown = page.count("`dns/mana.how/A/h")
    assert f"**Cut:** {3000 - shown:,} lines do not fit" in page
    assert shown > 600


def test_links_go_before_a_change_does() -> None:
    plan = a_plan(changes=tuple(create(record(f"h{index}")) for index in range(700)))
    links = {change.address: LINK for change in plan.changes}
    assert markdown.is_whole(plan)
    assert LINK not in markdown.plan(plan, links=links)
    assert facts(markdown.plan(plan, links=links))["approvable"] is True


def test_a_long_list_of_receivers_neither_hides_one_nor_makes_the_comment_too_long() -> None:
    long = SecretRef("file", "A" * 60_000)
    for number in (1, 150):
        hosts = [f"https://h{index}.example.com" for index in range(number)]
        page = markdown.plan(a_plan(receivers=tuple(Receiver(host, (long,)) for host in hosts)))
        assert len(page) <= comment.LIMIT
        assert all(f"Secrets go to `{host}`" in outside_folds(page) for host in hosts)
    page = markdown.plan(
        a_plan(receivers=tuple(Receiver(f"https://{index}.example", (long,)) for index in range(5000)))
    )
    shown = page.count("Secrets go to `")
    assert shown > 100
    assert f"**and to {5000 - shown:,} more hosts" in page
    assert "**Cut:**" in page
    assert len(page) <= comment.LIMIT


def test_a_long_problem_hides_no_other_and_what_is_left_out_is_counted() -> None:
    reasons = tuple(Problem(f"dns/{index}", "the reason", "h", Severity.REFUSED) for index in range(4))
    page = markdown.plan(a_plan(problems=(Problem("dns/long", "x" * 30_000, "h", Severity.REFUSED), *reasons)))
    assert page.count("the reason") == 4
    assert "**Cut:** 1 lines" in page
    many = markdown.plan(a_plan(problems=tuple(replace(item, summary="y" * 2000) for item in reasons * 20)))
    assert f"**Cut:** {80 - many.count('**Refused** `')} lines" in many


def test_more_deletions_than_fit_are_counted() -> None:
    page = markdown.plan(a_plan(changes=tuple(delete(record(f"g{index}", "y", type="TXT")) for index in range(5000))))
    shown = page.count("- delete `")
    assert len(page.encode()) <= comment.LIMIT
    assert f"{5000 - shown:,} deletions are among them" in page


@settings(max_examples=tries(20))
@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 200), texts)
def test_however_long_it_fits_and_says_so(changes: int, gone: int, problems: int, value: str) -> None:
    plan: Plan = a_plan(
        changes=(
            *(create(record(f"h{index}", value * 9, type="TXT")) for index in range(changes)),
            *(delete(record(f"g{index}", value * 9, type="TXT")) for index in range(gone)),
        ),
        problems=tuple(Problem(f"dns/{index}", value * 30, value) for index in range(problems)),
    )
    page = markdown.plan(plan)
    check(page, set())
    told = len(re.findall(r"dns/mana.how/TXT/[hg]\d+`", page)) + page.count("> **Error**")
    assert (told == changes + gone + problems) is ("**Cut:**" not in page)
    assert ("**Cut:**" not in page) is facts(page)["approvable"] is markdown.is_whole(plan)


def test_a_secret_of_several_words_is_none_in_a_sentence() -> None:
    plan = a_plan(problems=(Problem("stalwart", "it says: two words9 here", "h"),))
    shown = plan.redacted(lambda text: text.replace("two words9", "[redacted {env: X}]"))
    assert "words9" not in markdown.plan(shown)
