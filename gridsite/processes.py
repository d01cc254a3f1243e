"""Processes that end with the one that started them, and a deployment of several."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from django.core.management import CommandError

from gridsite.server import GRACE

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
SHORTEST_LIFE = 5.0
"""Seconds: a process that ends sooner after its start is broken; one that lived longer is started again."""


def bound_to_this_process() -> Callable[[], None]:
    """A `preexec_fn` by which the kernel kills the child when this process ends, however it ends. Linux only.

    The setting survives exec. The kernel watches the thread that starts the child: start children from the main thread.
    """
    parent = os.getpid()
    if not sys.platform.startswith("linux"):
        return lambda: None
    prctl = ctypes.CDLL(None).prctl

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)

    return bind


def serve_by_several(listener: socket.socket, command: list[str], number: int) -> None:
    """Keep `number` processes of `command` on one socket until SIGTERM or SIGINT, which all of them get.

    One that ends is started again; callers wait in line at the socket meanwhile. Raises CommandError, after ending
    the others, for one that does not stay up.
    """

    def stop(signum: int, frame: object) -> None:
        raise SystemExit(0)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, stop)
    running: dict[subprocess.Popen[bytes], float] = {}
    try:
        while True:
            for process in [each for each in running if each.poll() is not None]:
                if time.monotonic() - running.pop(process) < SHORTEST_LIFE:
                    raise CommandError(f"A web process ended with status {process.returncode} as soon as it had begun.")
                logger.error("Web process %d ended with status %d; another begins.", process.pid, process.returncode)
            while len(running) < number:
                running[_start(listener, command)] = time.monotonic()
            time.sleep(0.25)
    finally:
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, signal.SIG_IGN)
        _end(list(running))


def _start(listener: socket.socket, command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*command, "--fd", str(listener.fileno())],
        pass_fds=[listener.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # what it would greet with has been said
        preexec_fn=bound_to_this_process(),
    )


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    end = time.monotonic() + GRACE + 2
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, end - time.monotonic()))
        process.kill()
        process.wait()
