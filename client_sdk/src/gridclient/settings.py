"""Settings of this process: `grid.settings.progress = False`."""

from __future__ import annotations

import os

progress: bool = os.environ.get("GRID_PROGRESS", "1") != "0"
"""Show long uploads, downloads and waits, in a terminal and in a notebook. GRID_PROGRESS=0 begins with False."""

timeout: float = 600.0
"""Most seconds without any sign of an answer to one question, before `ConnectionLostError`."""

largest_answer: int = 16 * 2**30
"""Most bytes of one answer. A node that announces more is refused before memory is taken."""

reconnect_for: float = 300.0
"""Seconds for which a lost connection is tried again before those who wait get `ConnectionLostError`. 0: not at all."""

replay_memory: int = 512 * 2**20
"""Most bytes of operations and constants that are kept for each node, in order to say them again where the node has
lost the session. A session whose live values need more goes on after a short cut, but cannot be said again."""
