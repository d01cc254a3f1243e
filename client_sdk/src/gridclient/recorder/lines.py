"""Where the user wrote an operation: "notebook.py:12"."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from types import FrameType

import torch

from gridclient.wire.errors import GridError

_PACKAGES = [os.path.dirname(torch.__file__), os.path.dirname(os.path.dirname(__file__))]
_INSTALLED = [
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    *site.getsitepackages(),
    site.getusersitepackages(),
]
_INTERNAL = ("<frozen ", *{os.path.join(os.path.abspath(folder), "") for folder in _PACKAGES + _INSTALLED})
_names: dict[str, str | None] = {}
_MOST_FILES = 10_000


def user_line() -> str:
    """File name and line of the innermost frame outside this package, torch, the standard library and other
    installed packages; empty when there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        try:
            name = _names[path]
        except KeyError:
            name = _remember(path)
        if name is not None:
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def located(error: GridError, operation: str = "") -> GridError:
    """The error with the operation's name and the user's line, in its text and details; as it is where it has them."""
    if operation and "operation" not in error.details:
        error.details["operation"] = operation
        if operation not in error.message:
            error.message = f"{operation}: {error.message}"
            error.args = (error.message,)
    line = error.details.get("line") or user_line()
    if line and "line" not in error.details:
        error.details["line"] = line
        error.message = f"{error.message} ({line})"
        error.args = (error.message,)
    return error


def _remember(path: str) -> str | None:
    if len(_names) >= _MOST_FILES:  # each cell of a notebook is a file
        _names.clear()
    name = _names[path] = None if path.startswith(_INTERNAL) else os.path.basename(path)
    return name
