"""Groups of Stalwart up to 0.15: mailboxes that several accounts share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reconciler.problem import Problem, Severity
from reconciler.resources import Group, Live
from reconciler.targets.stalwart.rest.kind import Reading
from reconciler.targets.stalwart.rest.principals import Addressed, Means, kept, texts


class Groups(Addressed[Group]):
    """The groups; who belongs to one is written at the account."""

    resource, types = Group, ("group",)
    undeclared = frozenset(("memberOf", "lists", "quota", "secrets"))

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield all of them; one that is wanted and gets no mail is reported."""
        for item, wanted, fields in self.said(reading, reading.of(Group)):
            if wanted and not texts(item, "roles") and "email-receive" not in texts(item, "enabledPermissions"):
                summary = "gets no mail: it lacks the permission email-receive, so what is sent to it bounces"
                hint = f"give {item['name']} that permission on the server; a group that apply makes has it"
                reading.report(Problem(wanted.address, summary, hint, Severity.WARNING))
            yield Live(Group(**fields), id=item["name"], detail=kept(item))

    def body(self, resource: Group, means: Means) -> dict[str, Any]:
        """Return what creates it. Without a role it would get no mail, and later the server takes none."""
        return super().body(resource, means) | {"roles": ["user"]}
