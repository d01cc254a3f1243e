"""Settings of this process: `grid.settings.progress = False`."""

from __future__ import annotations

import os

progress: bool = os.environ.get("GRID_PROGRESS", "1") != "0"
"""Show long uploads, downloads and waits, in a terminal and in a notebook. GRID_PROGRESS=0 begins with False."""

timeout: float = 600.0
"""Most seconds without any sign of an answer to one question, before `ConnectionLostError`."""

largest_answer: int = 16 * 2**30
"""Most bytes of one answer. A node that announces more is refused before memory is taken."""
