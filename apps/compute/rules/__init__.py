"""Label rules. A rule reads one call, by its static arguments and the labels of its operands, and gives the label of
its output (or a list, one for each output). For anything that it does not name the answer is TAINTED.

A rule is asked only when an operand is private.
"""

from __future__ import annotations

from collections.abc import Callable

from apps.compute.labels import Call, Label

Rule = Callable[[Call], Label | list[Label]]
