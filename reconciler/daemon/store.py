"""A bare repository of our own, into which one branch of somebody else's is fetched.

The store is a cache: one that is torn is made anew.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from reconciler.daemon.remote import Remote, cause
from reconciler.git.objects import Damaged, Objects, good
from reconciler.process import GIT_FETCH, GIT_STORE, CannotRun, Ended, Kind, run

_LOOK = 20.0  # seconds to ask for a branch's commit
_MANY = 20  # packs, of which each fetch leaves one
_SEEN = "refs/reconciler/seen"
_CONFIG = {  # by the length of an object's name
    40: "[core]\n\trepositoryformatversion = 0\n\tbare = true\n",
    64: "[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tobjectformat = sha256\n",
}
_FORMATS = {40: "sha1", 64: "sha256"}
_LEFT = (  # by a git that was killed, below the store
    *("*.lock", "refs/**/*.lock", "objects/pack/*.lock", "objects/info/*.lock"),
    *("objects/pack/tmp_*", "objects/??/tmp_*", "objects/tmp_*"),
    *("objects/pack/*.temp", "objects/??/*.temp*"),  # of http, which would go on behind it
)
_FETCHING = (
    "--no-pager",
    *("-c", f"core.hooksPath={os.devnull}"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "fetch.fsckObjects=true"),
    *("-c", "fetch.unpackLimit=1"),  # a pack, whose size is bounded
    *("-c", "fetch.recurseSubmodules=false"),
    *("-c", "fetch.writeCommitGraph=false"),
    *("-c", "gc.auto=0"),
    *("-c", "maintenance.auto=false"),
    *("-c", "http.followRedirects=false"),
)
_FETCH = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--refmap=", "--no-auto-gc")
_FACTS = "%P%x00%an%x00%ae%x00%cn%x00%ce%x00%ct%x00%s"
_SIGNATURE = "%G?%x00%GS%x00%GF"
_CONFLICT, _USAGE = 1, 129  # how `git merge-tree` ends
_NOBODY = {  # whose the merges are that are only planned; at one time, so that one merge is always the same commit
    f"GIT_{who}_{what}": said
    for who in ("AUTHOR", "COMMITTER")
    for what, said in (("NAME", "reconciler"), ("EMAIL", "reconciler@localhost"), ("DATE", "@0 +0000"))
}
_SIGNED = re.compile(r"^gpgsig(?:-sha256)? (.*\n(?: .*\n)*)", re.MULTILINE)  # in a commit's head
_GITHUB = "noreply@github.com"  # commits what is merged on its pages


class CannotFetch(Exception):
    """Why a branch can't be had, and what to do about it."""

    def __init__(self, summary: str, hint: str) -> None:
        super().__init__(summary, hint)
        self.summary, self.hint = summary, hint


@dataclass(frozen=True, slots=True)
class Commit:
    """What a commit says of itself: a stranger's texts, of any length.

    ``when`` is when it was committed: UTC, ISO 8601, empty for what is no time.
    """

    subject: str
    author: str
    committer: str
    when: str


@dataclass(frozen=True, slots=True)
class Signers:
    """Whose signatures count: a file of SSH keys (git's ``allowed_signers``), a folder with a keyring of GPG."""

    ssh: Path | None = None
    gpg: Path | None = None

    def __bool__(self) -> bool:
        return self.ssh is not None or self.gpg is not None


class Store(Objects):
    """The store of one branch, in a folder of its own. Its methods raise `CannotRun` where git can't be run.

    What another store has, ``beside`` it, is not fetched a second time.
    """

    def __init__(self, place: Path, remote: Remote, environ: Mapping[str, str], beside: Path | None = None) -> None:
        super().__init__(place, environ)
        self._remote, self._beside = remote, beside
        allowed = f"{GIT_FETCH.given['GIT_ALLOW_PROTOCOL']}:{remote.protocol}"
        self._fetching = replace(GIT_FETCH, given={**GIT_FETCH.given, "GIT_ALLOW_PROTOCOL": allowed})

    # ------------------------------------------------------------------------------------------------- the other side
    def newest(self) -> str:
        """Ask for the branch's newest commit; nothing is fetched. Raises `CannotFetch`."""
        ended = self._remotely(
            _LOOK, f"--git-dir={os.devnull}", "ls-remote", "--", self._remote.address, self._remote.ref
        )
        for line in ended.output.splitlines():
            object_id, _, ref = line.partition("\t")
            if ref == self._remote.ref and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", object_id):
                return object_id
        raise CannotFetch(f"has no branch {self._remote.branch}", "correct the branch, or push it")

    def fetch(self, commit: str, limit: float) -> str:
        """Fetch the branch, whose newest was ``commit``, and return its newest. Raises as `newest`, and `Damaged`.

        Nobody sees a part of what comes in: git names the branch only when all of it is here. It ends well, and names
        nothing, where what leads to the commit is not there (a shallow clone), or where it is no commit.
        """
        self._prepare(commit)
        before = self.fetched()
        place, refs = f"--git-dir={self.place}", f"+{self._remote.ref}:{_SEEN}"
        try:
            self._remotely(limit, place, "fetch", *_FETCH, "--", self._remote.address, refs)
        except CannotFetch:
            if not self._is_sound():
                raise Damaged from None
            raise
        finally:
            self._sweep()
        found = self.fetched()
        if found in ("", before) and found != commit:
            hint = "fetch the rest there (git fetch --unshallow), or follow the repository that it was cloned from"
            raise CannotFetch("gives no commit with all that leads to it: it is a shallow clone", hint)
        return found

    def fetched(self) -> str:
        """Name the commit that was fetched last; empty where there is none."""
        if not self.place.is_dir():
            return ""
        return self._ask("rev-parse", "--verify", "--quiet", f"{_SEEN}^{{commit}}").output.strip()

    def _remotely(self, limit: float, *arguments: str) -> Ended:
        try:
            ended = run(self._fetching, ["git", *_FETCHING, *arguments], self._environ, limit=limit)
        except CannotRun as error:
            if error.missing:
                raise
            raise CannotFetch(f"git {error.why}", "check the way there, and how large the repository is") from None
        if ended.status:
            raise CannotFetch(*cause(ended.complaint, self._remote.address))
        return ended

    # ------------------------------------------------------------------------------------------------ the store itself
    def _prepare(self, commit: str) -> None:
        """Make it where it is missing, another's, or of another kind than the commit is. Raises OSError."""
        config = self.place / "config"
        whole = all((self.place / name).is_dir() for name in ("objects", "refs")) and not self.place.is_symlink()
        if whole and config.is_file() and config.read_text(errors="replace") == _CONFIG[len(commit)]:
            self._sweep()
            return
        self.remove()
        form = f"--object-format={_FORMATS[len(commit)]}"
        self._said("init", "--quiet", "--bare", "--template=", form)
        if self._beside is not None:
            (self.place / "objects/info").mkdir(exist_ok=True)
            (self.place / "objects/info/alternates").write_text(f"{self._beside.absolute() / 'objects'}\n")
        config.write_text(_CONFIG[len(commit)])

    def remove(self) -> None:
        """Remove it, whatever stands there. Raises OSError."""
        if self.place.is_dir() and not self.place.is_symlink():
            shutil.rmtree(self.place)
        else:
            self.place.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what a git that was killed has left: locks would stop each later one, parts fill the disk."""
        for pattern in _LEFT:
            for left in self.place.glob(pattern):
                left.unlink(missing_ok=True)

    def _is_sound(self) -> bool:
        return self._ask("fsck", "--connectivity-only", "--no-dangling", "--no-progress").status == 0

    def tidy(self) -> None:
        """Put the packs together where there are many, and drop what a rewritten branch has left."""
        if sum(1 for _ in self.place.glob("objects/pack/*.pack")) > _MANY:
            self._ask("gc", "--quiet", "--prune=now")

    def has(self, commit: str) -> bool:
        """Whether a commit is here."""
        return self.place.is_dir() and self._ask("cat-file", "-e", f"{commit}^{{commit}}").status == 0

    def keep(self, commit: str, name: str) -> None:
        """Keep a commit under a name of ours, whatever becomes of the branch. Raises `Damaged`."""
        self._said("update-ref", f"refs/reconciler/taken/{name}", commit)

    def descends(self, commit: str, older: str) -> bool:
        """Whether a commit has another one in its history. Raises `Damaged`."""
        status = self._ask("merge-base", "--is-ancestor", older, commit).status
        if status not in (0, 1) and self.has(older):
            raise Damaged
        return status == 0

    def merge(self, base: str, head: str) -> str:
        """Return a commit that merges a head into a base, which no branch gets; empty where the two conflict.

        No file is written out and no driver that a repository configures is run. Raises `CannotFetch` where git is too
        old, and `Damaged`.
        """
        made = self._ask("merge-tree", "--write-tree", "--no-messages", base, head)
        if made.status == _CONFLICT:
            return ""
        if made.status == _USAGE:
            hint = "install git 2.38 or later, or bring the branch of the pull request up to date"
            raise CannotFetch("can't be merged to be planned: git is too old for that", hint)
        kind = replace(GIT_STORE, given={**GIT_STORE.given, **_NOBODY})
        parents = ("-p", base, "-p", head)
        return good(
            self._ask("commit-tree", good(made).output.strip(), *parents, "-m", "merged", kind=kind)
        ).output.strip()

    def describe(self, commit: str) -> Commit:
        """Return what a commit says of itself. Raises `Damaged`.

        Who merged on GitHub's pages is the author of the merge; of a commit that was squashed nothing tells it.
        """
        said = self._log(commit, _FACTS)
        if len(said) != len(_FACTS.split("%x00")):
            raise Damaged
        parents, author, _, committer, email, when, subject = said
        if email == _GITHUB and len(parents.split()) > 1:
            committer = author
        return Commit(subject, author, committer, _time(when))

    def signer(self, commit: str, signers: Signers) -> str:
        """Name whose key signed a commit, as the file of signers has it; empty where no key of theirs did.

        Of GPG it is the key's own name: whoever is in the keyring counts.
        """
        programs = ("ssh-keygen" if signers.ssh else "false", "gpg" if signers.gpg else "false")
        options = (
            f"gpg.ssh.program={programs[0]}",
            f"gpg.ssh.allowedSignersFile={signers.ssh or os.devnull}",
            f"gpg.program={programs[1]}",
            "gpg.x509.program=false",
            "gpg.minTrustLevel=undefined",
        )
        kind = replace(GIT_STORE, given={**GIT_STORE.given, "GNUPGHOME": str(signers.gpg or os.devnull)})
        result, who, fingerprint = (*self._log(commit, _SIGNATURE, options, kind), "", "")[:3]
        if re.fullmatch(r"[0-9A-F]{40,64}", fingerprint):  # of GPG, which knows itself what day it is
            return who if result in ("G", "U") else ""
        return who if result == "G" and who in self._signing_today(commit, signers, kind) else ""

    def _signing_today(self, commit: str, signers: Signers, kind: Kind) -> Sequence[str]:
        """Name those whose key of SSH made a signature, as far as it may sign today.

        Git holds a key's dates (``valid-before``) against the commit's own, which its author chooses.
        """
        head = good(self._ask("cat-file", "commit", commit)).output.partition("\n\n")[0]
        found = _SIGNED.search(f"{head}\n")
        signature = found[1].replace("\n ", "\n") if found else ""
        command = ["ssh-keygen", "-Y", "find-principals", "-s", "/dev/stdin", "-f", str(signers.ssh or os.devnull)]
        ended = run(kind, command, self._environ, given=signature or "\n")
        return ended.output.splitlines() if ended.status == 0 else ()

    def _log(self, commit: str, form: str, options: Sequence[str] = (), kind: Kind = GIT_STORE) -> list[str]:
        shown = ("--no-show-signature", "--no-mailmap", "--encoding=UTF-8", f"--format={form}")
        configured = tuple(item for option in options for item in ("-c", option))
        ended = self._ask("log", "-1", *shown, commit, "--", options=configured, kind=kind)
        return good(ended).output.removesuffix("\n").split("\0")

    def _said(self, *arguments: str) -> str:
        return good(self._ask(*arguments)).output


def _time(seconds: str) -> str:
    try:
        return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return ""
