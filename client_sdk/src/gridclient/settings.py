"""Settings of this process: `grid.settings.progress = False`."""

from __future__ import annotations

progress: bool = True
"""Show a bar for long uploads and downloads in a terminal."""

timeout: float = 600.0
"""Most seconds without any sign of an answer to one question, before `ConnectionLostError`."""

largest_answer: int = 16 * 2**30
"""Most bytes of one answer. A node that announces more is refused before memory is taken."""
