"""A real Docker Engine and an image made on the spot: nothing can be pulled in the tests."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

SMALL_IMAGE = f"reconciler-test-base:{os.getpid()}"  # another process would move one name to an image of its own
APPLETS = ("sh", "sleep", "cat", "env", "nc", "true", "false", "httpd", "wget", "touch", "test", "kill")
PROGRAM_HINT = "install busybox-static, or a C compiler with a static libc"


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """A client of the real engine that DOCKER_HOST names."""
    try:
        client = docker.from_env(timeout=60)
    except docker.errors.DockerException as error:
        pytest.skip(f"no Docker Engine answers: {error}")
    with contextlib.closing(client):
        try:
            client.ping()
        except Exception as error:  # noqa: BLE001 (requests, urllib3 and docker each have errors of their own)
            pytest.skip(f"no Docker Engine answers: {error}")
        yield client


@pytest.fixture(scope="session")
def small_image(engine: docker.DockerClient, busybox: bytes) -> Iterator[str]:
    """The name of an image with a static busybox: `docker import` of a root file system made now."""
    repository, _, tag = SMALL_IMAGE.partition(":")
    engine.api.import_image_from_data(_root_file_system(busybox), repository=repository, tag=tag)
    yield SMALL_IMAGE
    with contextlib.suppress(docker.errors.APIError):
        engine.api.remove_image(SMALL_IMAGE, force=True)


@pytest.fixture(scope="session")
def busybox() -> bytes:
    """A shell and its programs in one file that runs under any root."""
    path = os.environ.get("RECONCILER_BUSYBOX") or shutil.which("busybox")
    if path is None:
        pytest.skip(f"no busybox to make an image from ({PROGRAM_HINT})")
    with tempfile.TemporaryDirectory() as empty:  # a dynamic one finds no loader under another root
        probe = subprocess.run(["ldd", path], capture_output=True, text=True, check=False, cwd=empty)
    if "not a dynamic executable" not in probe.stdout + probe.stderr and probe.returncode == 0:
        pytest.skip(f"{path} is not linked statically ({PROGRAM_HINT})")
    return Path(path).read_bytes()


def _root_file_system(busybox: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("bin", "etc", "tmp", "opt", "var"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, content, mode in (("bin/busybox", busybox, 0o755), ("etc/passwd", b"root:x:0:0::/:/bin/sh\n", 0o644)):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
    return buffer.getvalue()
