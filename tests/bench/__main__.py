"""`make bench`: tables of ratios, each taken side by side in one run. `ONLY=slice` for one table.

Exit status 1 when a target was missed.
"""

from __future__ import annotations

import argparse
import sys

from tests.bench import compute, search, steadiness
from tests.bench import slice as slice_table

TABLES = {"slice": slice_table.run, "compute": compute.run, "search": search.run, "steady": steadiness.run}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", choices=sorted(TABLES))
    parser.add_argument("--rows", type=int, default=search.ROWS, help="datasets in the table of searches")
    options = parser.parse_args()
    met = []
    for name, run in TABLES.items():
        if options.only in (None, name):
            met.append(run(options.rows) if run is search.run else run())
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
