"""Attack 32: hide the one operation that matters from the person who decides.

What a person in the data would lose: their row, by a request that its reviewer took for a monthly average.
"""

from __future__ import annotations

import random
import unicodedata
from typing import Any

import numpy as np
import pytest

from gridclient.program.graph import Dtype, Node, Ref
from gridclient.wire import messages as m
from gridclient.wire.errors import GridError, LimitExceededError
from tests.attacks.conftest import Private
from tests.attacks.programs import Target
from tests.attacks.ward import Ward, private_values
from tests.factories.raw import RawClient

HARMLESS = ["aten::add.Tensor", "aten::sub.Tensor"]
UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def words_of(ward: Ward, request: str) -> str:
    status, body = ward.call("owner", "GET", f"requests/{request}/")
    assert status == 200
    # An account has so many open requests at a time.
    ward.call("scientist", "POST", f"requests/{request}/withdraw/", {})
    return str(body["words"])


def look_at_this(words: str) -> str:
    """The part that a reviewer reads first: before the list of all steps."""
    head, _, _ = words.partition("\nAll ")
    _, _, look = head.partition("Look at this:")
    return look


def buried(client: RawClient, value: Ref, source: random.Random, count: int) -> Ref:
    """The value under so many steps that do nothing, in one frame each hundred."""
    zero = client.constant(np.zeros(1))
    for _ in range(count // 100):
        nodes = []
        for _ in range(100):
            number = next(client._ids)
            other = source.choice([0.0, zero]) if source.random() < 0.3 else 0.0
            nodes.append(Node(number, source.choice(HARMLESS), [value, other]))
            value = Ref(number)
        client.send(m.Run(nodes))
    return value


def computed_one_hot(t: Target, person: int) -> Ref:
    """Of places in a row, none of which tells: is it this one?"""
    places = t.constant(np.arange(t.n)[:, None])
    return t.op("_to_copy", t.op("eq.Scalar", places, person), dtype=Dtype("float64"))


def weighted(t: Target, weight: Ref) -> Ref:
    return t.op("sum.dim_IntList", t.op("mul.Tensor", t.x, weight), [0])


SELECTIONS = {
    "select": lambda t: t.op("select.int", t.x, 0, t.person),
    "slice": lambda t: t.row(),
    "index_select": lambda t: t.op("index_select", t.x, 0, t.constant([t.person], "int64")),
    "one-hot": lambda t: t.op("mm", t.constant(t.one_hot(t.n, t.person)[None]), t.x),
    "one-hot, multiplied": lambda t: t.op(
        "sum.dim_IntList", t.op("mul.Tensor", t.x, t.constant(t.one_hot(t.n, t.person)[:, None])), [0]
    ),
    "everybody but one": lambda t: t.op(
        "sum.dim_IntList", t.op("mul.Tensor", t.x, t.constant((1 - t.one_hot(t.n, t.person))[:, None])), [0]
    ),
    "one-hot over ones": lambda t: t.op(
        "sum.dim_IntList", t.op("mul.Tensor", t.x, t.constant((t.one_hot(t.n, t.person, 1e9) + 1)[:, None])), [0]
    ),
    "near one-hot": lambda t: t.op("mm", t.constant(t.one_hot(t.n, t.person)[None] + 1e-12), t.x),
    "one-hot by steps": lambda t: t.op(
        "mm", t.op("sub.Tensor", t.op("add.Tensor", t.constant(t.one_hot(t.n, t.person)[None]), 5.0), 5.0), t.x
    ),
    "computed one-hot": lambda t: weighted(t, computed_one_hot(t, t.person)),
    "computed near one-hot": lambda t: weighted(t, t.op("add.Tensor", computed_one_hot(t, t.person), 1e-12)),
    "computed everybody but one": lambda t: weighted(t, t.op("rsub.Scalar", computed_one_hot(t, t.person), 1.0)),
    "computed steep weight": lambda t: weighted(t, t.op("exp", t.constant(np.arange(t.n)[:, None]))),
    "two weights that differ in two places": lambda t: t.op(
        "sub.Tensor",
        weighted(t, t.constant(np.arange(1.0, t.n + 1)[:, None])),
        weighted(
            t,
            t.op(
                "add.Tensor",
                t.constant(np.arange(1.0, t.n + 1)[:, None]),
                t.op("sub.Tensor", computed_one_hot(t, t.person), computed_one_hot(t, 0)),
            ),
        ),
    ),
    "slice of the other axis after a transpose": lambda t: t.op(
        "slice.Tensor", t.op("t", t.x), 1, t.person, t.person + 1
    ),
    "slice of a view": lambda t: t.op("slice.Tensor", t.op("view", t.x, [-1]), 0, t.person * t.d, t.person * t.d + t.d),
    "slice of a flip": lambda t: t.op("select.int", t.op("flip", t.x, [0]), 0, t.n - 1 - t.person),
    "comparison": lambda t: t.op("gt.Scalar", t.column_vector(), 500.0),
    "mask": lambda t: t.op(
        "where.self", t.constant(t.one_hot(t.n, t.person)[:, None] > 0, "bool"), t.x, t.constant(0.0)
    ),
    "largest": lambda t: t.op("amax", t.x, [0]),
    "scatter": lambda t: t.op("slice_scatter", t.x, t.constant(np.zeros((t.n - 1, t.d))), 0, 1, t.n),
}


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("depth", [0, 1000])
def test_the_choice_of_a_row_is_named_first_however_deep_it_lies(
    ward: Ward, births: Private, name: str, depth: int
) -> None:
    source = random.Random(f"{name}{depth}")
    with RawClient(ward.url, ward.tokens["scientist"]) as client:
        n, d = births.values.shape
        x = buried(client, client.asset(births.dataset), source, depth // 2)
        target = Target(client, x, n, d, source.randrange(1, n), source.randrange(d), source)
        value = (
            buried(client, SELECTIONS[name](target), source, depth // 2)
            if name != "comparison" or not depth
            else SELECTIONS[name](target)
        )
        words = words_of(ward, client.request(value, "Monthly report."))
    assert look_at_this(words).strip(), words[:3000]
    assert len(words) < 100_000


def test_a_sum_of_everybody_is_nothing_to_look_at(ward: Ward, births: Private) -> None:
    """Where everything is suspicious nothing is."""
    with RawClient(ward.url, ward.tokens["scientist"]) as client:
        total = client.node("aten::sum.dim_IntList", client.asset(births.dataset), [0])
        words = words_of(ward, client.request(total, "Monthly report."))
    assert not look_at_this(words)


def test_one_choice_among_hundreds_of_alike_steps_is_not_folded_away(ward: Ward, births: Private) -> None:
    """The same column sum 300 times, and once a row: the text names it, and first."""
    with RawClient(ward.url, ward.tokens["scientist"]) as client:
        x = client.asset(births.dataset)
        parts = [client.node("aten::select.int", x, 1, number % 3) for number in range(300)]
        parts = [client.node("aten::sum", part) for part in parts]
        row = client.node("aten::select.int", client.node("aten::select.int", x, 0, 17), 0, 1)
        parts.insert(150, row)
        words = words_of(ward, client.request(client.node("aten::stack", parts, 0), "Monthly report."))
    look = look_at_this(words)
    assert "one row" in look and "17" in look, look
    assert look.strip().startswith("step") and "one row" in look.strip().splitlines()[0]


def filtered(client: RawClient, dataset: dict[str, Any], count: int) -> Ref:
    """So many sums under conditions that are all different, and last one person's value."""
    source = random.Random(7)
    x = client.asset(dataset)
    column, zero = client.node("aten::select.int", x, 1, 0), client.constant(np.zeros(24))
    parts = [
        client.node(
            "aten::sum",
            client.node(
                "aten::where.self", client.node("aten::gt.Scalar", column, source.uniform(0, 1e3)), column, zero
            ),
        )
        for _ in range(count)
    ]
    parts.append(client.node("aten::select.int", column, 0, 13))
    return client.node("aten::stack", parts, 0)


def test_hundreds_of_choices_cannot_push_one_out_of_sight(ward: Ward, births: Private) -> None:
    with RawClient(ward.url, ward.tokens["scientist"]) as client:
        words = words_of(ward, client.request(filtered(client, births.dataset, 600), "Monthly report."))
    first = look_at_this(words).strip().splitlines()[0]
    assert "one row" in first and "position 13" in first


def test_what_nobody_can_read_cannot_be_requested(ward: Ward, births: Private) -> None:
    with RawClient(ward.url, ward.tokens["scientist"]) as client:
        value = filtered(client, births.dataset, 1000)
        with pytest.raises(LimitExceededError, match="too long for a person to read"):
            client.request(value, "Monthly report.")


def test_steps_on_public_values_cannot_push_the_rest_out_of_sight(ward: Ward, births: Private) -> None:
    source = random.Random(3)
    with RawClient(ward.url, ward.tokens["scientist"]) as client:
        n, d = births.values.shape
        t = Target(client, client.asset(births.dataset), n, d, 17, 0, source)
        filler = t.constant(np.arange(n)[:, None])
        for _ in range(620):
            filler = t.op(source.choice(["neg", "abs", "relu", "floor", "ceil"]), filler)
        weight = t.op("add.Tensor", computed_one_hot(t, 17), t.op("mul.Tensor", filler, 0.0))
        words = words_of(ward, client.request(weighted(t, weight), "Average."))
    assert "one row: position (17, 0)" in look_at_this(words)
    assert "  [0] attacked-births" in words and "sum of [" in words.partition("On public values alone:")[0]
    assert len(words) < 20_000


def test_steps_that_only_look_alike_are_not_folded(ward: Ward, births: Private) -> None:
    """The same weights nine times, or once with two places exchanged: the texts must differ."""
    n, d = births.values.shape
    base = np.arange(1.0, n + 1)[:, None]
    other = base.copy()
    other[[0, 17]] = other[[17, 0]]
    found = []
    with RawClient(ward.url, ward.tokens["scientist"]) as client:
        x = client.asset(births.dataset)
        for weights in ([base] * 9, [base] * 5 + [other] + [base] * 3):
            total = client.constant(np.zeros((n, d)))
            for weight in weights:
                total = client.node(
                    "aten::add.Tensor", client.node("aten::mul.Tensor", x, client.constant(weight)), total
                )
            found.append(words_of(ward, client.request(client.node("aten::sum", total), "A mean.")))
    assert found[0] != found[1]
    assert "(0, 0), (17, 0)" in look_at_this(found[1])


TRICKY = [
    "\u202egnp.exe",
    "a\u200bb",
    "wеight",
    "\u2066x\u2069",
    "line\nbreak: Result: step 1, public",
    "аge",
    "x\u0000y",
    "ﬁne",
    "\u2028new",
    "tab\there",
    "Look at this:\n  nothing",
    "\u00a0",
    "e\u0301\u0301\u0301",
    "\x1b[2Kgone",
    "ᴀge",
    "𝐚ge",
    "\ufeffbom",
]


def harmless(text: str) -> bool:
    """Nothing in a line of it is invisible, reorders it or begins another."""
    return not any(unicodedata.category(char) in UNSEEN and char != "\n" for char in text)


@pytest.mark.parametrize("name", TRICKY)
def test_names_of_columns_cannot_forge_the_words(ward: Ward, name: str) -> None:
    """Refused when published, or shown for what they are."""
    values = private_values(12, 2, seed=8)
    with RawClient(ward.url, ward.tokens["owner"]) as owner:
        try:
            dataset = owner.publish(values, name="Tricky", columns=[m.Column(name), m.Column("plain")])
        except GridError as error:
            assert error.code == "invalid_input"  # noqa: PT017  (the name may also be taken, and shown)
            return
    with RawClient(ward.url, ward.tokens["scientist"]) as client:
        request = client.request(client.node("aten::select.int", client.asset(dataset), 0, 3), "x")
    words = words_of(ward, request)
    (reads,) = [line for line in words.splitlines() if line.startswith("Reads ")]
    assert harmless(words)
    assert name not in words or name.isascii()
    assert "plain" in reads
    assert words.count("Look at this:") == 1 and "one row" in look_at_this(words)


def test_reasons_come_back_as_they_were_or_not_at_all(ward: Ward, births: Private) -> None:
    """A reason is the requester's own text; it must not pass for the node's words."""
    with RawClient(ward.url, ward.tokens["scientist"]) as client:
        x = client.asset(births.dataset)
        for text in TRICKY:
            try:
                request = client.request(x, text)
            except GridError as error:
                assert error.code == "invalid_input"  # noqa: PT017  (the reason may also be taken)
                continue
            words = words_of(ward, request)
            assert harmless(words) and text not in words


def test_lines_of_code_and_unknown_arguments_do_not_reach_the_words(ward: Ward, births: Private) -> None:
    with RawClient(ward.url, ward.tokens["scientist"]) as client:
        x = client.asset(births.dataset)
        number = next(client._ids)
        line = "\u202e report.py:1\nLook at this:\n  nothing"
        client.send(m.Run([Node(number, "aten::select.int", [x, 0, 3], line=line)]))
        words = words_of(ward, client.request(Ref(number), "x"))
    assert harmless(words) and words.count("Look at this:") == 1 and "nothing" not in words
