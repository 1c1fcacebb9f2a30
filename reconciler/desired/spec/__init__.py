"""The shape of the YAML, and nothing else: names and nesting are those of the files.

Every scalar arrives as the text that was written (see `reconciler.desired.yaml.value`), ``null`` as ``None``. What was
written at all is in ``model_fields_set``: an absent key is unmanaged, ``null`` or ``[]`` clears.

Annotations are evaluated as they stand: pydantic needs them all, and evaluating texts costs a tenth of `validate`.
"""

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from reconciler.address import Address
from reconciler.desired import objects, words
from reconciler.desired.spec.dns import ZoneRecords
from reconciler.desired.spec.mail import ADDRESSES, Mail
from reconciler.desired.spec.scalars import (
    Model,
    Text,
    empty_list,
    empty_map,
    wrong,
)
from reconciler.desired.spec.smtp import Smtp
from reconciler.desired.spec.stalwart import Stalwart
from reconciler.desired.spec.targets import Frame
from reconciler.desired.yaml import Path
from reconciler.resources import SecretRef

_ADDRESSES = {
    **ADDRESSES,
    "dns": (r"dns/[^/]+/[A-Z0-9]+/.+", "dns/ZONE/TYPE/NAME"),
    "stalwart": (r"stalwart/.+", "stalwart/WORD"),
    "smtp": (r"smtp/[^/]+/(secrets/)?[^/]+", "smtp/SERVICE/VARIABLE"),
}


def _address(*kinds: str, removable: bool = False) -> Callable[[str], str]:
    known = " or ".join(_ADDRESSES[kind][1] for kind in kinds)

    def check(value: str) -> str:
        address = Address.parse(value)
        kind = address.kind
        if kind not in kinds or not re.fullmatch(_ADDRESSES[kind][0], value):
            raise wrong("is no address that can stand here", f"write {known}")
        if removable and kind == "stalwart" and (address.parts[0] != "listeners" or len(address.parts) == 1):
            raise wrong("can't be removed", "of these only stalwart/listeners/NAME; null puts a setting back")
        return value

    return check


Removable = Annotated[Text, AfterValidator(_address(*ADDRESSES, "stalwart", removable=True))]
Movable = Annotated[Text, AfterValidator(_address("account"))]
Adoptable = Annotated[Text, AfterValidator(_address(*_ADDRESSES))]


class Move(Model):
    """An account that gets another name and keeps its mailbox. The YAML calls `source` ``from``, `target` ``to``."""

    source: Movable = Field(alias="from")
    target: Movable = Field(alias="to")


class Spec(Mail, Frame):
    """A whole directory."""

    dns: ZoneRecords = {}
    stalwart: Annotated[Stalwart, BeforeValidator(empty_map)] = Stalwart.model_construct()
    smtp: Annotated[Smtp, BeforeValidator(empty_map)] = Smtp.model_construct()
    removed: Annotated[tuple[Removable, ...], BeforeValidator(empty_list)] = ()
    moved: Annotated[tuple[Move, ...], BeforeValidator(empty_list)] = ()
    adopt: Annotated[tuple[Adoptable, ...], BeforeValidator(empty_list)] = ()


def references(spec: Spec) -> Iterator[tuple[Path, SecretRef]]:
    """Yield every reference to a secret with the path of where it stands."""
    yield from spec.targets.secrets
    for index, notice in enumerate(spec.daemon.notices):
        yield ("daemon", "notices", index), notice
    if spec.daemon.github is not None:
        yield ("daemon", "github", "token"), spec.daemon.github.token
    if spec.router is not None and spec.router.password is not None:
        yield ("router", "password"), spec.router.password
    yield from spec.secrets
    for name, setting in spec.stalwart.settings.items():
        if isinstance(setting, SecretRef):
            yield ("stalwart", "settings", name), setting
    yield from _object_references(spec.stalwart.objects)
    yield from _smtp_references(spec.smtp)


def _object_references(declared: dict[str, Any]) -> Iterator[tuple[Path, SecretRef]]:
    for name, entries in declared.items():
        for entry, fields in entries.items():
            for path, ref in objects.secrets(objects.Parts(fields)):
                yield ("stalwart", "objects", name, entry, *path), ref


_PROVIDER_FIELDS = {"username": "username", "password": "password", "api_key": "api_key", "sender": "from"}


def _smtp_references(smtp: Smtp) -> Iterator[tuple[Path, SecretRef]]:
    yield from ((path, value) for path, value in _smtp_values(smtp) if isinstance(value, SecretRef))
    for index, link in enumerate(smtp.links):
        if link.value is not None:
            yield ("smtp", "links", index, "value"), link.value


def _smtp_values(smtp: Smtp) -> Iterator[tuple[Path, Any]]:
    for name, provider in smtp.providers.items():
        place: Path = ("smtp", "providers", name)
        yield from (((*place, word), getattr(provider, field)) for field, word in _PROVIDER_FIELDS.items())
        yield from (((*place, "values", key), value) for key, value in provider.values.items())
    for service, consumer in smtp.consumers.items():
        for part, given in (("env", consumer.env), ("secrets", consumer.secrets)):
            for variable, said in given.items():
                for leaf in words.leaves(said) if said is not None else ():
                    yield ("smtp", "consumers", service, part, variable), leaf


# ------------------------------------------------------------------------------------------------- for editors
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """Return the schema of one file. A file may hold any part of the directory, so nothing is required at its top."""
    from reconciler.desired.spec import manual  # only who asks for the schema reads it

    made = Spec.model_json_schema(by_alias=True)
    made.pop("required", None)
    for name, part in made["properties"].items():
        if name not in {"version", "stack"}:  # `accounts:` with nothing below it is an empty map
            made["properties"][name] = {"anyOf": [part, {"type": "null"}]}
    made["$defs"] = {_yaml_name(name): part for name, part in made["$defs"].items()}
    made["$defs"]["Stalwart"]["properties"]["objects"] = objects.property_schema()
    made = manual.explain(made)
    link = made["$defs"]["Link"]
    made["$defs"]["Link"] = {"anyOf": [link["properties"]["in"], link]}
    return {"$schema": DIALECT, **_friendly(made), "title": "Desired state of a mail stack"}


def _friendly(node: Any) -> Any:
    """Drop the titles pydantic derives from names; allow numbers where text is expected, and keys that are free."""
    if isinstance(node, list):
        return [_friendly(item) for item in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("$ref"), str):
        node = node | {"$ref": _yaml_name(node["$ref"])}
    made = {key: _friendly(item) for key, item in node.items() if key != "title" or not isinstance(item, str)}
    if made.get("type") == "string" and not {"enum", "const", "format"} & made.keys():
        made["type"] = ["string", "number", "boolean"]  # a plain 123 is read as the text that was written
    if isinstance(made.get("additionalProperties"), dict):
        made["patternProperties"] = {"^x-[^@.]*$": {}}  # as `spec.is_free`
    return made


def _yaml_name(model: str) -> str:
    """Name a model as people speak of the thing: `RecordEntry` is called so to be no `resources.Record`."""
    return model.removesuffix("Entry")
