"""`doctor --probe` and `doctor --since` on the whole stage, both generations: real mails through real sockets."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize("stage", ["applied", "newer_applied"])
def test_try(stage: str, request: Any) -> None:
    it = request.getfixturevalue(stage)
    done = it.run("doctor", "--probe", "--only", "probe", "-v")
    print(done.text)
    done = it.run("doctor", "--probe", "someone@elsewhere.example", "--only", "probe", "-v")
    print(done.text)
    done = it.run("doctor", "--since", "5m", "--only", "mail", "-v")
    print(done.text)
    done = it.run("doctor", "--since", "5m", "--only", "mail", "--output", "json")
    print(done.text)
    assert 0
