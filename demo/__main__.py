"""`make demo`: start a network and four nodes, walk through the use cases, stay up (or end, with --once)."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from demo.walk import PASSWORD, StepFailed, walk

NODES = "hospital,company,university,public"
START_SECONDS = 120


def main() -> int:
    """Exit code 0 only if every step held."""
    parser = argparse.ArgumentParser(prog="make demo ARGS=...", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the walk")
    parser.add_argument("--port", type=int, default=8000, help="the network's port; the nodes take the next four")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gridsite-demo-"))
    grid = start(folder, options.port)
    try:
        where = wait_until_ready(grid, folder / "ready.json")
        walk(where)
        print("\nEvery step held.\n")
        addresses(where)
        if not options.once:
            print("\nThe grid stays up until Ctrl-C; then it is removed.", flush=True)
            wait_for_the_end()
        return 0
    except StepFailed as error:
        print(f"\nThis step did not hold: {error}", file=sys.stderr)
        return 1
    finally:
        grid.terminate()
        grid.wait(timeout=15)
        shutil.rmtree(folder, ignore_errors=True)


def start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    manage = Path(__file__).resolve().parent.parent / "manage.py"
    command = [sys.executable, str(manage), "rungrid", "--dir", str(folder / "grid"), "--port", str(port)]
    print("Starting a network and four nodes ...", flush=True)
    log = (folder / "grid.log").open("wb")
    return subprocess.Popen(
        [*command, "--nodes", NODES, "--ready-file", str(folder / "ready.json")], stdout=log, stderr=subprocess.STDOUT
    )


def wait_until_ready(grid: subprocess.Popen[bytes], ready: Path) -> dict:
    for _ in range(START_SECONDS * 10):
        if ready.exists():
            return json.loads(ready.read_text())
        if grid.poll() is not None:
            break
        time.sleep(0.1)
    log = (ready.parent / "grid.log").read_text()[-3000:]
    raise SystemExit(f"The grid did not start:\n{log}")


def addresses(where: dict) -> None:
    print("Consoles and their sign-ins:")
    for name, place in [("network", where["network"]), *where["nodes"].items()]:
        admin = place["admin"]
        print(f"  {name:<11}{place['url']}/admin/   {admin['username']} / {admin['password']}")
    print(f"  On every node: olivia / {PASSWORD} (owner). On the network: dana / {PASSWORD} (scientist).")


def wait_for_the_end() -> None:
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()


if __name__ == "__main__":
    sys.exit(main())
