"""Making a key: names for it. How one is stored and written is tested by the command."""

import datetime as dt
import itertools

from reconciler.dkim.making import selectors

TODAY = dt.date(2026, 11, 28)


def test_selectors_are_named_after_algorithm_and_month() -> None:
    assert list(itertools.islice(selectors("rsa", TODAY), 3)) == ["rsa202611", "rsa202611b", "rsa202611c"]
    assert next(selectors("ed25519", dt.date(2027, 1, 1))) == "ed202701"
