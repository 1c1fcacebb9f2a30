"""What is said of a kind of the mail server in several ways means the same kinds."""

from typing import get_args

from reconciler.daemon import page
from reconciler.desired.spec import Spec
from reconciler.desired.spec.mail import ADDRESSES, Mail
from reconciler.resources import KINDS, Addressee

KEYS = {"dkim": "dkim"}  # every other kind stands under its plural


def test_a_kind_of_the_mail_server_has_a_map_and_an_address():
    assert [KEYS.get(kind, f"{kind}s") for kind in ADDRESSES] == list(Mail.model_fields)
    assert set(ADDRESSES) <= {kind.kind for kind in KINDS if kind.target == "stalwart"}


def test_what_has_addresses_is_the_same_in_the_yaml_and_on_the_server():
    spec = Spec.model_validate({"stack": "mana"})

    assert {f"{kind.kind}s" for kind in get_args(Addressee)} == set(spec.addressees)


def test_every_kind_has_a_title_on_the_page():
    shown = page._groups([{"kind": kind.kind, "state": "in_sync"} for kind in KINDS])

    assert {group.kind for group in shown} == {kind.kind for kind in KINDS}
