"""What can be wrong with a specification by itself."""

from __future__ import annotations

import math
from itertools import pairwise

from apps.datasets.assets import MAX_DESCRIPTION, MAX_NAME, MAX_TAGS, TABLE, TABLE_PRESENCE, TENSOR
from apps.datasets.ingest.limits import IngestLimits, Problems
from apps.tags.normal import normal
from gridclient.wire.errors import InvalidInputError
from gridclient.wire.messages import Column, PublishSpec

NUMBER, CATEGORY, BOOLEAN, DATE = "number", "category", "boolean", "date"
KINDS = (NUMBER, CATEGORY, BOOLEAN, DATE)
VISIBILITIES = ("listed", "accounts", "granted")
MOST_ROWS_PER_ENTITY = 2**20


def published_columns(spec: PublishSpec) -> list[Column]:
    """The declared columns without a table's column of identifiers."""
    return [column for column in spec.columns if spec.kind == TENSOR or column.name != spec.entities]


def has_presence(spec: PublishSpec) -> bool:
    """Whether the files say which rows are records: decided by the declaration, never by the values."""
    return spec.missing == "null" or spec.max_rows is not None


def check_spec(spec: PublishSpec, limits: IngestLimits, problems: Problems) -> None:
    """Add every problem of the specification."""
    if spec.kind not in (TENSOR, TABLE):
        problems.add("kind: it must be 'tensor' or 'table'.")
    if spec.visibility is not None and spec.visibility not in VISIBILITIES:
        problems.add(f"visibility: it must be one of {', '.join(VISIBILITIES)}.")
    _check_texts(spec, problems)
    if spec.max_rows is not None and not 1 <= spec.max_rows <= limits.rows:
        problems.add(f"max_rows: it must lie between 1 and {limits.rows}.")
    if not 1 <= spec.max_rows_per_entity <= MOST_ROWS_PER_ENTITY:
        problems.add(f"max_rows_per_entity: it must lie between 1 and {MOST_ROWS_PER_ENTITY}.")
    if isinstance(spec.missing, str):
        if spec.missing not in ("refuse", "null"):
            problems.add("missing: it must be 'refuse', 'null' or a number.")
    elif not math.isfinite(spec.missing):
        problems.add("missing: the number must be finite.")
    if spec.entities is not None and spec.entities_of is not None:
        problems.add("entities: with entities_of the other dataset says who each row is; leave one of the two out.")
    _check_columns(spec, limits, problems)


def _check_texts(spec: PublishSpec, problems: Problems) -> None:
    if len(spec.name) > MAX_NAME or not spec.name.isprintable():
        problems.add(f"name: at most {MAX_NAME} printable characters.")
    if len(spec.description) > MAX_DESCRIPTION:
        problems.add(f"description: at most {MAX_DESCRIPTION} characters.")
    if len(spec.tags) > MAX_TAGS:
        problems.add(f"tags: at most {MAX_TAGS}.")
    for tag in spec.tags[:MAX_TAGS]:
        try:
            normal(tag)
        except InvalidInputError as error:
            problems.add(f"tags: {error.message}")


def _check_columns(spec: PublishSpec, limits: IngestLimits, problems: Problems) -> None:
    if len(spec.columns) > limits.columns:
        problems.add(f"columns: at most {limits.columns}.")
        return
    if spec.kind == TABLE and not published_columns(spec):
        problems.add("columns: declare at least one column of the table.")
    if spec.kind == TENSOR and spec.entities:
        problems.add("entities: a tensor's identifiers come with the upload; only a table has a column of them.")
    names = [column.name for column in spec.columns]
    if len(set(names)) != len(names):
        problems.add("columns: two columns have the same name.")
    unnamed_is_fine = spec.kind == TENSOR and len(names) == 1
    for column in spec.columns:
        if not _is_name(column.name, limits) and not (column.name == "" and unnamed_is_fine):
            problems.add(f"columns: a name has 1 to {limits.text} printable characters, and is not {TABLE_PRESENCE!r}.")
        _check_column(column, limits, problems)


def _check_column(column: Column, limits: IngestLimits, problems: Problems) -> None:
    where = subject(column.name[: limits.text])
    if column.kind not in KINDS:
        problems.add(f"{where}: its kind must be one of {', '.join(KINDS)}.")
        return
    if column.low is not None or column.high is not None:
        if column.kind not in (NUMBER, DATE):
            problems.add(f"{where}: only numbers and dates have bounds.")
        elif column.low is None or column.high is None:
            problems.add(f"{where}: bounds are a pair, low and high.")
        elif not (math.isfinite(column.low) and math.isfinite(column.high) and column.low < column.high):
            problems.add(f"{where}: bounds must be finite, and low less than high.")
    _check_edges(column, where, limits, problems)
    if column.partition and column.kind not in (CATEGORY, BOOLEAN):
        problems.add(f"{where}: only a column of kind 'category' or 'boolean' can be a partition.")
    categories = column.categories
    if column.kind == CATEGORY:
        if not categories:
            problems.add(f"{where}: declare its categories.")
        elif len(categories) > limits.categories or any(len(text) > limits.text for text in categories):
            problems.add(f"{where}: at most {limits.categories} categories of {limits.text} characters.")
        elif len(set(categories)) != len(categories):
            problems.add(f"{where}: a category is declared twice.")
    elif categories is not None:
        problems.add(f"{where}: only a column of kind 'category' has categories.")


def _check_edges(column: Column, where: str, limits: IngestLimits, problems: Problems) -> None:
    edges = column.edges
    if edges is None:
        return
    if column.low is None or column.high is None:
        problems.add(f"{where}: only a column with bounds has edges.")
    elif not 2 <= len(edges) <= limits.categories or not all(map(math.isfinite, edges)):
        problems.add(f"{where}: 2 to {limits.categories} finite edges.")
    elif any(low >= high for low, high in pairwise(edges)):
        problems.add(f"{where}: edges rise from one to the next.")
    elif edges[0] > column.low or edges[-1] < column.high:
        problems.add(f"{where}: the edges leave out a part of what the bounds allow.")


def subject(name: str) -> str:
    """How a text calls a column; a tensor's single unnamed one stands for every element."""
    return f"column {name!r}" if name else "values"


def _is_name(name: str, limits: IngestLimits) -> bool:
    return 0 < len(name) <= limits.text and name.isprintable() and name == name.strip() and name != TABLE_PRESENCE
