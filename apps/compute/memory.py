"""How a worker holds memory between operations. For workers only.

An operation frees what the next one needs again. The C library would hand large pieces back to the kernel each time,
which zeroes and maps the same pages anew: a quarter of the time of a training step. A worker keeps a part of its limit
instead, for as long as it is busy.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT = 32 * 2**20
"""The most that the C library takes: larger pieces always come from the kernel, and go back there."""
_PART = 16

_libc = ctypes.CDLL(None)
_libc.malloc_trim.argtypes = [ctypes.c_size_t]


def keep_freed(limit: int) -> None:
    """From now on keep what is freed, up to a sixteenth of the `limit` in bytes that the process may take."""
    _libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
    _libc.mallopt(_M_TRIM_THRESHOLD, min(limit // _PART, 2**31 - 1))


def give_back() -> None:
    """Hand everything that is free back to the kernel."""
    _libc.malloc_trim(0)
