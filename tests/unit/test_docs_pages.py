"""The hand-written pages: links lead somewhere, commands that they name exist, and they tell of no one's machine."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from django.core.management import get_commands

import gridclient
from gridclient.wire.errors import BY_CODE
from gridclient.wire.messages import MAX_NODES
from gridsite.reference import pages, wire

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NOTEBOOKS = sorted(ROOT.glob("docs/tutorial/*.ipynb"))
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def _names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as they are made from headings on the usual forges."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=_names(PAGES))
def test_a_reader_who_follows_a_link_arrives(page: Path) -> None:
    for target in _LINK.findall(page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name} links to {target}"
        if anchor and found.suffix == ".md" and "operations.md" not in found.name:
            assert anchor in _anchors(found), f"{page.name} links to {target}"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=_names(NOTEBOOKS))
def test_links_of_the_tutorial_arrive(notebook: Path) -> None:
    for cell in json.loads(notebook.read_text())["cells"]:
        for target in _LINK.findall("".join(cell["source"])) if cell["cell_type"] == "markdown" else []:
            assert "://" in target or (notebook.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=_names(PAGES))
def test_a_reader_who_types_a_command_finds_it(page: Path) -> None:
    text = page.read_text()
    assert set(re.findall(r"manage\.py (\w+)", text)) <= set(get_commands())
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", PAGES, ids=_names(PAGES))
def test_a_reader_who_copies_an_example_gets_names_that_exist(page: Path) -> None:
    for code in _CODE.findall(page.read_text()):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "grid":
                assert hasattr(gridclient, node.attr), f"grid.{node.attr}"


def test_no_page_tells_of_somebodys_machine() -> None:
    for page in [*PAGES, *NOTEBOOKS]:
        found = re.search(r"(?<![\w.:/])/(home|root|tmp|work|Users)/", page.read_text())
        assert found is None, f"{page.name}: {found}"


def test_every_error_says_what_it_means() -> None:
    rows = [row for row in pages.errors_page().splitlines() if row.startswith("| ") and "`" in row]
    assert len(rows) == len(BY_CODE)
    assert [row for row in rows if not row.split("|")[5].strip()] == []


def test_the_page_of_the_wire_tells_how_long_a_list_may_be() -> None:
    assert f"at most {MAX_NODES}" in wire.page()
