"""Layers of networks, losses and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from apps.compute.totals import activations, losses, norms, placed, windows

TOTAL: dict[str, Callable[..., Any]] = activations.TOTAL | windows.TOTAL | norms.TOTAL | losses.TOTAL | placed.TOTAL
