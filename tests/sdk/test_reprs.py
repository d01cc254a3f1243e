"""How objects show themselves in a terminal and in a notebook: short, to the point, and safe with hostile names."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch

import gridclient as grid
from gridclient import html, progress
from gridclient.datasets import Dataset
from gridclient.listings import PLANS, Found, Listing
from gridclient.network import GridNetwork
from gridclient.node import Node
from gridclient.plans import StoredPlan
from gridclient.records import Account, Event, Grant, Member, OpenSession, Team, Token
from gridclient.wire import messages as m
from tests.sdk.fake_node import FakeNode, running

CANARY = 8675.309
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)> \u202eevil \u200bhid р\u0430ypal \x1b[2J \x07$x$"
COLUMNS: list[dict[str, Any]] = [
    {"name": f"w{HOSTILE}", "kind": "number", "low": 0.0, "high": 9999.0, "categories": None},
    {"name": "c", "kind": "category", "low": None, "high": None, "categories": [HOSTILE, "b"]},
]
ALLOWED = {"div", "table", "thead", "tbody", "tr", "td", "th", "span", "b", "br", "a", "details", "summary"}


class Read(HTMLParser):
    """Tags, attributes and text of a piece of HTML; every tag that is opened must be closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str | None]] = []
        self.tags: set[str] = set()
        self.text = ""
        self.open: list[str] = []
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attributes
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def fake() -> Iterator[FakeNode]:
    with running(FakeNode()) as node:
        node.permitted = True
        words = {"name": HOSTILE, "description": f"First.\n{HOSTILE}", "tags": [HOSTILE]}
        node.add("births", torch.full((5, 2), CANARY, dtype=torch.float64), COLUMNS, **words)
        table = pa.table({COLUMNS[0]["name"]: [CANARY] * 5, "c": ["b"] * 5})
        node.add("wards", table, COLUMNS, **words)
        yield node


@pytest.fixture
def hospital(fake: FakeNode) -> Iterator[Node]:
    with grid.connect(fake.url, username="bob", password="correct horse") as node:
        yield node


def shown(node: Node, fake: FakeNode) -> list[Any]:
    """Everything that shows itself in a notebook."""
    births = node.dataset("births").pointer()
    request = births.sum().request(HOSTILE)
    fake.requests[request.id] |= {"requester": HOSTILE, "words": HOSTILE, "decision_reason": HOSTILE}
    request.refresh()
    far = Node(id=HOSTILE, name=HOSTILE, url="javascript:alert(1)", public_key="ab" * 32, enter=lambda: node.account)
    identity = {"id": HOSTILE, "name": HOSTILE}
    row = dict.fromkeys(("id", "slug", "username", "name", "url", "verb", "actor", "reason", "to", "dataset"), HOSTILE)
    stored = {**dict.fromkeys(("name", "owner", "sha256", "description"), HOSTILE), "nbytes": 3, "allow_download": True}
    stored["inputs"] = [{"name": HOSTILE, "dtype": "float32", "shape": [2]}]
    records = [kind({**row, "roles": [HOSTILE]}) for kind in (Account, Event, Grant, Member, Team, Token)]
    return [
        births,
        births.sum(),
        node.dataset("wards").pointer(),
        node.dataset("wards").mock,
        node.dataset("wards").mock.describe(),
        node.dataset("births"),
        node,
        far,
        GridNetwork(identity, node.http, None),
        Dataset(far, fake.datasets["wards"]),
        request,
        node.requests(),
        grid.plan(torch.relu, example=torch.zeros(2), name="plan", description="<script>alert(1)</script> $x$"),
        StoredPlan(far, stored),
        Listing([StoredPlan(far, stored)], PLANS),
        node.datasets(),
        node.search(),
        Found({HOSTILE: node.search()}),
        OpenSession({**row, "client": HOSTILE}, node.http),
        OpenSession.listed([{**row, "client": HOSTILE}], http=node.http),
        *records,
        *(type(record).listed([record._fields]) for record in records),
    ]


def test_hostile_names_are_only_text_in_a_notebook(hospital: Node, fake: FakeNode) -> None:
    for item in shown(hospital, fake):
        source = item._repr_html_()
        read = Read(source)
        assert read.tags <= ALLOWED, type(item)
        assert {name for name, _ in read.attributes} <= {"style", "class", "href", "rel"}
        assert all((value or "").startswith("http") for name, value in read.attributes if name == "href")
        assert not re.search("[\u202e\u200b\x1b\x07\u0430]", source), type(item)
        assert "color:" not in source.replace("color:inherit", "")
        assert len(source) < 12_000
        # Formulas that somebody wrote are not typeset.
        assert source.startswith('<div class="tex2jax_ignore">')


def test_hostile_names_do_nothing_to_a_terminal(hospital: Node, fake: FakeNode) -> None:
    for item in shown(hospital, fake):
        assert not re.search("[\u202e\u200b\x1b\x07\u0430]", repr(item)), type(item)
        if not isinstance(item, (Listing, Found)):
            assert "\n" not in repr(item)


def test_look_alikes_are_shown_as_what_they_are(hospital: Node) -> None:
    text = Read(hospital.dataset("births")._repr_html_()).text
    assert "<script>alert(1)</script>" in text
    assert r"\u{202e}evil \u{200b}hid" in text
    assert r"\u{0440}\u{0430}ypal" in text


def test_no_private_value_is_shown(hospital: Node, fake: FakeNode) -> None:
    for item in shown(hospital, fake):
        if type(item).__name__ != "MockTable":
            assert not re.search(r"8675|8\.67", repr(item) + item._repr_html_())


def asked(fake: FakeNode) -> tuple[int, int]:
    """How many calls and questions there were; what was recorded earlier may still be on its way."""
    return len(fake.calls), sum(not isinstance(command, (m.Run, m.Drop)) for command in fake.commands)


def test_showing_asks_nothing_of_anybody(hospital: Node, fake: FakeNode) -> None:
    everything = shown(hospital, fake)
    before = asked(fake)
    for item in everything:
        repr(item)
        item._repr_html_()
        dir(item)
        getattr(item, "_ipython_key_completions_", list)()
    assert asked(fake) == before


def test_secrets_stay_out_of_sight(hospital: Node) -> None:
    token = Token({"prefix": "abcdefgh", "name": "laptop", "user": "bob", "token": "grd_abcdefgh_secret"})
    for item in (token, hospital, Token.listed([token._fields])):
        text = repr(item) + item._repr_html_()
        assert "secret" not in text
        assert hospital.http.token not in text


def test_lists_are_lists_and_show_a_table(hospital: Node) -> None:
    found = hospital.datasets()
    assert isinstance(found, list)
    assert found[:1] == [found[0]]
    assert isinstance(found[:1], Listing)
    header, *rows = repr(found).splitlines()
    assert header.split() == ["name", "version", "kind", "shape", "tags", "rights", "description"]
    assert [row.split()[0] for row in rows] == ["births", "wards"]
    assert "5 × 2" in Read(found._repr_html_()).text
    assert (repr(Listing()), Listing() == []) == ("[]", True)
    assert hospital.search("#nothing") == []


def test_long_lists_are_shown_in_part(hospital: Node) -> None:
    many = Listing(range(1000), {"number": lambda item: item})
    assert len(repr(many).splitlines()) == 52
    assert repr(many).endswith("... and 950 more")
    assert "and 950 more" in many._repr_html_()
    assert len(many.table().splitlines()) == 1001


def test_a_search_result_is_a_plain_dict_that_shows_a_table(hospital: Node, fake: FakeNode) -> None:
    place = {"id": "hospital", "name": "Hospital", "url": fake.url, "public_key": fake.public_key}
    results = [{"node": place, "dataset": fake.datasets[name]} for name in ("births", "wards")]
    with running(FakeNode(role="network", id="net")) as other:
        other.results = results
        with grid.connect_network(other.url) as network:
            found = network.search("#births")
            assert [dataset.name for dataset in network.datasets("#births")] == ["births", "wards"]
    assert isinstance(found, dict)
    assert found == {"hospital": list(found["hospital"])}
    assert found._ipython_key_completions_() == list(found) == ["hospital"]
    assert [row.split()[:3] for row in repr(found).splitlines()[1:]] == [
        ["hospital", "0", "births"],
        ["hospital", "1", "wards"],
    ]
    assert repr(Found()) == "{}"


def test_what_is_not_there_is_named_by_who_asked_for_it(hospital: Node) -> None:
    with pytest.raises(grid.NotFoundError, match=r"no dataset 'nix' on hospital.* node\.datasets\(\) lists"):
        hospital.dataset("nix")
    with pytest.raises(grid.NotFoundError, match=r"no plan 'nix' on hospital.* node\.plans\(\) lists"):
        hospital.plan("nix")


def test_nothing_is_shown_where_there_is_nothing(hospital: Node) -> None:
    assert "<b></b>" not in grid.send(torch.ones(2), hospital)._repr_html_()
    assert repr(grid.private_table(pa.table({"a": [1.0, 2.0]}))) == "<PrivateTable [2, 1]>"
    assert repr(grid.private_tensor(torch.ones(2)).tag("#a")) == "<PrivateTensor [2] torch.float32 #a>"
    assert ": 1 operation, " in repr(grid.plan(torch.relu, example=torch.zeros(2), name="one"))


def test_completion_offers_what_there_is(hospital: Node) -> None:
    births, wards = hospital.dataset("births").pointer(), hospital.dataset("wards").pointer()
    assert {"columns", "description", "mock", "get", "request", "sum"} <= set(dir(births))
    assert {"get", "request", "sum", "location"} <= set(dir(births.sum()))
    assert not {"columns", "description", "mock"} & set(dir(births.sum()))
    assert wards._ipython_key_completions_() == [COLUMNS[0]["name"], "c"]
    assert {"datasets", "plans", "search", "id", "rights"} <= set(dir(hospital))
    assert not {"append", "constant", "drop", "recorder", "submit", "value"} & set(dir(hospital))
    assert {"username", "roles"} <= set(dir(Account({"username": "bob", "roles": []})))


def test_values_are_written_as_people_read_them() -> None:
    assert [html.plain(value) for value in (None, True, 0.5, (6, 2), ["a", "b"], {"a": 1}, " two\n lines ")] == [
        "", "yes", "0.5", "6 × 2", "a, b", "a: 1", "two lines",
    ]  # fmt: skip
    assert html.link("https://hospital.example").startswith('<a href="https://hospital.example"')
    assert html.link("javascript:alert(1)") == "javascript:alert(1)"
    assert html.link("http://[") == "http://["


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Tty:
    """A terminal as stderr, and no patience before something is drawn."""
    stderr = Tty()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stderr, modules=sys.modules))
    monkeypatch.setattr(progress.settings, "progress", True)
    for name in ("_SLOW", "_LONG"):
        monkeypatch.setattr(progress, name, 0.0)
    monkeypatch.setattr(progress, "_PAUSE", 0.01)
    return stderr


def test_a_transfer_has_a_bar_and_a_wait_its_seconds(terminal: Tty) -> None:
    bar = progress.Progress("publishing births", 2**21)
    bar.show(2**21)
    bar.end()
    assert re.fullmatch(r"\rpublishing births \[#{30}\] 2 of 2 MiB, \d+ MiB/s\n", terminal.getvalue())
    terminal.truncate(0)
    reply: Future[str] = Future()
    with pytest.raises(TimeoutError):
        progress.waited(reply, 0.05)
    assert "\rwaiting for the node 0 s" in terminal.getvalue()
    # Nothing of it is left in the line.
    assert re.search(r"\r +\r\Z", terminal.getvalue())
    reply.set_result("done")
    assert progress.waited(reply, 0.0) == "done"


def test_a_real_wait_is_shown_and_wiped(hospital: Node, fake: FakeNode, terminal: Tty) -> None:
    request = hospital.dataset("births").pointer().sum().request("A study")
    with pytest.raises(grid.RequestPendingError):
        request.wait(timeout=0.2)
    assert f"waiting for request {request.id[:8]} 0 s" in terminal.getvalue()


@pytest.mark.parametrize("why", ["switched off", "no terminal"])
def test_nothing_is_drawn_where_nobody_looks(terminal: Tty, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    if why == "switched off":
        monkeypatch.setattr(grid.settings, "progress", False)
    else:
        monkeypatch.setattr(terminal, "isatty", lambda: False)
    bar = progress.Progress("publishing", 1)
    bar.show(1)
    bar.end()
    with progress.Waiting("waiting") as waiting:
        waiting.show()
    assert terminal.getvalue() == ""


def test_a_notebook_has_one_output_that_changes(terminal: Tty, monkeypatch: pytest.MonkeyPatch) -> None:
    display = pytest.importorskip("IPython.display")
    monkeypatch.setattr(progress, "screen", progress.Notebook)
    outputs: list[str] = []

    class Handle:
        def update(self, what: Any) -> None:
            outputs[0] = what.data

    def begun(what: Any, display_id: bool) -> Handle:
        outputs.append(what.data)
        return Handle()

    monkeypatch.setattr(display, "display", begun)
    bar = progress.Progress("publishing <b>", 100)
    bar.show(50)
    bar._drawn = time.monotonic() - 1
    bar.show(100)
    bar.end()
    assert len(outputs) == 1
    assert 'value="1.000"' in outputs[0]
    assert "publishing &lt;b&gt; 0 of 0 MiB" in outputs[0]
