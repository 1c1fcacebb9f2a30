"""Whether the services that send mail run with what they should have: the very containers, not the files."""

from __future__ import annotations

from collections.abc import Callable

from reconciler.address import Address
from reconciler.checks.check import Check, Remedy, Unread, Verdict, error, ok, skip, told, unknown, warn, worst
from reconciler.checks.evidence import Evidence, KeyTrial, Service, Services
from reconciler.desired.spec.scalars import link_end
from reconciler.plan import Plan
from reconciler.problem import Problem, Severity
from reconciler.resources import Variable
from reconciler.target import Change

_MANY = 3  # restarts by the engine itself


def services(evidence: Evidence) -> Services | Unread | None:
    """Take the services."""
    return evidence.services


def _consumers(evidence: Evidence) -> Plan | Unread | None:
    """Take the plan, where services are declared."""
    return None if evidence.services is None else evidence.plan


def _running(found: Services) -> Verdict:
    verdicts = []
    for item in found.services:
        log = Remedy(f"see what it says: docker compose logs {item.name}", f"docker compose up -d {item.name}")
        if not item.containers:
            verdicts.append(error(f"{item.name} does not run", remedy=log))
        elif item.state != "running" or item.restarts >= _MANY:
            said = f"{item.name} is {item.state}, and was restarted by the engine {item.restarts} times"
            verdicts.append(error(said, remedy=log))
        elif item.health == "unhealthy":
            verdicts.append(error(f"{item.name} runs, and its health check fails", remedy=log))
        else:
            verdicts.append(ok(f"{item.name} runs"))
    return worst(verdicts, "all services that send mail run")


def _environment(plan: Plan) -> Verdict:
    changes = [item for item in plan.changes if item.kind == Variable.kind]
    if not changes:
        return ok("every container has the variables that the directory wants")
    named = [f"{item.address}: {_differing(item)}" for item in changes]
    count = f"{len(changes)} variables of running containers are" if len(changes) > 1 else f"{changes[0].address} is"
    said = f"{count} not as declared"
    change = str(Address.parse(changes[0].address).parent)
    return error(said, *named, remedy=Remedy("see `reconciler plan`", "reconciler apply", change))


def _differing(change: Change) -> str:
    """Say where a variable is not as declared."""
    places = {"running": "the running container", "configured": "the env file"}
    found = [places.get(name, name) for name in change.fields]
    return f"another value in {' and in '.join(found)}" if found else change.reason.words


def _settable(plan: Plan) -> Verdict:
    fine = "the env file decides on every variable that is declared"
    # Where the mail server could not be read, its errors show here, too.
    severities = {Severity.REFUSED} if "stalwart" in plan.unread else {Severity.REFUSED, Severity.ERROR}
    found = [item for item in plan.problems if _is_about_service(item) and item.severity in severities]
    return told(found, fine)


def _is_about_service(item: Problem) -> bool:
    return Variable.kind in (Address.parse(item.scope).kind, Address.parse(item.where).kind)


def _links(found: Services) -> Verdict:
    if not found.links:
        return skip("no link between services is declared")
    if not found.apart:
        return ok(f"{found.links} shared secret{'s agree' if found.links > 1 else ' agrees'} (compared by hash)")
    named = [" and ".join(ends) for ends in found.apart]
    change = f"smtp/{link_end(found.apart[0][0])[0]}"
    return error(
        f"{named[0]} differ in the running containers",
        *named[1:],
        cause="one of the services has another value than the other: it answers 401",
        remedy=Remedy("set one secret for both, and recreate the services", "reconciler apply", change),
    )


def _taken(found: Services) -> Verdict:
    if not found.trials:
        return skip("no link between services says where its key can be tried (`check`)")
    return worst(map(_trial, found.trials), "every service takes the key that the others have")


_REFUSED = (401, 403)  # RFC 9110
_FAILS = 500


def _trial(item: KeyTrial) -> Verdict:
    if item.bare is not None and item.bare < 400:  # noqa: PLR2004 (RFC 9110: it was done)
        said = f"{item.service} answers {item.where} without any key: {item.bare}"
        text = "let it ask for the key; or let `check` of the link name a path that needs it"
        return warn(said, cause="whoever reaches the service may use it", remedy=Remedy(text))
    if item.status in _REFUSED:
        named, variable = link_end(item.caller)
        text = (
            f"give both one value, and recreate {item.service} and {named}: a process reads its variables at its start"
        )
        return error(
            f"{item.service} refuses the key of {named} ({variable}): {item.status}",
            *filter(None, (item.why,)),
            cause="the service runs with another key than its caller",
            remedy=Remedy(text, "reconciler apply", f"smtp/{item.service}"),
        )
    if item.status is None or item.status >= _FAILS:
        return unknown(f"{item.service} at {item.where}: {item.why or f'it answers {item.status}'}")
    return ok(f"{item.service} takes the key of {link_end(item.caller)[0]}: {item.status} at {item.where}")


def _none(
    flaw: Callable[[Service], tuple[str, ...]], tell: Callable[[Service, str], Verdict], fine: str
) -> Callable[[Services], Verdict]:
    """Judge that no service has a variable with a flaw; ``tell`` is told which ones have."""

    def judged(found: Services) -> Verdict:
        verdicts = ((tell(item, ", ".join(flaw(item))) if flaw(item) else ok("")) for item in found.services)
        return worst(verdicts, fine)

    return judged


def _empty(item: Service, named: str) -> Verdict:
    return error(
        f"{item.name} has no value for {named}",
        cause="the variable is missing in the env file, is not interpolated, or the container is older than it",
        remedy=Remedy("see `reconciler plan`", "reconciler apply", f"smtp/{item.name}"),
    )


def _padded(item: Service, named: str) -> Verdict:
    remedy = Remedy("take them out of the env file and of the secret, then apply", "reconciler apply")
    return error(f"{item.name} has quotes or blanks as a part of {named}", remedy=remedy)


def _known(item: Service, named: str) -> Verdict:
    remedy = Remedy("choose a new secret and apply", "reconciler apply", f"smtp/{item.name}")
    return error(f"{item.name} runs with a value for {named} that everybody can read", remedy=remedy)


def _stale(item: Service, named: str) -> Verdict:
    remedy = Remedy("see whether that is meant, then recreate it", f"docker compose up -d {item.name}")
    return warn(f"the files give {item.name} another {named} than its container has", remedy=remedy)


CHECKS = (
    Check(
        "services/running",
        "registration mails are never asked for",
        "a service that sends mail is stopped or crashes",
        "look at its log and start it",
        "docs/compose.md",
        services,
        _running,
    ),
    Check(
        "services/environment",
        "a changed line in the env file has no effect",
        "the container was made before, or a literal in the compose file wins",
        "apply recreates the service with what is declared",
        "docs/compose.md",
        _consumers,
        _environment,
    ),
    Check(
        "services/literal",
        "switching the provider has no effect",
        "the compose file holds a literal where the env file should decide",
        "write the variable there that the remedy names",
        "docs/compose.md",
        _consumers,
        _settable,
    ),
    Check(
        "services/key",
        "mana-notify error: 401",
        "two services have different values for the secret that they share",
        "set one secret and recreate both",
        "docs/format.md",
        services,
        _links,
    ),
    Check(
        "services/key-taken",
        "mana-notify error: 401, though both variables agree",
        "the service does not take the key that its caller has",
        "give both one value and recreate both",
        "docs/doctor.md#the-key-that-services-share",
        services,
        _taken,
    ),
    Check(
        "services/empty",
        "smtp not configured, skipping email",
        "user or password is empty in the running container",
        "set the variable and recreate the service",
        "docs/compose.md",
        services,
        _none(lambda item: item.empty, _empty, "no declared variable is empty"),
    ),
    Check(
        "services/padded",
        "535, though the password is right in the env file",
        "quotes or blanks became a part of the value",
        "take them out",
        "Docker Compose, interpolation",
        services,
        _none(lambda item: item.padded, _padded, "no value has quotes or blanks about it"),
    ),
    Check(
        "services/known-secret",
        "strangers send mail through the service",
        "the secret is a default of public code, such as dev-service-key",
        "choose a new one",
        "docs/secrets.md",
        services,
        _none(lambda item: item.known, _known, "no secret is one that stands in public code"),
    ),
    Check(
        "services/stale",
        "the env file or the compose file was changed, and nothing else happened",
        "a container takes its variables when it is made, and is older than its files",
        "recreate the service",
        "docs/compose.md",
        services,
        _none(lambda item: item.outdated, _stale, "every container has what its files say"),
    ),
)
