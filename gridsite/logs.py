"""What the log leaves out."""

from __future__ import annotations

import logging
import time


class OnceAMinute(logging.Filter):
    """Lets each text through once a minute, without its traceback: what repeats as long as a server is away."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        text, now = record.getMessage(), time.monotonic()
        if now - self._said.get(text, float("-inf")) < 60:
            return False
        self._said[text] = now
        if record.exc_info and record.exc_info[0] is not None:
            record.msg, record.args = "%s (%s)", (text, record.exc_info[0].__name__)
        record.exc_info = record.exc_text = None
        return True
