"""Private answers: what one would cost, and what one was charged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gridclient import html
from gridclient.wire.errors import ConnectionLostError, InvalidInputError


@dataclass(frozen=True)
class Estimate:
    """What a private answer would cost, and how noisy it would be; from public metadata, and free.

    `cost`, `remaining`: of the epsilon that the answers of all together may take, what this one takes, and what is left
    of it for me. `epsilon`, `delta`: the guarantee of this answer by itself. `sigma`: standard deviation of the noise,
    in the answer's units (of its noisiest number). `within_95`: 95 of 100 answers are so close. `of_range`: that beside
    half of the range that the declared bounds leave for the answer; 1 says nothing.
    """

    cost: float
    remaining: float
    epsilon: float
    delta: float
    sigma: float
    within_95: float
    of_range: float

    def __repr__(self) -> str:
        return (
            f"<Estimate epsilon {self.epsilon:.3g}: ±{self.within_95:.3g} in 95 of 100 answers, {self.of_range:.1%} of "
            f"the half-range; costs {self.cost:.3g} of {self.remaining:.3g}>"
        )

    def _repr_html_(self) -> str:
        return html.card(
            "Estimate",
            "",
            {
                "noise": html.text(f"±{self.within_95:.3g} in 95 of 100 answers"),
                "of the half-range": html.text(f"{self.of_range:.1%}"),
                "cost": html.text(f"{self.cost:.3g} of {self.remaining:.3g} left"),
                "guarantee": html.text(f"epsilon {self.epsilon:.3g}, delta {self.delta:.0e}"),
            },
        )


@dataclass(frozen=True)
class Receipt:
    """What a private answer was charged. `stored`: it was given before, and cost nothing this time.

    `id`: of the release, whose certificate is `node.certificate(id)`; `position`: in the node's ledger. `may_exclude`:
    its people are charged each by itself, and whoever has too little left is not in it; nobody can see who, or whether.
    """

    id: str
    position: int
    stored: bool
    epsilon: float
    delta: float
    cost: float
    remaining: float
    sigma: float
    within_95: float
    of_range: float
    may_exclude: bool
    sigmas: tuple[float, ...] = field(repr=False)
    """Standard deviation of the noise of each number; one where they are equal."""


def estimate_of(fields: Mapping[str, float]) -> Estimate:
    """What a node said, by name. Raises ConnectionLostError where something is missing."""
    return Estimate(**_named(Estimate, fields))


def receipt_of(fields: Mapping[str, Any]) -> Receipt:
    """As `estimate_of`."""
    named = _named(Receipt, fields)
    return Receipt(**named | {"sigmas": tuple(named["sigmas"])})


def _named(kind: type[Estimate | Receipt], fields: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {name: fields[name] for name in kind.__dataclass_fields__}
    except KeyError:
        raise ConnectionLostError("The node said less of a private answer than belongs to one.") from None


def checked(epsilon: Any, within: Any) -> tuple[float | None, float | None]:
    """`epsilon` and `within` as they travel: at most one of them. Raises InvalidInputError."""
    if epsilon is not None and within is not None:
        raise InvalidInputError("Say epsilon=... or within=..., not both: each follows from the other.")
    return _number("epsilon", epsilon), _number("within", within)


def _number(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise InvalidInputError(f"{name} is a positive number, such as {name}=0.5.")
    return float(value)
