"""Random numbers, from a seed that the client draws."""

from __future__ import annotations

from apps.compute.rows.base import Operation, drawing

_WORDS = {
    "rand": "{size} uniform random numbers, {dtype} (seed {seed})",
    "randn": "{size} normal random numbers, {dtype} (seed {seed})",
    "randint": "{size} random whole numbers from {low} to below {high}, {dtype} (seed {seed})",
    "randperm": "the numbers below {n} in random order, {dtype} (seed {seed})",
    "bernoulli": "0 or 1 with the probabilities {self} (seed {seed})",
    "dropout": "{self} without a random part {p} of its elements, scaled (seed {seed}), and which are kept",
}
ROWS: list[Operation] = [
    Operation(f"grid::{name}", None, drawing, words, probe=name in ("bernoulli", "dropout"))
    for name, words in _WORDS.items()
]
