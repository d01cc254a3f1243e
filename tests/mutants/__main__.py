"""`make mutants`: each is put into a copy of the sources, and the tests that must notice it are run there.

Exit status 1 when one survives, or when a text, a test or the copy isn't what the table says. `ONLY=text` for those
whose name or file has it.
"""

from __future__ import annotations

import argparse
import compileall
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.mutants.table import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("apps", "client_sdk", "gridsite", "tests", "pyproject.toml", "manage.py")
LINKED = ("static", "templates", "demo", "docs", "deploy")
PASSED, FAILED = 0, 1
"""Exit status of pytest. Any other says that it didn't come to running the tests."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--only", default="")
    only = parser.parse_args().only
    chosen = [mutant for mutant in MUTANTS if only in mutant.name or only in mutant.file]
    with tempfile.TemporaryDirectory(prefix="gridsite-mutants-") as name:
        folder = Path(name)
        copy(folder)
        for alone in (True, False):
            tests = {test for mutant in chosen if mutant.alone is alone for test in mutant.tests}
            if tests and (status := run(folder, sorted(tests), alone=alone)) != PASSED:
                print(f"without any mutant, its tests don't pass (pytest says {status})")
                return 1
        wrong = sum([not is_killed(folder, mutant) for mutant in chosen])
    print(f"{len(chosen) - wrong} of {len(chosen)} killed")
    return 1 if wrong or not chosen else 0


def copy(folder: Path) -> None:
    """The sources into an empty folder, compiled so that a changed file is known by its content, not by its time."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, folder / name)
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    compileall.compile_dir(folder, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)


def is_killed(folder: Path, mutant: Mutant) -> bool:
    """Put it in, run its tests, take it out; print what came of it."""
    path = folder / mutant.file
    sound = path.read_text(encoding="utf-8")
    if sound.count(mutant.original) != 1:
        print(f"broken          {mutant.file}: {mutant.name}: its text is there {sound.count(mutant.original)} times")
        return False
    begin = time.perf_counter()
    path.write_text(sound.replace(mutant.original, mutant.replacement), encoding="utf-8")
    try:
        status = run(folder, mutant.tests, alone=mutant.alone)
    finally:
        path.write_text(sound, encoding="utf-8")
    verdict = {PASSED: "survived", FAILED: "killed"}.get(status, f"broken ({status})")
    print(f"{verdict:<10}{time.perf_counter() - begin:4.1f} s {mutant.file}: {mutant.name}", flush=True)
    return status == FAILED


def run(folder: Path, tests: Iterable[str], *, alone: bool) -> int:
    """Exit status of pytest in a copy, ended by the first failure."""
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "tests.mutants.quick", "--hypothesis-profile=mutants"]
    if alone:
        options += ["--noconftest", "-p", "no:django"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    environment = {**os.environ, "PYTHONPATH": str(folder / "client_sdk" / "src")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
