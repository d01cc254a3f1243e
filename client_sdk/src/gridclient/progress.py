"""What shows that something takes a while: a bar for transfers, the seconds of a wait; in a terminal and in a notebook.

Nothing is drawn where there is neither, or where `grid.settings.progress` is False.
"""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, Protocol, TypeVar

from gridclient import settings

T = TypeVar("T")
_SLOW = 0.5
_LONG = 1.0
_PAUSE = 0.25
_WIDTH = 30


class Screen(Protocol):
    """One line that is drawn over and over. `share`: how much of it is done, 0 to 1; None where nobody knows."""

    def draw(self, label: str, text: str, share: float | None) -> None: ...

    def end(self, *, keep: bool) -> None:
        """Leave the line; what it shows is kept or wiped."""


class Terminal:
    """The line that the cursor is in."""

    def __init__(self) -> None:
        self._drawn = 0

    def draw(self, label: str, text: str, share: float | None) -> None:
        bar = "" if share is None else f"[{'#' * int(_WIDTH * share):<{_WIDTH}}] "
        line = f"{label} {bar}{text}"
        print(f"\r{line:<{self._drawn}}", end="", file=sys.stderr, flush=True)
        self._drawn = len(line)

    def end(self, *, keep: bool) -> None:
        print("" if keep else f"\r{'':<{self._drawn}}\r", end="\n" if keep else "", file=sys.stderr, flush=True)


class Notebook:
    """One output of the cell that runs."""

    def __init__(self) -> None:
        self._handle: Any = None

    def draw(self, label: str, text: str, share: float | None) -> None:
        bar = "" if share is None else f'<progress max="1" value="{share:.3f}"></progress> '
        self._put(f"{bar}{html.escape(f'{label} {text}')}")

    def end(self, *, keep: bool) -> None:
        if not keep:
            self._put("")

    def _put(self, text: str) -> None:
        from IPython.display import HTML, display

        if self._handle is None:
            self._handle = display(HTML(text), display_id=True)
        else:
            self._handle.update(HTML(text))


def screen() -> Screen | None:
    """Where to draw."""
    if not settings.progress:
        return None
    # Asked for only where it is loaded already: a script needs no IPython.
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None and hasattr(shell, "kernel"):
        return Notebook()
    return Terminal() if sys.stderr.isatty() else None


class Progress:
    """A bar for a transfer, once it has taken half a second."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total = label, total
        self._begun = self._drawn = time.monotonic()
        self._visible = False
        self._screen = screen()

    def show(self, done: int) -> None:
        """Note that `done` bytes are through."""
        now = time.monotonic()
        if self._screen and now - self._begun > _SLOW and (now - self._drawn > 0.1 or done >= self.total):
            self._drawn, self._visible = now, True
            rate = done / 2**20 / (now - self._begun)
            sizes = f"{done / 2**20:.0f} of {self.total / 2**20:.0f} MiB, {rate:.0f} MiB/s"
            self._screen.draw(self.label, sizes, done / max(self.total, 1))

    def end(self) -> None:
        """Leave the line."""
        if self._screen and self._visible:
            self._screen.end(keep=True)


class Waiting:
    """The seconds of a wait, once there has been one; wiped at its end."""

    def __init__(self, label: str | Callable[[], str]) -> None:
        """`label`: what it is that takes so long, or who says so at any moment."""
        self._label = label
        self._begun = time.monotonic()
        self._visible = False
        self._screen = screen()

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        if self._screen and self._visible:
            self._screen.end(keep=False)

    @property
    def wanted(self) -> bool:
        """Whether it is shown at all."""
        return self._screen is not None

    def show(self) -> None:
        """Draw how long it has been."""
        elapsed = time.monotonic() - self._begun
        if self._screen and elapsed >= _LONG:
            self._visible = True
            label = self._label if isinstance(self._label, str) else self._label()
            self._screen.draw(label, f"{elapsed:.0f} s", None)


def waited(reply: Future[T], timeout: float, label: str | Callable[[], str] = "waiting for the node") -> T:
    """The result of a reply; `label` as in `Waiting`. Raises TimeoutError after `timeout` seconds, and what the reply
    raises."""
    end = time.monotonic() + timeout
    with Waiting(label) as waiting:
        while waiting.wanted and not reply.done() and (left := end - time.monotonic()) > 0:
            wait([reply], min(left, _PAUSE))
            waiting.show()
        return reply.result(max(0.0, end - time.monotonic()))
