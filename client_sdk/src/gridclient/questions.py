"""Questions about the people in a table, answered privately: `table["weight"].dp.quantile(0.5).get(epsilon=0.2)`.

Each is a sum over people, recorded as plain torch, and what is made of the noisy sum here: that costs nothing more.
Answers carry `.receipt` and `.interval`, the lower and upper bounds between which the exact answer lies in 95 of 100.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F

from gridclient.trees import Z_95, Tree
from gridclient.wire.errors import InvalidInputError

if TYPE_CHECKING:
    from gridclient.private import Estimate
    from gridclient.recorder import Pointer
    from gridclient.tables import TablePointer
    from gridclient.wire.messages import Column

MOST_TREE_BYTES = 64 * 2**20
"""A tree's rows are written out one by one on the node: of a long table, its leaves are fewer."""


class Finished(NamedTuple):
    """An answer, and between which numbers it lies in 95 of 100."""

    answer: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor


Finish = Callable[[torch.Tensor, torch.Tensor], Finished]


class Question:
    """What is asked: `pointer` is the sum over people on the node, of which the answer is made here."""

    def __init__(self, pointer: Any, finish: Finish, words: str) -> None:
        self.pointer = pointer
        self._finish, self._words = finish, words

    def get(self, *, epsilon: float) -> torch.Tensor:
        """The answer, float64, with `.receipt` and `.interval`."""
        sums = self.pointer.get(epsilon=epsilon)
        receipt = sums.receipt
        sigmas = torch.tensor(receipt.sigmas, dtype=torch.float64).expand(sums.numel()).reshape(sums.shape)
        found = self._finish(sums.double(), sigmas)
        answer: Any = found.answer
        answer.receipt, answer.interval = receipt, (found.low, found.high)
        return answer

    def estimate(self, *, epsilon: float) -> Estimate:
        """What it would cost, and the noise of the sums that it is made of. Free."""
        found: Estimate = self.pointer.estimate(epsilon=epsilon)
        return found

    def request(self, reason: str) -> Any:
        """Ask the people who decide on the table for the exact sums."""
        return self.pointer.request(reason)

    def __repr__(self) -> str:
        return f"<Question {self._words}>"


class ColumnQuestions:
    """Questions about one column [n] of a table, by what its owner declared of it."""

    def __init__(self, table: TablePointer, column: Column) -> None:
        self._table, self._column = table, column
        self._values = table[column.name]

    def sum(self) -> Question:
        """The sum."""
        return Question(self._number().sum(0), _as_it_is, f"sum of {self._column.name}")

    def mean(self) -> Question:
        """The mean over all records."""
        low, high = self._range()
        middle = (low + high) / 2
        sums = _moments(self._number() - middle, 1, counted=not self._table.counted)
        return Question(sums, _Moments(self._people(), middle).mean, f"mean of {self._column.name}")

    def var(self) -> Question:
        """The variance (divided by n): n, the sum and the sum of squares in one release."""
        low, high = self._range()
        middle = (low + high) / 2
        sums = _moments(self._number() - middle, 2, counted=not self._table.counted)
        return Question(sums, _Moments(self._people(), middle).variance, f"variance of {self._column.name}")

    def quantile(self, q: float | Sequence[float]) -> Question:
        """The values below which these shares of the records lie, of a noisy tree of counts; as many as `q` has.

        Every quantile of a column comes out of one tree: ask for several at once.
        """
        wanted = torch.tensor(q, dtype=torch.float64)
        if not bool(((wanted >= 0) & (wanted <= 1)).all()) or wanted.numel() == 0:
            raise InvalidInputError("q is a share from 0 to 1, such as 0.5, or several.")
        low, high = self._range()
        tree = Tree(low, high, _levels(len(self._table)))
        counts = tree.counts(self._number(), counted=not self._table.counted)

        def finish(noisy: torch.Tensor, sigmas: torch.Tensor) -> Finished:
            return Finished(*tree.quantiles(noisy, sigmas, wanted, self._people()))

        return Question(counts, finish, f"quantile {q} of {self._column.name}")

    def median(self) -> Question:
        """The middle value."""
        return self.quantile(0.5)

    def histogram(self, edges: Sequence[float]) -> Question:
        """How many values lie between each edge and the next one, the last included; outside of all: nobody."""
        cuts = torch.tensor(edges, dtype=torch.float64)
        if cuts.dim() != 1 or cuts.numel() < 2 or not bool((cuts.diff() > 0).all()) or not bool(cuts.isfinite().all()):
            raise InvalidInputError("edges are two or more finite numbers that grow: [0.0, 1.0, 2.0].")
        inner = cuts.clone()
        inner[-1] = torch.nextafter(cuts[-1], torch.tensor(torch.inf, dtype=torch.float64))
        places = torch.bucketize(self._number(), inner, right=True)
        counts = F.one_hot(places, len(edges) + 1)[:, 1:-1].sum(0)
        return Question(counts, _as_it_is, f"histogram of {self._column.name}")

    def counts(self) -> Question:
        """How many records each declared category has; of a boolean: false, true."""
        codes, size = self._table.codes(self._column.name)
        return Question(F.one_hot(codes, size).sum(0), _as_it_is, f"counts of {self._column.name}")

    def argmax(self) -> Question:
        """The place of the most frequent category in the declared order, by the exponential mechanism.

        Its `.interval` is not stated: both ends are the answer. The chosen one has at most `receipt.within_95` fewer
        records than the most frequent one, in 95 of 100.
        """
        codes, size = self._table.codes(self._column.name)
        return Question(F.one_hot(codes, size).sum(0).argmax(), _certain, f"most frequent {self._column.name}")

    def _number(self) -> Pointer:
        return self._values.double()  # type: ignore[return-value]

    def _people(self) -> int | None:
        return len(self._table) if self._table.counted else None

    def _range(self) -> tuple[float, float]:
        return range_of(self._column)


class TableQuestions:
    """Questions about several columns of a table at once."""

    def __init__(self, table: TablePointer) -> None:
        self._table = table

    def covariance(self, names: Sequence[str]) -> Question:
        """The covariance matrix [d, d] of these columns (divided by n), of a released Gram matrix."""
        _, products = self._products(names)

        def finish(noisy: torch.Tensor, sigmas: torch.Tensor) -> Finished:
            count, mean = noisy[0, 0].clamp(min=1.0), noisy[0, 1:] / noisy[0, 0].clamp(min=1.0)
            found = noisy[1:, 1:] / count - mean[:, None] * mean[None, :]
            found = (found + found.T) / 2
            # To first order: the product's own noise, and that of both means.
            spread = (sigmas[1:, 1:].square() + (mean[:, None] * sigmas[0, 1:]).square()
                      + (mean[None, :] * sigmas[0, 1:, None]).square()).sqrt() / count  # fmt: skip
            return Finished(found, found - Z_95 * spread, found + Z_95 * spread)

        return Question(products, finish, f"covariance of {', '.join(names)}")

    def regression(self, target: str, on: Sequence[str], *, ridge: float = 0.0) -> Question:
        """Least squares of `target` on other columns: the intercept, then a coefficient each, of one Gram matrix.

        `ridge`: added to the squares of the features, in units of their half-range; it steadies what noise shakes.
        Its `.interval` is not stated: both ends are NaN.
        """
        if ridge < 0:
            raise InvalidInputError("ridge is 0 or more.")
        middles, products = self._products([*on, target])
        halves = torch.tensor([(high - low) / 2 for low, high in map(self._range, on)], dtype=torch.float64)

        def finish(noisy: torch.Tensor, sigmas: torch.Tensor) -> Finished:
            square = (noisy + noisy.T) / 2
            size = len(on) + 1
            penalty = torch.diag(torch.cat([torch.zeros(1, dtype=torch.float64), ridge * halves.square()]))
            solved = torch.linalg.lstsq(square[:size, :size] + penalty, square[:size, size:]).solution[:, 0]
            intercept = middles[-1] + solved[0] - (solved[1:] * middles[:-1]).sum()
            answer = torch.cat([intercept[None], solved[1:]])
            unknown = torch.full_like(answer, torch.nan)
            return Finished(answer, unknown, unknown)

        return Question(products, finish, f"regression of {target} on {', '.join(on)}")

    def _products(self, names: Sequence[str]) -> tuple[torch.Tensor, Pointer]:
        """The middles of the columns, and the Gram matrix of a 1 and the columns without their middles."""
        middles = torch.tensor([sum(self._range(name)) / 2 for name in names], dtype=torch.float64)
        columns: Any = self._table[list(names)] - middles
        rows: Any = torch.cat([torch.ones_like(columns[:, :1]), columns], 1)
        return middles, _products(rows, rows)

    def _range(self, name: str) -> tuple[float, float]:
        return range_of(self._table.declared(name))


class Groups:
    """The records of a table by the declared categories of a column. Answers have a row for each category, in order."""

    def __init__(self, table: TablePointer, by: str) -> None:
        self._table, self._by = table, by
        codes, size = table.codes(by)
        self._members: Any = F.one_hot(codes, size).double()
        self.categories = table.categories.get(by, ["false", "true"])

    def count(self) -> Question:
        """How many records each group has."""
        return Question(self._members.sum(0), _as_it_is, f"count by {self._by}")

    def sum(self, column: str) -> Question:
        """The sum of a column in each group."""
        low, high = range_of(self._table.declared(column))
        middle = (low + high) / 2
        sums = self._sums(column, middle)

        def finish(noisy: torch.Tensor, sigmas: torch.Tensor) -> Finished:
            answer = noisy[:, 1] + middle * noisy[:, 0]
            half = Z_95 * (sigmas[:, 1].square() + (middle * sigmas[:, 0]).square()).sqrt()
            return Finished(answer, answer - half, answer + half)

        return Question(sums, finish, f"sum of {column} by {self._by}")

    def mean(self, column: str) -> Question:
        """The mean of a column in each group."""
        low, high = range_of(self._table.declared(column))
        middle = (low + high) / 2
        return Question(self._sums(column, middle), _Moments(None, middle).mean, f"mean of {column} by {self._by}")

    def _sums(self, column: str, middle: float) -> Any:
        values: Any = self._table[column].double() - middle
        return _products(self._members, torch.stack([torch.ones_like(values), values], 1))


class _Moments:
    """Means and variances from noisy sums of 1, x - middle and its square, along the last axis."""

    def __init__(self, people: int | None, middle: float) -> None:
        """`people`: how many there are, where that is public and not among the sums."""
        self._people, self._middle = people, middle

    def mean(self, noisy: torch.Tensor, sigmas: torch.Tensor) -> Finished:
        (count, doubt), (sums, noise) = self._counts(noisy, sigmas), self._of(noisy, sigmas, 1)
        mean = sums / count
        half = Z_95 * (noise.square() + (mean * doubt).square()).sqrt() / count
        answer = mean + self._middle
        return Finished(answer, answer - half, answer + half)

    def variance(self, noisy: torch.Tensor, sigmas: torch.Tensor) -> Finished:
        count, doubt = self._counts(noisy, sigmas)
        (sums, noise), (squares, more) = self._of(noisy, sigmas, 1), self._of(noisy, sigmas, 2)
        mean, square = sums / count, squares / count
        slopes = (more, 2 * mean * noise, (2 * mean.square() - square) * doubt)
        half = Z_95 * torch.stack([slope.square() for slope in slopes]).sum(0).sqrt() / count
        answer = (square - mean.square()).clamp(min=0.0)
        return Finished(answer, (answer - half).clamp(min=0.0), answer + half)

    def _counts(self, noisy: torch.Tensor, sigmas: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self._people is not None:
            return torch.tensor(float(self._people)), torch.tensor(0.0)
        return noisy[..., 0].clamp(min=1.0), sigmas[..., 0]

    def _of(self, noisy: torch.Tensor, sigmas: torch.Tensor, power: int) -> tuple[torch.Tensor, torch.Tensor]:
        place = power - (self._people is not None)
        return noisy[..., place], sigmas[..., place]


def range_of(column: Column) -> tuple[float, float]:
    """The declared bounds of a column. Raises InvalidInputError for one without."""
    if column.kind == "boolean":
        return 0.0, 1.0
    if column.kind == "category" or column.low is None or column.high is None:
        raise InvalidInputError(f"{column.name!r} has no declared bounds: it is counted, by categories, not averaged.")
    return column.low, column.high


def _moments(values: Any, powers: int, *, counted: bool) -> Any:
    """Sums of the powers of a column; with `counted`, of 1 too."""
    first = [torch.ones_like(values)] if counted else []
    return torch.stack([*first, values, *[values.square()][: powers - 1]], 1).sum(0)


def _products(left: Any, right: Any) -> Any:
    """left.T @ right, as a sum over rows: that leaves null records out."""
    return (left[:, :, None] * right[:, None, :]).sum(0)


def _levels(rows: int) -> int:
    """How many times the leaves of a tree are halved: 256 leaves, fewer for long tables."""
    levels = 8
    while levels > 3 and rows * 2 ** (levels + 1) * 8 > MOST_TREE_BYTES:
        levels -= 1
    return levels


def _certain(chosen: torch.Tensor, sigmas: torch.Tensor) -> Finished:
    return Finished(chosen, chosen, chosen)


def _as_it_is(noisy: torch.Tensor, sigmas: torch.Tensor) -> Finished:
    return Finished(noisy, noisy - Z_95 * sigmas, noisy + Z_95 * sigmas)
