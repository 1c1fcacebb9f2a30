"""What is judged of the services that send mail."""

from __future__ import annotations

import datetime as dt

from reconciler.checks import judge
from reconciler.checks.check import Status
from reconciler.checks.evidence import Evidence, Service, Services
from reconciler.plan import Plan


def test_the_services_of_a_link_that_differs_are_mended_also_where_a_name_holds_a_dot() -> None:
    services = Services((Service("notify.v2"),), apart=(("notify.v2.API_KEY", "web.API_KEY"),), links=1)
    evidence = Evidence(Plan("mana"), dt.datetime.now(dt.UTC), services=services)
    (found,) = judge(evidence, ["services/key"])
    assert found.status is Status.ERROR
    assert found.remedy.change == "smtp/notify.v2"
