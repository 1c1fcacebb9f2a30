"""The application's own words at a running project: nothing stays at the former provider's TLS mode, files are kept."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from targets.compose.test_compose import NOTIFY, World, errors, wanted, world  # noqa: F401 (a fixture)

from reconciler import fence
from reconciler.problem import Severity, TargetUnreadable
from reconciler.resources import Login, SecretRef, Variable
from reconciler.targets.compose import forecast, judge, secretfiles
from reconciler.targets.compose.envfile import EnvFile
from reconciler.targets.compose.project import Project
from reconciler.targets.compose.proof import Proof, prove, reach  # noqa: F401
from reconciler.targets.compose.secretfiles import SecretFile
from reconciler.targets.compose.snapshot import View
from reconciler.targets.compose.tlsmode import says_tls

NEW = Login("new.example", 465, None, None, verify_tls=True, tls="implicit")
TLS = "      SMTP_SECURITY: ${SMTP_SECURITY:-starttls}\n"
ENTRY = '      SMTP_INSECURE_TLS: "true"\n'


def switched(service: str = "mana-notify") -> tuple[Variable, ...]:
    return (
        wanted(service, "SMTP_HOST", "new.example", login=NEW),
        wanted(service, "SMTP_PORT", "465", login=NEW),
    )


# -------------------------------------------------------------------------------------------------------- TLS mode
def test_a_variable_that_would_stay_at_the_former_mode_is_refused(world: World) -> None:  # noqa: F811
    world.edit(ENTRY, ENTRY + TLS)
    seen, changes = world.plan(*switched())
    found = errors(seen)["smtp/mana-notify/SMTP_SECURITY"]
    assert "stays as it was for the TLS mode starttls, and the provider's is implicit" in found.summary
    assert "`SMTP_SECURITY: {starttls: ..., implicit: ..., none: ...}`" in found.hint
    assert changes == ()


@pytest.mark.parametrize(
    ("security", "refused"),
    [
        (wanted("mana-notify", "SMTP_SECURITY", "starttls"), True),  # a plain value that runs so already
        (wanted("mana-notify", "SMTP_SECURITY", "force_tls"), False),  # one that somebody chose along with it
        (wanted("mana-notify", "SMTP_SECURITY", "force_tls", login=NEW, by_tls=True), False),
        (wanted("mana-notify", "SMTP_SECURITY", "starttls", login=NEW, by_tls=True), False),  # said so by mode
    ],
)
def test_what_is_said_by_mode_or_changes_may_go(world: World, security: Variable, refused: bool) -> None:  # noqa: F811
    world.edit(ENTRY, ENTRY + TLS)
    world.up("mana-notify")
    seen, changes = world.plan(*switched(), security)
    assert ("smtp/mana-notify/SMTP_SECURITY" in errors(seen)) == refused
    assert bool(changes) != refused


def test_the_same_mode_asks_nothing(world: World) -> None:  # noqa: F811
    world.edit(ENTRY, ENTRY + TLS)
    world.up("mana-notify")
    seen, changes = world.plan(
        wanted("mana-notify", "SMTP_HOST", "new.example", login=replace(NEW, port=587, tls="starttls")),
        wanted("mana-notify", "SMTP_PORT", "587"),
    )
    assert not errors(seen)
    assert changes


def test_a_scheme_that_stays_is_refused(world: World) -> None:  # noqa: F811
    world.edit(ENTRY, ENTRY + "      SMTP_URL: ${SMTP_URL:-smtp://me@old.example:587}\n")
    world.up("mana-notify")
    stays = wanted("mana-notify", "SMTP_URL", "smtp://me@new.example:465", login=NEW)
    assert "smtp/mana-notify/SMTP_URL" in errors(world.plan(*switched(), stays)[0])
    goes = wanted("mana-notify", "SMTP_URL", "smtps://me@new.example:465", login=NEW)
    assert not errors(world.plan(*switched(), goes)[0])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        *((name, True) for name in ("SMTP_SECURITY", "SMTP_SECURE", "MAIL_ENCRYPTION", "EMAIL_USE_TLS", "SMTP_TLS")),
        *((name, True) for name in ("GITEA__mailer__PROTOCOL", "mail__options__secure", "SMTP_HOST_SSL_ENABLED")),
        *(
            (name, True)
            for name in ("SMTP_ENABLE_STARTTLS", "GF_SMTP_STARTTLS_POLICY", "OVERWRITE_SETTING_SMTP_Protocol")
        ),
        *(
            (name, False)
            for name in ("SMTP_HOST", "SMTP_TLS_SKIP_VERIFY", "DATABASE_SSL", "SMTP_TLS_CIPHERS", "PROTOCOL")
        ),
        *(
            (name, False)
            for name in ("MAIL_FROM", "SMTP_INSECURE_TLS", "SMTP_ACCEPT_INVALID_CERTS", "EMAIL_USE_VERIFICATION")
        ),
    ],
)
def test_what_is_about_tls_by_its_name(name: str, says: bool) -> None:
    assert says_tls(name) == says


# ------------------------------------------------------------------------------------------ what needs no entry
def test_what_is_unset_needs_an_entry_only_for_another_value(world: World) -> None:  # noqa: F811
    same = wanted("mana-notify", "SMTP_MODE", "starttls", assumed="starttls")
    seen, changes = world.plan(same)
    assert (errors(seen), changes) == ({}, ())
    seen, changes = world.plan(wanted("mana-notify", "SMTP_MODE", "force_tls", assumed="starttls"))
    found = errors(seen)["smtp/mana-notify/SMTP_MODE"]
    assert "the service has no entry for it" in found.summary
    assert "`SMTP_MODE: ${SMTP_MODE:-starttls}`" in found.hint
    assert changes == ()


def test_a_name_with_dots_is_written_through_its_entry(world: World) -> None:  # noqa: F811
    world.edit(ENTRY, ENTRY + "      spring.mail.host: ${SPRING_HOST:-old}\n")
    world.up("mana-notify")
    spring = wanted("mana-notify", "spring.mail.host", "new.example")
    world.apply(spring)
    assert world.running(NOTIFY)["spring.mail.host"] == "new.example"
    assert world.plan(spring)[1] == ()


# ------------------------------------------------------------------------------------------------- without a login
def test_a_relay_without_a_login_is_greeted_and_nothing_is_sent(serve: Callable) -> None:
    server = serve("word", tls=False, auth=False)
    relay = Login("localhost", server.port, None, None, verify_tls=True, tls="none")
    assert reach(relay, [("127.0.0.1", server.port)]) == Proof()
    assert server.attempts == []
    strict = replace(relay, tls="starttls")
    refused = reach(strict, [("127.0.0.1", server.port)]).refused
    assert refused is not None
    assert "offers no STARTTLS" in refused.summary


# ------------------------------------------------------------------------------------------------- secrets of compose
def project(path: Path) -> Project:
    services = {"web": {"secrets": [{"source": "word"}]}, "other": {"secrets": [{"source": "word"}]}}
    return Project(
        "p", {}, {}, services=services, secrets={"word": {"file": str(path)}, "by_env": {"environment": "A"}}
    )


def view(path: Path, text: str, *, service: str = "web") -> View:
    """Read a wanted content beside what is there, as `Values` does."""
    env_file = EnvFile(path.parent / ".env", "mana", b"")
    file = secretfiles.read(project(path), service, "word", env_file)
    assert file is not None
    item = Variable(service, "secrets/word", SecretRef("env", "W"), SecretRef("env", "W"))
    return View(item, True, (text,), (file.read_by_container,), file.content, None, declared=True, file=file)


class Killed(BaseException):
    """The process ends here."""


def test_killed_before_any_write_it_is_the_old_or_the_new_and_goes_either_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the container has read is known at every step, and both ways lead on from each."""
    path = tmp_path / "word"
    for step in range(1, 4):
        path.write_text("old\n")
        left = [step]

        def die(left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(fence, "before_write", die)
            with contextlib.suppress(Killed):
                secretfiles.write([view(path, "new")])
        assert view(path, "new").oldest == "old"  # what the container has read, whatever lies there by now
        assert path.read_text().strip() in ("old", "new")
        assert path.stat().st_mode & 0o777 in (0o600, 0o644)
        # on: the next run
        secretfiles.write([view(path, "new")])
        again = view(path, "new")
        assert (path.read_text(), again.oldest, again.stale, again.misconfigured) == ("new", "old", True, False)
        # and back, as a failed container needs it
        secretfiles.put_back([again])
        assert (path.read_text(), view(path, "old").stale) == ("old", False)
        assert sorted(item.name for item in tmp_path.iterdir()) == ["word"]
        # to the end
        secretfiles.write([view(path, "new")])
        secretfiles.forget([view(path, "new")])
        done = view(path, "new")
        assert (path.read_text(), done.stale, done.misconfigured) == ("new", False, False)
        assert sorted(item.name for item in tmp_path.iterdir()) == ["word"]
        path.unlink()


def test_a_new_file_is_for_its_owner_alone_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "word"
    secretfiles.write([view(path, "new")])
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    secretfiles.write([view(path, "newer")])
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("newer", 0o640)
    assert (tmp_path / ".reconciler" / "word.reconciler-former").stat().st_mode & 0o777 == 0o600


def test_at_no_moment_would_git_take_another_file_than_the_secret_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever lies there, at each write and after a kill there, is the secret's own file or ignored."""

    def strangers() -> set[str]:
        listed = ["git", "-C", str(tmp_path), "ls-files", "--others", "--exclude-standard", "-z"]
        return set(subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0")) - {""}

    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    path, seen = tmp_path / "word", list[set[str]]()
    real = os.fsync

    def looked(descriptor: int) -> None:
        seen.append(strangers())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", looked)
    secretfiles.write([view(path, "first")])
    secretfiles.write([view(path, "second")])
    secretfiles.put_back([view(path, "second")])
    secretfiles.write([view(path, "third")])
    secretfiles.forget([view(path, "third")])
    assert path.read_text() == "third"
    assert len(seen) > 8
    assert set().union(*seen) <= {"word"}
    assert sorted(item.name for item in tmp_path.iterdir()) == [".git", "word"]


def test_a_link_in_place_of_what_is_kept_is_not_followed(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "word", tmp_path / "elsewhere"
    path.write_text("old")
    elsewhere.write_text("a stranger's")
    (tmp_path / ".reconciler").mkdir()
    (tmp_path / ".reconciler" / "word.reconciler-former").symlink_to(elsewhere)
    assert secretfiles.read(project(path), "web", "word", EnvFile(tmp_path / ".env", "mana", b"")) is None
    assert elsewhere.read_text() == "a stranger's"


@pytest.mark.parametrize(
    ("change", "summary"),
    [
        (lambda it, _: replace(it, secrets={"word": {"environment": "A"}}), "the secret word is no file"),
        (lambda it, _: replace(it, services={}), "the service has no secret word"),
        (lambda it, path: replace(it, secrets={"word": {"file": str(path.parents[1] / "x")}}), "leads out of"),
        (
            lambda it, path: replace(
                it, secrets={"word": {"file": str(path.parent / ".reconciler" / "approval.json")}}
            ),
            "is no place for a secret",
        ),
        (
            lambda it, path: replace(it, secrets={"word": {"file": str(path.parent / ".RECONCILER" / "x" / "y")}}),
            "is no place for a secret",
        ),
        (lambda it, path: replace(it, secrets={"word": {"file": str(path.parent / ".env")}}), "is the env file"),
    ],
)
def test_what_is_not_ours_to_write_is_refused(tmp_path: Path, change: Callable, summary: str) -> None:
    path = tmp_path / "folder" / "word"
    path.parent.mkdir()
    (path.parent / ".env").write_text("")
    made = change(project(path), path)
    env_file = EnvFile(path.parent / ".env", "mana", b"")
    assert secretfiles.read(made, "web", "word", env_file) is None
    item = Variable("web", "secrets/word", "x", "x")
    shown = View(item, False, ("x",), (), None, None, declared=True)

    class Seen:
        project = made

    Seen.env_file = env_file
    (problem,) = secretfiles.problems([shown], Seen)
    assert summary in problem.summary
    assert problem.hint
    assert problem.scope == "smtp/web"


def test_who_else_reads_a_file_is_told_and_two_contents_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "word"
    path.write_text("old")

    class Seen:
        project = None
        env_file = EnvFile(tmp_path / ".env", "mana", b"")

    Seen.project = project(path)
    (problem,) = secretfiles.problems([view(path, "new")], Seen)
    assert problem.summary.startswith("other also reads it")
    found = list(secretfiles.problems([view(path, "a"), view(path, "b", service="other")], Seen))
    assert [item.where for item in found] == ["smtp/web/secrets/word", "smtp/other/secrets/word"]
    assert "should have different contents" in found[0].summary


@pytest.mark.parametrize("tracked", [True, False])
def test_t9_no_secret_is_written_into_a_secrets_file_that_git_tracks(tmp_path: Path, *, tracked: bool) -> None:
    path = tmp_path / "word"
    path.write_text("old")
    for command in (["init", "-q"], ["add", "word"] if tracked else ["status"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True, capture_output=True)

    class Seen:
        env_file = EnvFile(tmp_path / ".env", "mana", b"")

        @staticmethod
        def kept(_service: str) -> tuple[()]:
            return ()

    found = list(judge.foreseen(forecast.foresee(Seen, None, None, [view(path, "new")], None), allowed=False))
    assert [(item.where, item.severity) for item in found] == [("smtp/web", Severity.REFUSED)] * tracked
    assert all("into word, which git tracks" in item.summary for item in found)


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


def test_t9_a_tracked_link_in_a_secrets_place_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    path, target = tmp_path / "deploy" / "word", tmp_path / "plain"
    path.parent.mkdir()
    path.symlink_to("../plain")
    target.write_text("old")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "deploy")

    def seen(text: str) -> View:
        env_file = EnvFile(tmp_path / ".env", "mana", b"")
        file = secretfiles.read(project(path), "web", "word", env_file)
        assert file is not None
        return replace(view(target, text), file=file)

    secretfiles.write([seen("new")])
    assert (path.is_symlink(), target.read_text()) == (True, "new")
    assert seen("new").file == SecretFile(target, "new", "old")
    secretfiles.put_back([seen("new")])
    assert (path.is_symlink(), target.read_text()) == (True, "old")
    secretfiles.write([seen("new")])
    secretfiles.forget([seen("new")])
    assert (path.is_symlink(), target.read_text()) == (True, "new")
    git(tmp_path, "diff", "--exit-code")
    assert sorted(item.name for item in tmp_path.iterdir()) == [".git", "deploy", "plain"]


@pytest.mark.parametrize("tracked", [True, False])
def test_t9_what_a_commit_may_have_put_in_place_of_what_is_kept_is_not_believed(
    tmp_path: Path, *, tracked: bool
) -> None:
    path, kept = tmp_path / "word", tmp_path / ".reconciler" / "word.reconciler-former"
    path.write_text("now")
    kept.parent.mkdir(mode=0o700)
    kept.write_text("a stranger's")
    kept.chmod(0o600)
    git(tmp_path, "init", "-q")
    if tracked:
        git(tmp_path, "add", "--force", str(kept))
    found = secretfiles.read(project(path), "web", "word", EnvFile(tmp_path / ".env", "mana", b""))
    assert found == (None if tracked else SecretFile(path, "now", "a stranger's"))
    if not tracked:
        return

    class Seen:
        env_file = EnvFile(tmp_path / ".env", "mana", b"")

    Seen.project = project(path)
    item = Variable("web", "secrets/word", "x", "x")
    (problem,) = secretfiles.problems([View(item, False, ("x",), (), None, None, declared=True)], Seen)
    assert "git tracks it" in problem.summary
    assert (problem.severity, problem.scope) == (Severity.REFUSED, "smtp/web")
    unread = View(item, False, ("x",), (), "now", None, declared=True, file=SecretFile(path, "now"))
    with pytest.raises(TargetUnreadable):
        secretfiles.put_back([unread])
    assert path.read_text() == "now"


def test_no_content_is_shown() -> None:
    assert "canary" not in repr(SecretFile(Path("a"), "canary", "canary"))
