"""From what a survey says to what its directory would desire: the same resources, with references for secrets."""

from dataclasses import replace

from reconciler.desired import objects
from reconciler.plan import Desired, diff
from reconciler.resources import UNMANAGED, Account, Domain, Listener, Resource, SecretRef, Setting, Signature
from reconciler.targets.stalwart.survey import Survey


def survey(world):
    return world.target.survey(world.reveal)


def resources(found, kind):
    return {item.resource.address: item.resource for item in found.live if isinstance(item.resource, kind)}


def told(found):
    return [str(item) for item in found.omitted]


def plan_after(world, found, target=None):
    """Plan with what was imported, against the same server or another one; return it and what was wanted."""
    resources, secrets = wanted(found)
    world.secrets |= secrets
    seen = (target or world.target).observe(resources, world.reveal)
    return diff(Desired(tuple(resources)), {"stalwart": seen}, stack="mana"), resources


def wanted(survey: Survey) -> tuple[list[Resource], dict[str, str]]:
    """Return the resources, and the values of the secrets they name."""
    secrets = {f"hash {name}": value for name, value in survey.hashes.items()}
    secrets |= {f"key {address}": value for address, value in survey.private_keys.items()}
    secrets |= {f"setting {key}": value for key, value in survey.secrets.items()}
    found = [_wanted(live.resource, survey) for live in survey.live]
    found += [Setting(f"settings/{key}", value) for key, value in survey.settings.items()]
    found += [Setting(f"settings/{key}", SecretRef("env", f"setting {key}")) for key in survey.secrets]
    for name, entries in survey.objects.items():
        for entry, fields in entries.items():
            values, wrong = objects.declared(name, entry, fields)
            assert not wrong
            found += [Setting(objects.word(name, entry, key), value) for key, value in values.items()]
    return found, secrets


def _wanted(resource: Resource, survey: Survey) -> Resource:
    match resource:
        case Domain():
            return replace(resource, manual=UNMANAGED)
        case Listener():
            return replace(resource, open=True)
        case Signature():
            known = resource.address in survey.private_keys
            private = SecretRef("env", f"key {resource.address}") if known else None
            return replace(resource, private_key=private, signs=True)
        case Account():
            password = SecretRef("env", f"hash {resource.name}") if resource.name in survey.hashes else UNMANAGED
            login = resource.login if survey.generation == "rest" else UNMANAGED
            quota = UNMANAGED if resource.quota is None else resource.quota
            return replace(resource, password=password, login=login, quota=quota)
    return resource
