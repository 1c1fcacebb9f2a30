"""What the tests rely on of the tools that run them."""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadGroupScheduling

GROUP = "conftest"
pytestmark = pytest.mark.xdist_group(GROUP)


def test_a_group_is_what_the_scheduler_takes_it_for(request: pytest.FixtureRequest) -> None:
    grouped = getattr(request.config.option, "loadgroup", False)
    scope = LoadGroupScheduling._split_scope(object.__new__(LoadGroupScheduling), request.node.nodeid)
    assert scope == (GROUP if grouped else request.node.nodeid)
