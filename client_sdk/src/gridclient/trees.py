"""Quantiles from a noisy tree: counts of ever finer halves of a range, made consistent, read as a distribution.

Hay, Rastogi, Miklau, Suciu, "Boosting the accuracy of differentially private histograms through consistency" (2010),
section 4: the counts of one level sum to those of the level above, which least squares use to halve the error.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

Z_95 = 1.959963984540054


class Tree:
    """A range [low, high] halved `levels` times."""

    def __init__(self, low: float, high: float, levels: int) -> None:
        self.levels = levels
        self.leaves = 2**levels
        self.edges = torch.linspace(low, high, self.leaves + 1, dtype=torch.float64)
        """Of the leaves: [leaves + 1]."""

    def counts(self, values: Any, *, counted: bool) -> Any:
        """The counts of all levels below the top, [2 + 4 + ... + leaves], as a sum over the rows of a pointer [n];
        with `counted` the top's before them."""
        rows = [self._level(values, level) for level in range(0 if counted else 1, self.levels + 1)]
        return torch.cat(rows, 1).sum(0)

    def _level(self, values: Any, level: int) -> Any:
        inner = self.edges[:: 2 ** (self.levels - level)][1:-1].contiguous()
        return F.one_hot(torch.bucketize(values, inner, right=True), 2**level)

    def quantiles(
        self, noisy: torch.Tensor, sigmas: torch.Tensor, wanted: torch.Tensor, people: int | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of noisy counts, the quantiles `wanted`, and bounds between which each exact one lies in 95 of 100."""
        top = people is None
        design = torch.cat(
            [
                torch.eye(2**level, dtype=torch.float64).repeat_interleave(2 ** (self.levels - level), 1)
                for level in range(0 if top else 1, self.levels + 1)
            ]
        )
        weighted = design / sigmas[:, None]
        inverse = torch.linalg.inv(weighted.T @ weighted)
        leaves = inverse @ (weighted.T @ (noisy / sigmas))
        below = torch.tril(torch.ones(self.leaves, self.leaves, dtype=torch.float64))
        # How many lie below each edge, with the variance of that.
        prefix = below @ leaves
        variance = torch.diagonal(below @ inverse @ below.T)
        total = prefix[-1].clamp(min=1.0) if people is None else torch.tensor(float(people), dtype=torch.float64)
        zero = torch.zeros(1, dtype=torch.float64)
        cumulated = torch.cat([zero, prefix])
        half = Z_95 * torch.cat([zero, variance.clamp(min=0.0).sqrt()])
        # The upper bound of the count below an edge gives the lower bound of a quantile.
        answer = self._inverse(cumulated.cummax(0).values, wanted * total)
        low = self._edge(cumulated + half, wanted * total, up=False)
        high = self._edge(cumulated - half, wanted * total, up=True)
        return answer, torch.minimum(low, answer), torch.maximum(high, answer)

    def _inverse(self, cumulated: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Where a count grows past `target`, between two edges in proportion."""
        above = torch.searchsorted(cumulated, target).clamp(1, self.leaves)
        begin, end = cumulated[above - 1], cumulated[above]
        share = ((target - begin) / (end - begin).clamp(min=1e-9)).clamp(0.0, 1.0)
        return self.edges[above - 1] + share * (self.edges[above] - self.edges[above - 1])

    def _edge(self, cumulated: torch.Tensor, target: torch.Tensor, *, up: bool) -> torch.Tensor:
        """The last edge with a count below `target`, or (up) the first from which on all counts reach it."""
        if up:
            reached = cumulated.flip(0).cummin(0).values.flip(0)
            return self.edges[torch.searchsorted(reached, target).clamp(max=self.leaves)]
        reached = cumulated.cummax(0).values
        return self.edges[(torch.searchsorted(reached, target) - 1).clamp(min=0)]
