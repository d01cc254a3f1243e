"""The process that workers are forked from: torch and the readers are loaded once, and nothing of a session is.

It serves one control socket (sequenced packets). First it says whether the kernel lets workers give up the network.
Then, for each packet [session id, limits, folder] with a socket's descriptor, it forks a worker on that socket and
answers with the worker's pid and a descriptor of the process. It has one thread, so that forking is safe.

Nothing survives the web process: its end of the control socket closes, the forkserver leaves, and the kernel kills
the workers, who asked for that (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import resource
import signal
import socket
import sys
from typing import NoReturn

import msgspec
import numpy as np
import torch

from apps.compute import memory, worker
from apps.compute.messages import Limits
from apps.compute.readers.torch import prepare

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
FILES = 256
NICE = 10

_libc = ctypes.CDLL(None, use_errno=True)


def give_up_network() -> bool:
    """Move this process into a network namespace of its own, without any interface. False where the kernel refuses."""
    return _libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0


def can_give_up_network() -> bool:
    """Tried in a child, because there is no way back."""
    child = os.fork()
    if child == 0:
        os._exit(0 if give_up_network() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def data_bytes() -> int:
    """Bytes of private memory that this process has already (what RLIMIT_DATA counts)."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return 0


def become_worker(connection: int, limits: Limits, parent: int, isolate: bool) -> NoReturn:
    """In the forked child: give everything up, then serve. Never returns."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        os.environ.clear()
        if connection != 3:
            os.dup2(connection, 3)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        # What a library prints while it dies may hold values.
        silence = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(silence, descriptor)
        os.close(silence)
        if isolate and not give_up_network():
            os._exit(status)
        os.nice(NICE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
        # Only the soft limit: mapping an asset raises it by the asset's size.
        resource.setrlimit(resource.RLIMIT_DATA, (data_bytes() + limits.memory, resource.RLIM_INFINITY))
        memory.keep_freed(limits.memory)
        _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # After unshare, which forgets it; the parent may have gone before.
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(status)
        # Forked workers must not draw the same numbers.
        random.seed()
        np.random.seed(None)
        torch.seed()
        worker.serve(socket.socket(fileno=3), limits)
        status = 0
    finally:
        os._exit(status)


def _reap(*_: object) -> None:
    """Clear away workers that ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def serve(control: socket.socket) -> None:
    """Fork a worker for each packet, until the web process is gone."""
    isolate = can_give_up_network()
    signal.signal(signal.SIGCHLD, _reap)
    control.send(msgspec.msgpack.encode(isolate))
    decoder = msgspec.msgpack.Decoder(tuple[str, Limits, str])
    me = os.getpid()
    while True:
        packet, descriptors, _, _ = socket.recv_fds(control, 65536, 1)
        if not packet:
            return
        _, limits, _ = decoder.decode(packet)
        # Not reaped before its descriptor is open: until then the pid is its own.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        child = os.fork()
        if child == 0:
            become_worker(descriptors[0], limits, me, isolate)
        os.close(descriptors[0])
        process = os.pidfd_open(child)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        socket.send_fds(control, [msgspec.msgpack.encode(child)], [process])
        os.close(process)


def main() -> None:
    prepare()
    worker.warm_up()
    gc.collect()
    gc.freeze()  # or the first collection in each worker would copy every page
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
