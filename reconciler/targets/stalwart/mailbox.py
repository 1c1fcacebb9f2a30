"""A mailbox of the server over JMAP, with its owner's own login: finds one mail, reads it, takes it out.

Both generations alike. ``Email/get`` with ``blobId`` and the download were seen on real servers of both (observed.md,
"The way of one mail"); ``Email/changes`` (RFC 8621, section 4.3) is in the source of both. It tells what came since,
whether or not the search index has it yet, so that no other mail is looked at. The session names the server's public
address, which need not lead there from here: only paths of ours are asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from reconciler.http import Answer
from reconciler.problem import TargetUnreadable
from reconciler.targets.stalwart.connection import Connection, Credentials, Login

MARK = "X-Reconciler-Probe"
"""The header field that a test mail is known by."""

_SESSION = "/jmap/session"
_USING = ("urn:ietf:params:jmap:core", "urn:ietf:params:jmap:mail")
_MAIL = _USING[1]
_NEWEST = 10  # mails of a sender, the test mails of earlier calls among them
_LARGEST = 1 << 16  # bytes of a mail that are read: a test mail has 1 KiB, and what is more somebody added on the way
_FIELD = f"header:{MARK}:asText"
_SHOWN = ("blobId", "mailboxIds", "subject", _FIELD)


@dataclass(frozen=True, slots=True)
class Found:
    """A mail in the mailbox; ``folder`` is the role of its folder (RFC 8621, section 2): ``inbox``, ``junk``."""

    id: str
    blob: str
    folder: str


class Mailbox:
    """One mailbox. ``login`` remembers what was refused, so that it is not sent a second time."""

    def __init__(self, connection: Connection, login: Login, username: str, password: str) -> None:
        """Log in. Raises `TargetUnreadable`."""
        self._connection, self._login = connection, login
        self._credentials = Credentials(username, password)
        if login.was_refused(self._credentials):
            raise self._unreadable("was refused before, and is not tried again: the server bans who keeps trying")
        session = self._answer(_SESSION).json()
        accounts = session.get("primaryAccounts") if isinstance(session, dict) else None
        self._account = str(accounts.get(_MAIL) or "") if isinstance(accounts, dict) else ""
        if not self._account:
            raise self._unreadable("has no mailbox")

    def state(self) -> str:
        """Return what `find` takes, for mail that comes from now on. Raises `TargetUnreadable`."""
        (answer,) = self._call(("Email/get", {"ids": [], "properties": ["id"]}))
        return str(answer.get("state") or "")

    def find(self, token: str, since: str) -> Found | None:
        """Look whether a mail came since a `state` whose subject or mark holds a word; None where it did not."""
        created = {"resultOf": "0", "name": "Email/changes", "path": "/created"}
        _, mails, folders = self._call(
            ("Email/changes", {"sinceState": since}),
            ("Email/get", {"#ids": created, "properties": list(_SHOWN)}),
            ("Mailbox/get", {"ids": None, "properties": ["role"]}),
        )
        roles = {item.get("id"): item.get("role") or "" for item in folders.get("list") or ()}
        for item in mails.get("list") or ():
            if token in str(item.get("subject") or "") or token in str(item.get(_FIELD) or ""):
                held = [str(roles.get(key) or "") for key in item.get("mailboxIds") or ()]
                return Found(str(item["id"]), str(item.get("blobId") or ""), next(filter(None, held), ""))
        return None

    def last(self, sender: str) -> Found | None:
        """Find the newest mail of a sender that is no test; None where there is none, or nothing can be searched."""
        ids = {"resultOf": "0", "name": "Email/query", "path": "/ids"}
        newest = {"sort": [{"property": "receivedAt", "isAscending": False}], "limit": _NEWEST}
        try:
            _, mails = self._call(
                ("Email/query", {"filter": {"from": sender}, **newest}),
                ("Email/get", {"#ids": ids, "properties": ["blobId", "from", "receivedAt", _FIELD]}),
            )
        except TargetUnreadable:
            return None
        alike = [
            item
            for item in mails.get("list") or ()
            if not item.get(_FIELD) and sender in [str(each.get("email")).lower() for each in item.get("from") or ()]
        ]
        found = max(alike, key=lambda item: str(item.get("receivedAt")), default=None)
        return Found(str(found["id"]), str(found.get("blobId") or ""), "") if found else None

    def read(self, found: Found) -> bytes:
        """Return a mail as it lies there, or its beginning where it is large. Raises `TargetUnreadable`."""
        account, blob = (quote(text, safe="") for text in (self._account, found.blob))
        return self._answer(f"/jmap/download/{account}/{blob}/probe.eml").body[:_LARGEST]

    def remove(self, found: Found) -> str:
        """Take a mail out for good, and return why it is still there; empty where it is not."""
        (answer,) = self._call(("Email/set", {"destroy": [found.id]}))
        if found.id in (answer.get("destroyed") or ()):
            return ""
        why = (answer.get("notDestroyed") or {}).get(found.id) or {}
        return f"the server answers {why.get('type') or 'nothing'}"

    def _call(self, *calls: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
        spelled = [[name, {"accountId": self._account, **given}, str(tag)] for tag, (name, given) in enumerate(calls)]
        body = self._answer("/jmap", {"using": list(_USING), "methodCalls": spelled}).json()
        listed = body.get("methodResponses") if isinstance(body, dict) else None
        if not isinstance(listed, list) or len(listed) != len(calls) or not all(isinstance(it, list) for it in listed):
            raise self._unreadable("can't be read: the answer is no JMAP")
        for (name, _), response in zip(calls, listed, strict=True):
            if response[0] != name or not isinstance(response[1], dict):
                kind = response[1].get("type") if isinstance(response[1], dict) else "nothing"
                raise self._unreadable(f"can't be read: {name} is answered with {kind}")
        return [response[1] for response in listed]

    def _answer(self, path: str, body: Any = None) -> Answer:
        who = self._credentials
        answer = self._connection.ask_as(who.username, who.password, path, body)
        if answer.status == 401:  # noqa: PLR2004 (HTTP)
            self._login.refuse(who)
            raise self._unreadable("is closed: the server refuses the account's declared password")
        if answer.status != 200:  # noqa: PLR2004 (HTTP)
            raise self._unreadable(f"can't be read: the server answers {answer.status}")
        return answer

    def _unreadable(self, why: str) -> TargetUnreadable:
        summary = f"the mailbox of {self._credentials.username} {why}"
        return TargetUnreadable(self._connection.problem(summary, "see the account's password: apply, then try again"))
