"""Learn from a fresh server what it makes by itself: reconciler/targets/stalwart/jmap/defaults.json.

Run it against a server with an empty store: ``python tests/targets/stalwart/jmap/facts.py RELEASE URL USER PASSWORD``.
"""

import json
import sys

from reconciler.resources import SecretRef
from reconciler.targets.stalwart.connection import Connection, Login, Mode
from reconciler.targets.stalwart.jmap.api import JmapApi
from reconciler.targets.stalwart.jmap.differing import Shapes, declarable, everything, shortened
from reconciler.targets.stalwart.jmap.kinds.listener import ListenerKind
from reconciler.targets.stalwart.jmap.kinds.raw_objects import Names
from reconciler.targets.stalwart.jmap.run import reading_of
from reconciler.targets.stalwart.jmap.target import KINDS
from reconciler.url import parse


def registry(url, user, password):
    """Read everything that a survey reads."""
    login = Login(user, [SecretRef("argument", "password")], mode=Mode.JMAP)
    with Connection(parse(url), login, lambda _: password, lambda _: None) as connection:
        return JmapApi(connection).read(everything(KINDS), lenient=True)


def derive(found):
    """Return the listeners, and all other objects as they would be declared; what is empty is left out."""
    shapes = Shapes(Names(found))
    reading = reading_of(found, (), "", reveal=str, report=lambda _: None)
    own = (item.resource for item in ListenerKind().live(reading))
    listeners = {
        item.name: {"bind": list(item.bind), "protocol": item.protocol, "tls_implicit": item.tls_implicit}
        for item in own
    }
    objects = {
        name: {entry: _known(shapes.entry(name, items[0])) for entry, items in shapes.names.entries(name).items()}
        for name in declarable(KINDS)
    }
    return {"listeners": listeners, "objects": {name: entries for name, entries in objects.items() if entries}}


def _known(fields):
    return {key: shortened(value) for key, value in sorted(fields.items()) if value is not None}


def text(release, facts):
    """Write it down, an object a line, so that a diff shows what a release changed."""
    listeners = ",\n".join(f"  {json.dumps(name)}: {json.dumps(item)}" for name, item in facts["listeners"].items())
    kinds = []
    for name, entries in sorted(facts["objects"].items()):
        lines = ",\n".join(f"   {json.dumps(entry)}: {json.dumps(item)}" for entry, item in sorted(entries.items()))
        kinds.append(f"  {json.dumps(name)}: {{\n{lines}\n  }}")
    listed = ",\n".join(kinds)
    head = f' "release": {json.dumps(release)},\n "listeners": {{\n{listeners}\n }},\n'
    return f'{{\n{head} "objects": {{\n{listed}\n }}\n}}\n'


if __name__ == "__main__":
    sys.stdout.write(text(sys.argv[1], derive(registry(*sys.argv[2:]))))
