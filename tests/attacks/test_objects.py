"""Attacks 3 and 4: destroy or take what is another's, or find out that it exists.

What a user would lose: their dataset, request or token to a stranger; and with existence alone, that a register of
such a kind is kept at all.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from gridclient.program.graph import Ref
from gridclient.wire import messages as m
from gridclient.wire.errors import GridError
from gridclient.wire.frames import pack_chunk
from tests.attacks.conftest import Private
from tests.attacks.ward import Ward, private_values
from tests.factories.raw import RawClient


@dataclass(frozen=True)
class Hidden:
    """What belongs to the owner and is for nobody else: a dataset, a request on it, a grant, a token, a team."""

    private: Private
    request: str
    grant: int
    token: str


@pytest.fixture(scope="module")
def hidden(ward: Ward, secret: Private) -> Hidden:
    slug = secret.dataset["slug"]
    given = {"to": "attack-reviewer", "right": "compute", "reason": "Only the reviewer."}
    status, grant = ward.call("owner", "POST", f"datasets/{slug}/grants/", given)
    assert status == 201
    reviewer = ward.client("reviewer")
    request = reviewer.request(reviewer.asset(secret.dataset), "The reviewer's own.")
    status, token = ward.call("owner", "POST", "tokens/", {"name": "laptop"})
    assert status == 201, token
    return Hidden(secret, request, grant["id"], token["prefix"])


ABSENT_UUID = "7b0d7e5a-6a53-4f6e-9f3c-1d2e3f4a5b6c"
ABSENT_SLUG = "attacked-nothing"
ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "datasets/{slug}/", None),
    ("PATCH", "datasets/{slug}/", {"name": "Mine now"}),
    ("PATCH", "datasets/{slug}/", {"visibility": "listed"}),
    ("GET", "datasets/{slug}/grants/", None),
    ("POST", "datasets/{slug}/grants/", {"to": "attack-stranger", "right": "read", "reason": "Give it to me."}),
    ("POST", "datasets/{slug}/grants/", {"to": "nobody-at-all", "right": "read", "reason": "Give it to me."}),
    ("DELETE", "datasets/{slug}/", None),
    ("DELETE", "grants/{grant}/", None),
    ("GET", "requests/{request}/", None),
    ("POST", "requests/{request}/approve/", {"reason": "Yes."}),
    ("POST", "requests/{request}/deny/", {"reason": "No."}),
    ("POST", "requests/{request}/withdraw/", {}),
    ("DELETE", "tokens/{token}/", None),
    ("GET", "users/{user}/", None),
    ("PATCH", "users/{user}/", {"password": "taken-over-1234"}),
    ("PATCH", "users/{user}/", {"active": False}),
    ("PATCH", "users/{user}/", {"roles": ["administrator"]}),
    ("POST", "tokens/", {"name": "theirs", "user": "{user}"}),
    ("POST", "datasets/{open}/grants/", {"to": "{user}", "right": "read", "reason": "Whose name is there?"}),
    ("POST", "teams/", {"slug": "mine", "name": "Mine", "members": ["{user}"]}),
    ("POST", "users/", {"username": "{user}", "password": "long-enough-for-all-1", "roles": []}),
]


def filled(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, str):
        return value.format(**names)
    if isinstance(value, dict):
        return {key: filled(item, names) for key, item in value.items()}
    return [filled(item, names) for item in value] if isinstance(value, list) else value


def there(hidden: Hidden, births: Private) -> dict[str, str]:
    return {
        "slug": hidden.private.dataset["slug"],
        "grant": str(hidden.grant),
        "request": hidden.request,
        "token": hidden.token,
        "user": "attack-reviewer",
        "open": births.dataset["slug"],
    }


def nowhere(births: Private) -> dict[str, str]:
    return {
        "slug": ABSENT_SLUG,
        "grant": "987654321",
        "request": ABSENT_UUID,
        "token": "zzzzzzzz",
        "user": "attack-nobodys",
        "open": births.dataset["slug"],
    }


@pytest.mark.parametrize("person", ["stranger", "neighbour", "scientist"])
@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_absent_and_forbidden_look_alike(
    ward: Ward, hidden: Hidden, births: Private, person: str, method: str, path: str, body: Any
) -> None:
    answers = []
    for names in (there(hidden, births), nowhere(births)):
        status, answer = ward.call(person, method, filled(path, names), filled(body, names))
        text = json.dumps(answer, sort_keys=True)
        for name in ("slug", "grant", "request", "token", "user"):
            text = text.replace(names[name], "X")
        answers.append((status, text))
    assert answers[0] == answers[1]
    assert answers[0][0] >= 400


FRAMES: dict[str, Callable[[RawClient, dict[str, Any], str], Any]] = {
    "values": lambda c, d, _: c.get(c.asset(d)),
    "mock": lambda c, d, _: c.get(c.asset(d, "mock")),
    "sum": lambda c, d, _: c.get(c.node("aten::sum.dim_IntList", c.asset(d), [0])),
    "by shape": lambda c, d, _: c.get(c.node("aten::zeros_like", c.asset(d))),
    "count": lambda c, d, _: c.get(c.node("grid::count", c.asset(d))),
    "request": lambda c, d, _: c.request(c.asset(d), "Please."),
    "fetch": lambda c, _, r: c.fetch(r),
    "replace": lambda c, d, _: c.publish(private_values(4, 2, seed=1), replace=d["slug"]),
    "entities of": lambda c, d, _: c.publish(private_values(4, 2, seed=1), entities_of=d["slug"]),
}


@pytest.mark.parametrize("person", ["stranger", "neighbour"])
@pytest.mark.parametrize("kind", FRAMES)
def test_absent_and_forbidden_look_alike_in_frames(ward: Ward, hidden: Hidden, person: str, kind: str) -> None:
    absent = {"id": str(UUID(int=5)), "version": 1, "slug": ABSENT_SLUG}
    told = []
    for dataset, request in ((hidden.private.dataset, hidden.request), (absent, ABSENT_UUID)):
        with RawClient(ward.url, ward.tokens[person]) as client, pytest.raises(GridError) as refused:
            FRAMES[kind](client, dataset, request)
        error = refused.value
        text = repr((type(error), error.message, error.details, [e.message for e in client.errors]))
        for name in (dataset["id"], dataset["slug"], request):
            text = text.replace(str(name), "X")
        told.append(text)
    assert told[0] == told[1]


ROUNDS = 25


@pytest.mark.parametrize("path", ["datasets/{slug}/", "requests/{request}/", "users/{user}/"])
def test_absent_and_forbidden_take_as_long(ward: Ward, hidden: Hidden, births: Private, path: str) -> None:
    """Interleaved samples: medians may not tell the two apart, with room for a busy machine."""
    paths = [filled(path, names) for names in (there(hidden, births), nowhere(births))]
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for which in (0, 1):
            began = time.perf_counter()
            ward.call("stranger", "GET", paths[which])
            times[which].append(time.perf_counter() - began)
    check_not_separable(*times)


def test_absent_and_forbidden_take_as_long_in_frames(ward: Ward, hidden: Hidden) -> None:
    times: list[list[float]] = [[], []]
    with RawClient(ward.url, ward.tokens["stranger"]) as client:
        for number in range(ROUNDS):
            ids = [hidden.private.dataset["id"], str(UUID(int=100 + number))]
            for which in (0, 1):
                began = time.perf_counter()
                with pytest.raises(GridError):
                    client.get(client.asset({"id": ids[which], "version": 1}))
                times[which].append(time.perf_counter() - began)
    check_not_separable(*times)


def check_not_separable(forbidden: list[float], absent: list[float]) -> None:
    """A hidden look at the object would move its median by far more than half of the other's spread and a fifth."""
    gap = abs(statistics.median(forbidden) - statistics.median(absent))
    low, _, high = statistics.quantiles([*forbidden, *absent], n=4)
    assert gap <= max(high - low, 0.5 * min(statistics.median(forbidden), statistics.median(absent)), 0.002)


def test_what_is_anothers_stays_as_it_was(ward: Ward, hidden: Hidden, births: Private) -> None:
    """Random attempts to delete, overwrite, decide or take, by everybody without a right to."""
    before = owned(ward, hidden, births)
    source = random.Random(3)
    for _ in range(80):
        method, path, body = source.choice([route for route in ROUTES if route[0] != "GET"])
        names = there(hidden, births)
        person = source.choice(["stranger", "scientist", "auditor"])
        status, _ = ward.call(person, method, filled(path, names), filled(body, names))
        assert status >= 400, (person, method, path)
    assert owned(ward, hidden, births) == before


def owned(ward: Ward, hidden: Hidden, births: Private) -> Any:
    """What the owner has, in full, and the bytes of it."""
    slugs = [births.dataset["slug"], hidden.private.dataset["slug"]]
    shown = [ward.call("owner", "GET", f"datasets/{slug}/")[1] for slug in slugs]
    grants = [ward.call("owner", "GET", f"datasets/{slug}/grants/")[1] for slug in slugs]
    tokens = [row for row in ward.call("owner", "GET", "tokens/")[1]["results"] if row["prefix"] == hidden.token]
    request = ward.call("reviewer", "GET", f"requests/{hidden.request}/")[1]
    for row in tokens:
        row.pop("last_used")
    return shown, grants, tokens, request["state"], ward.digest(births.dataset), ward.digest(hidden.private.dataset)


def test_replacing_is_for_the_owner(ward: Ward, births: Private) -> None:
    for person in ("neighbour", "scientist", "administrator"):
        with RawClient(ward.url, ward.tokens[person]) as client, pytest.raises(GridError) as refused:
            client.publish(private_values(24, 3, seed=9), replace=births.dataset["slug"])
        assert refused.value.code in ("not_permitted", "publish_not_permitted")
    assert ward.call("owner", "GET", f"datasets/{births.dataset['slug']}/")[1]["version"] == 1


def test_reading_takes_nothing_away(ward: Ward, births: Private) -> None:
    """The original's objects moved to whoever read them: here a drop or a get by one leaves the other's value."""
    source = random.Random(4)
    with RawClient(ward.url, ward.tokens["owner"]) as first, RawClient(ward.url, ward.tokens["owner"]) as second:
        mine, theirs = first.asset(births.dataset), second.asset(births.dataset)
        for _ in range(20):
            second.send(m.Drop([Ref(source.randrange(20)) for _ in range(3)]))
            assert first.get(mine).shape == (24, 3)
        second.send(m.Drop([theirs]))
        assert np.array_equal(first.get(mine), births.values)


def test_uploads_of_others_cannot_be_continued_or_used(ward: Ward) -> None:
    with RawClient(ward.url, ward.tokens["owner"]) as owner, RawClient(ward.url, ward.tokens["neighbour"]) as other:
        transfer = owner.upload(b"x" * 64, "values")
        other.socket.send(pack_chunk(transfer, 0, b"y" * 8))
        reply = other.receive()
        assert isinstance(reply, m.Error) and reply.code == "not_found"
        with pytest.raises(GridError) as refused:
            other.ask(m.Publish(1, m.PublishSpec(kind="tensor", name="taken"), transfer))
        assert refused.value.code == "not_found"
