"""What helps to search: counts beside the hits, and how a term may end. Mixed into nodes and networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gridclient import html
from gridclient.http import Http
from gridclient.listings import Listing


class Facets:
    """How many hits have which tag, and on a network which node has how many; most first.

    Counted over the newest `counted` hits; `more`: there are others, which were not counted.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.counted = int(fields["counted"])
        self.more = bool(fields["more"])
        self.tags: dict[str, int] = dict(fields["tags"])
        self.nodes: dict[str, int] = dict(fields["nodes"])

    @property
    def total(self) -> str:
        """How many hits there are, in words: they are not counted beyond a cap."""
        return f"more than {self.counted}" if self.more else str(self.counted)

    def __repr__(self) -> str:
        return f"{self._head()}\n{self._listing().table()}" if self.tags or self.nodes else self._head()

    def _repr_html_(self) -> str:
        return html.text(self._head()) + self._listing()._repr_html_()

    def _head(self) -> str:
        note = f"; counts are of the newest {self.counted}" if self.more else ""
        return f"{self.total} datasets{note}"

    def _listing(self) -> Listing[tuple[str, str, int]]:
        rows = [("tag", tag, count) for tag, count in self.tags.items()]
        rows += [("node", node, count) for node, count in self.nodes.items()]
        return Listing(rows, {"": lambda row: row[0], "name": lambda row: row[1], "datasets": lambda row: row[2]})


class Discovery:
    """Counts and completions. They tell of what I may see, and of nothing else."""

    @property
    def http(self) -> Http:
        """The REST interface."""
        raise NotImplementedError

    def facets(self, *terms: str) -> Facets:
        """Which tags the hits of these terms have, and where they are: what to add to a search to narrow it."""
        return Facets(self.http.get("search/facets/", q=list(terms)))

    def suggest(self, prefix: str, *, limit: int = 10) -> dict[str, int]:
        """Terms that begin with `prefix` ("#feb": tags, "feb": words), and how many datasets have each; most first."""
        return dict(self.http.get("search/suggest/", prefix=prefix, limit=limit)["results"])
