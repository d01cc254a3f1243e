"""The head outside the database: `audit.head` in the keys folder.

It moves along the log; the one exception is `anchor`, for `restored.accept`, which has written down what is lost.
"""

from __future__ import annotations

from apps.core.heads import Head, HeadFile

__all__ = ["FILE", "Head", "advance", "anchor", "read"]

FILE = HeadFile("audit.head")
read, anchor, advance = FILE.read, FILE.anchor, FILE.advance
