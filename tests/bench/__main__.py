"""`make bench`: tables of ratios, each taken side by side in one run. `ONLY=slice` for one table.

Exit status 1 when a target was missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from tests.bench import compute, privacy, search, steadiness, wire
from tests.bench import slice as slice_table

TABLES: dict[str, Callable[..., bool]] = {
    "slice": slice_table.run,
    "compute": compute.run,
    "privacy": privacy.run,
    "search": search.run,
    "steady": steadiness.run,
    "wire": wire.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", choices=sorted(TABLES))
    parser.add_argument("--rows", type=int, default=search.ROWS, help="datasets in the table of searches")
    parser.add_argument("--minutes", type=float, default=wire.MINUTES, help="of the crowd in the table of the wire")
    options = parser.parse_args()
    given = {"search": (options.rows,), "wire": (options.minutes,)}
    met = []
    for name, run in TABLES.items():
        if options.only in (None, name):
            met.append(run(*given.get(name, ())))
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
