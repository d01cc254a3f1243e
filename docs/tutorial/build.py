"""Write each notebook from its source, executed on an empty grid: `python -m docs.tutorial.build [--check] [NAME ...]`.

What is written depends on the source and on the code alone, so that building it again gives the same file: no times,
versions, ports or ids.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

from demo import grid

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NAMES = ("births", "federated")
SECONDS_A_CELL = 120
METADATA = {
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    "language_info": {"name": "python"},
}


def notebook(source: str) -> nbformat.NotebookNode:
    """The cells of a percent-format source, without outputs."""
    cells = []
    for number, part in enumerate(source.split("# %%")[1:]):
        head, _, body = part.partition("\n")
        if head.strip() == "[markdown]":
            lines = [line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines()]
            cell = nbformat.v4.new_markdown_cell("\n".join(lines))
        else:
            cell = nbformat.v4.new_code_cell(body.strip())
        cell["id"] = f"cell-{number}"
        cells.append(cell)
    return nbformat.v4.new_notebook(cells=cells, metadata=METADATA)


def executed(source: str) -> str:
    """The notebook's text, with outputs, from a run on an empty grid. Raises where a cell fails or warns."""
    found = notebook(source)
    with grid.running(0) as ready, tempfile.TemporaryDirectory() as folder:
        # Nobody's own profile may show in the outputs.
        os.environ.update(dict.fromkeys(("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"), folder))
        os.environ.update(GRID_READY=str(ready), GRID_PROGRESS="0", PYDEVD_DISABLE_FILE_VALIDATION="1")
        client = NotebookClient(
            found,
            timeout=SECONDS_A_CELL,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(ROOT)}},
            # Over sockets of this account: TCP would be open to everybody on the machine.
            config=Config({"KernelManager": {"transport": "ipc"}}),
        )
        client.execute()
        urls = [place["url"] for place in (grid.read(ready)["network"], *grid.read(ready)["nodes"].values())]
    for cell in found.cells:
        for output in cell.get("outputs", []):
            if output.output_type != "stream" or output.name != "stdout":
                raise SystemExit(
                    f"A cell printed to {output.get('name', output.output_type)}:\n{cell.source}\n{output}"
                )
    found.metadata = nbformat.from_dict(METADATA)
    text: str = nbformat.writes(found, version=4) + "\n"
    if volatile := [url for url in [*urls, str(ROOT)] if url in text]:
        raise SystemExit(f"The outputs show what belongs to this run only: {', '.join(volatile)}")
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the notebook that is there, write nothing")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all of them without")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"There is no notebook {', '.join(sorted(unknown))}.")
    others = [name for name in options.names or NAMES if not built(name, check=options.check)]
    return int(bool(others))


def built(name: str, *, check: bool) -> bool:
    """Write a notebook; or, to check, print how it differs from what is there. Whether it is there as it should be."""
    path = HERE / f"{name}.ipynb"
    text = executed(path.with_suffix(".py").read_text())
    if not check:
        path.write_text(text)
        return True
    there = path.read_text() if path.exists() else ""
    names = (path.name, "what a run gives now")
    sys.stdout.writelines(difflib.unified_diff(there.splitlines(True), text.splitlines(True), *names))
    return there == text


if __name__ == "__main__":
    sys.exit(main())
