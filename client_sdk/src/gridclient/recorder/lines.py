"""Where the user wrote an operation: "notebook.py:12"."""

from __future__ import annotations

import os
import sys
from types import CodeType, FrameType

import torch

_INTERNAL = tuple(
    os.path.join(os.path.dirname(os.path.abspath(path)), "") for path in (torch.__file__, os.path.dirname(__file__))
)
_names: dict[CodeType, str | None] = {}
_MOST_CODES = 10_000


def user_line() -> str:
    """File name and line of the innermost frame outside this package and torch; empty when there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        try:
            name = _names[code]
        except KeyError:
            name = _remember(code)
        if name is not None:
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _remember(code: CodeType) -> str | None:
    if len(_names) >= _MOST_CODES:  # a notebook that defines its functions again and again
        _names.clear()
    name = None if code.co_filename.startswith(_INTERNAL) else os.path.basename(code.co_filename)
    _names[code] = name
    return name
