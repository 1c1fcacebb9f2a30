"""Runs one program and writes what it cost, as JSON, to the file descriptor named first.

A process of its own, as small as Python gets, because Linux counts the memory of the process that starts a program
as the program's own until its `exec`.
"""

import os
import sys
import time


def main() -> None:
    """Start the program, wait for it, and tell seconds of wall and CPU, peak memory in bytes and exit code."""
    began = time.perf_counter()
    child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - began
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    code = os.waitstatus_to_exitcode(status)
    os.write(int(sys.argv[1]), f"[{wall}, {usage.ru_utime + usage.ru_stime}, {peak}, {code}]".encode())


main()
