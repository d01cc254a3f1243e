"""A bar on the terminal for transfers that take a while."""

from __future__ import annotations

import sys
import time

from gridclient import settings

_SLOW = 0.5
_WIDTH = 30


class Progress:
    """Draws once a transfer has taken half a second; nothing where stderr is no terminal."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total = label, total
        self._begun = self._drawn = time.monotonic()
        self._visible = False
        self._wanted = settings.progress and sys.stderr.isatty()

    def show(self, done: int) -> None:
        """Note that `done` bytes are through."""
        now = time.monotonic()
        if self._wanted and now - self._begun > _SLOW and (now - self._drawn > 0.1 or done >= self.total):
            self._drawn, self._visible = now, True
            filled = "#" * (_WIDTH * done // max(self.total, 1))
            rate = done / 2**20 / (now - self._begun)
            sizes = f"{done / 2**20:.0f} of {self.total / 2**20:.0f} MiB, {rate:.0f} MiB/s"
            print(f"\r{self.label} [{filled:<{_WIDTH}}] {sizes}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self._visible:
            print(file=sys.stderr, flush=True)
