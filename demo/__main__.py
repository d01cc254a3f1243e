"""`make demo`: start a network and four nodes, walk through the use cases, stay up (or end, with --once)."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from demo import digits, grid
from demo.printing import StepFailed
from demo.stage import PASSWORD
from demo.walk import walk
from gridclient.wire.errors import GridError


def main() -> int:
    """Exit code 0 only if every step held."""
    parser = argparse.ArgumentParser(prog="make demo ARGS=...", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the walk")
    parser.add_argument("--port", type=int, default=8000, help="the network's port; the nodes take the next four")
    parser.add_argument("--mnist", type=Path, help="train on these digits: MNIST's file of images (IDX), or an npz")
    options = parser.parse_args()
    try:
        images = digits.load(options.mnist)
    except digits.DigitsError as error:
        parser.error(str(error))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    walked = False
    try:
        print("Starting a network and four nodes ...", flush=True)
        with grid.running(options.port) as ready:
            where = grid.read(ready)
            walk(where, images)
            walked = True
            print("\nEvery step held.", flush=True)
            if not options.once:
                addresses(where)
                print("\nThe grid stays up until Ctrl-C; then it is removed.", flush=True)
                threading.Event().wait()
        return 0
    except (StepFailed, GridError) as error:
        print(f"\nThis step did not hold: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nThe grid is removed." if walked else "\nStopped before the end of the walk; the grid is removed.")
        return 0 if walked else 130


def addresses(where: dict[str, Any]) -> None:
    print("\nConsoles and their sign-ins:")
    for name, place in [("network", where["network"]), *where["nodes"].items()]:
        admin = place["admin"]
        print(f"  {name:<11}{place['url']}/admin/   {admin['username']} / {admin['password']}")
    print(f"  On every node: olivia / {PASSWORD} (owner). On the network: dana / {PASSWORD} (scientist).")


def _leave(number: int, frame: object) -> None:
    # Once: a second Ctrl-C must not interrupt the cleaning up.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
