"""Whether receivers let our server send in a domain's name: SPF, as they evaluate it."""

from __future__ import annotations

from reconciler.checks.check import Check, Remedy, Verdict, error, ok, skip, unknown, warn
from reconciler.checks.dns import each, is_proxy, names, policies, shown, unaddressed, unanswered
from reconciler.checks.evidence import Names
from reconciler.dns import text
from reconciler.dns.policies import evaluation, spf
from reconciler.dns.policies.evaluation import MOST_VOID, Evaluation

_ANY = "192.0.2.1"  # stands for our address where it is not known: what matters then is what is looked up


def values(found: Names) -> evaluation.Values:
    """Return what DNS shows, as an evaluation takes it: of name servers that differ, the first that answered."""
    answered = {asked: [item for item in answers if not item.unread] for asked, answers in found.answers.items()}
    return {asked: items[0].values for asked, items in answered.items() if items}


def evaluated(found: Names, domain: str) -> Evaluation:
    """Evaluate the record of a domain for the address from which our mail leaves."""
    address = found.line.address if found.line.address and not found.line.useless else _ANY
    return evaluation.evaluate(domain, address, f"postmaster@{domain}", values(found))


def _record(found: Names, domain: str) -> Verdict:
    seen, texts = policies(found, domain, text.SPF)
    if verdict := unanswered(domain, "TXT", seen):
        return verdict
    declare = Remedy(f'declare `{{type: TXT, name: "@", content: "v=spf1 mx -all"}}` for {domain}, and apply')
    if not texts:
        near = [value for value in seen.all if "spf" in value.lower()[:12]]
        said = f"what stands at {domain} is no SPF record" if near else f"{domain} has no SPF record"
        return error(said, *near[:1], remedy=declare)
    if len(texts) > 1:
        said = f"{domain} has {len(texts)} SPF records: receivers take that for an error (RFC 7208 section 4.5)"
        return error(said, *texts, remedy=Remedy("join them into one"))
    faults = spf.parse(texts[0], domain).faults
    broken = [fault for fault in faults if fault.breaks]
    told = [f"{fault.piece} {fault.cause}".strip() + (f": {fault.hint}" if fault.hint else "") for fault in faults]
    if broken:
        return error(
            f"the SPF record of {domain} is not understood: {texts[0]}", *told, remedy=Remedy("correct it, and apply")
        )
    if told:
        return warn(
            f"the SPF record of {domain}: {told[0]}", *told[1:], texts[0], remedy=Remedy("correct it, and apply")
        )
    return ok(f"{domain}: {texts[0]}")


def _lookups(found: Names, domain: str) -> Verdict:
    told = evaluated(found, domain)
    if told.result == "none":
        return skip(f"{domain} has no SPF record to judge")
    if told.missing:
        return unknown(f"what the SPF record of {domain} leads to could not be asked", *_questions(told))
    count = f"{told.lookups} of 10 look-ups, {told.void} of {MOST_VOID} that find nothing"
    if told.result == "permerror":
        said = f"receivers take the SPF record of {domain} for an error: {told.why}"
        text = "take out what you don't send through; write addresses as ip4: and ip6:"
        return error(said, f"at {told.term}" if told.term else count, remedy=Remedy(text))
    if told.lookups == 10 or told.void == MOST_VOID:  # noqa: PLR2004 (RFC 7208 section 4.6.4)
        return warn(f"the SPF record of {domain} is at the limit: {count}")
    return ok(f"{domain}: {count}")


def _questions(told: Evaluation) -> tuple[str, ...]:
    return tuple(f"{item.type} {item.host}" for item in sorted(told.missing))


def _authorised(found: Names, domain: str) -> Verdict:
    address = found.line.address
    if not address or found.line.useless:
        return unaddressed(found)
    told = evaluated(found, domain)
    if told.missing:
        return unknown(f"what the SPF record of {domain} leads to could not be asked", *_questions(told))
    if told.result == "pass":
        return ok(f"{address} may send for {domain} ({told.term})")
    if told.result in ("none", "permerror"):
        return skip(f"{domain} has no SPF record that can be evaluated")
    addresses = shown(found, found.host, "A").all if found.host else ()
    stale = f"the record names {found.host}, which is {', '.join(addresses)}" if addresses else ""
    decided = f"{told.result} ({told.term or 'nothing matches'})"
    said = f"{address}, from which mail leaves, may not send for {domain}: {decided}"
    mend = f"let the record name it: `ip4:{address}`, or `mx` where the MX is this server"
    return error(
        said, *filter(None, (stale,)), cause="receivers answer 550 5.7.23, or file it as spam", remedy=Remedy(mend)
    )


def _proxied(found: Names, domain: str) -> Verdict:
    told = evaluated(found, domain)
    if told.result == "none":
        return skip(f"{domain} has no SPF record to judge")
    behind = [term for term, addresses in told.named.items() if any(map(is_proxy, addresses))]
    if behind:
        said = f"`{behind[0]}` in the SPF record of {domain} names Cloudflare's proxy"
        cause = "a proxied name has Cloudflare's addresses: whoever sends from there may send for you"
        return warn(said, cause=cause, remedy=Remedy(f"take `{behind[0]}` out, and name the server by `mx` or `ip4:`"))
    return ok(f"{domain}: no term leads to a proxy")


CHECKS = (
    Check(
        "dns/spf",
        "550 SPF did not pass",
        "the record is missing, stands twice, or is not understood",
        "correct it, and apply",
        "RFC 7208",
        names,
        each(_record, "every domain has one SPF record"),
    ),
    Check(
        "dns/spf-lookups",
        "spf=permerror",
        "the record takes more than ten look-ups, or more than two that find nothing",
        "take out what is not used",
        "RFC 7208 section 4.6.4",
        names,
        each(_lookups, "SPF stays within its look-ups"),
    ),
    Check(
        "dns/spf-authorises",
        "550 5.7.23, spf=fail",
        "the address from which mail leaves is not in the record",
        "let the record name it",
        "RFC 7208 section 5",
        names,
        each(_authorised, "the address from which mail leaves may send for every domain"),
    ),
    Check(
        "dns/spf-proxied",
        "others send in our name, and SPF says pass",
        "a name in the record is behind Cloudflare's proxy",
        "name the server by mx or ip4",
        "Cloudflare, proxied records",
        names,
        each(_proxied, "no SPF record names a proxy"),
    ),
)
