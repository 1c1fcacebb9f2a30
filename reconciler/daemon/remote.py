"""Where a repository is, as the daemon's own configuration names it, and what git says when it does not get there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from reconciler import url
from reconciler.problem import Problem, ReconcilerError

_SCHEMES = ("ssh", "https", "http")
_FILE = "file://"
_SCP = re.compile(r"([A-Za-z0-9_.][A-Za-z0-9_.-]*)@([^/:@\[\]]+|\[[^/@\[\]]+\]):([^-:\s][^\s]*)")
_EXAMPLE = "write it like https://github.com/OWNER/NAME.git, git@github.com:OWNER/NAME.git or /srv/git/NAME.git"
# What no name of a branch has (git-check-ref-format), and what would make a pattern or two names of it.
_NO_BRANCH = re.compile(
    r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^@$|^[-/.]|/\.|[/.]$|\.lock(/|$)",
)


@dataclass(frozen=True, slots=True)
class Remote:
    """A branch of a repository. ``address`` is what git gets and people see: it holds no password.

    ``protocol`` is git's word for how it is reached: ``file``, ``ssh``, ``https`` or ``http``. With ``pull`` it is the
    head of the pull request of that number, as GitHub has it, which is to be merged into the branch.
    """

    address: str
    protocol: str
    branch: str
    pull: int = 0

    @classmethod
    def read(cls, repo: str, branch: str) -> Remote:
        """Read both as they are configured. Raises `ReconcilerError`, which does not repeat a URL."""
        if not branch or not branch.isprintable() or _NO_BRANCH.search(branch):
            raise ReconcilerError(Problem("the branch", f"{branch!a} is no branch's name", "write it like main"))
        try:
            return cls(*_address(repo), branch)
        except url.NoUrl as error:
            raise ReconcilerError(Problem("the repository", f"its address {error.why}", error.hint)) from None

    @property
    def ref(self) -> str:
        """The full name of what is followed."""
        return f"refs/pull/{self.pull}/head" if self.pull else f"refs/heads/{self.branch}"

    def is_of(self, address: str) -> bool:
        """Whether another address may be one of the same repository.

        That is told by the path, since a host has many names and ports. A path may begin at another folder, too: at the
        login's home, or at the top of the host.
        """
        one, other = _parts(address), _parts(self.address)
        shared = min(len(one), len(other))
        return shared > 0 and one[-shared:] == other[-shared:]

    def __str__(self) -> str:
        return f"{self.address} ({self.branch})"


def _parts(address: str) -> list[str]:
    """Return the folders of an address, however it is reached: ``owner`` and ``name`` of ``github.com``'s."""
    path = re.sub(r"^(\w+://[^/]*|[^/:]*:)", "", address).lower()
    return [part for part in re.sub(r"(/|\.git)+$", "", path).split("/") if not part.startswith("~") and part]


def _address(text: str) -> tuple[str, str]:
    if not text or not text.isprintable():
        raise url.NoUrl("is empty, or holds a character that nobody sees", _EXAMPLE)
    if text.startswith(_FILE) or ("://" not in text and "@" not in text and "::" not in text):
        return _path(text.removeprefix(_FILE)), "file"
    if (match := _SCP.fullmatch(text)) is not None:
        url.host(match[2].strip("[]"))
        return text, "ssh"
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    if scheme not in _SCHEMES:
        raise url.NoUrl("is none that is followed: a path, https://, ssh:// or http://", _EXAMPLE)
    if scheme != "ssh" and "@" in rest.partition("/")[0]:
        hint = "leave it out: git asks the credential helper of reconciler's user, or GIT_ASKPASS"
        raise url.NoUrl("holds a user name or password, and addresses are shown", hint)
    return url.parse(text, _SCHEMES).url, scheme


def _path(text: str) -> str:
    if text.startswith(("-", "~")) or not text:
        raise url.NoUrl("is no path", "write it in full, from / on")
    return str(Path(text).absolute())


_CAUSES = (
    (
        "dubious ownership",
        "is another user's, so git does not read it",
        "as reconciler's user: git config --global --add safe.directory PATH, or give it that user",
    ),
    (
        "host key verification failed",
        "is not known to ssh by its key",
        "put the host's key into ~/.ssh/known_hosts of reconciler's user, after you have compared it",
    ),
    (
        "no user exists for uid",
        "can't be reached: ssh needs a name for the user it runs as",
        "run reconciler as a user that stands in /etc/passwd",
    ),
    (
        "permission denied|authentication failed|could not read (user|pass)|http basic|terminal prompts|error: 40[13]",
        "refuses our login, or there is none",
        "give reconciler's user a key (ssh agent, ~/.ssh) or a credential helper; no prompt is ever answered",
    ),
    (
        "could not resolve|name or service not known|temporary failure in name",
        "can't be found: its name does not resolve",
        "check the name, and DNS on this machine",
    ),
    (
        "certificate|ssl|tls|gnutls",
        "can't be trusted: its certificate does not prove its name",
        "install its authority, or name it in GIT_SSL_CAINFO",
    ),
    (
        "redirect|error: 30[12378]",
        "sends us to another address, which is not followed",
        "write the new address",
    ),
    (
        "transport '.*' not allowed|protocol '.*' not supported",
        "is reached in a way that is not allowed",
        "only file, ssh and https are, and http where the address says so; look at `git config --get-regexp insteadOf`",
    ),
    (
        "refused|timed out|unreachable|could not connect|failed to connect|connection (reset|closed)|hung up|no route",
        "does not answer",
        "check the address and the way there",
    ),
    (
        "not found|does not exist|not appear to be a git|no such file|not a git repository",
        "is not there, or we may not see it",
        "correct the address, or give reconciler's user the right to read it",
    ),
    (
        "no space|disk quota|file too large",
        "can't be fetched: there is no room for it",
        "free space in the data directory; a repository may have 2 GiB",
    ),
    (
        "fsck|error in object|bad object|inflate|pack has|index-pack|unpack|early eof|corrupt|mismatch",
        "sent what is torn or not well-formed",
        "look at it with `git fsck` where it is kept; fetch.fsck.* of reconciler's user may excuse old mistakes",
    ),
)


def cause(complaint: str, address: str) -> tuple[str, str]:
    """Return what is wrong and what to do, in words of ours: what git repeats of the other side may be anything."""
    said = complaint.replace(address, "").lower()
    found = ((summary, hint) for pattern, summary, hint in _CAUSES if re.search(pattern, said))
    return next(found, ("does not answer as a git repository does", "try `git ls-remote` as reconciler's user"))
