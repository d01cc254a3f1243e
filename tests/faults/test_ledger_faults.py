"""A crash, a restored backup or a second copy of a node never lets anybody spend a budget twice."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from apps.network import announcements
from apps.network.messages import NamedHead
from apps.network.models import Node as Member
from tests.factories import databases
from tests.factories.ledger_node import STEPS, Node
from tests.factories.network import NOW, acting_as, member, push_of
from tests.factories.people import People

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Node:
    """A deployment with people and a dataset, from which nothing was asked."""
    folder = tmp_path_factory.mktemp(f"ledger_{request.param}")
    node = Node(folder, databases.make_database(folder.name) if request.param == "postgres" else "")
    node.run("prepare")
    return node


@pytest.fixture
def node(prepared: Node, tmp_path: Path) -> Node:
    """A copy of it."""
    name = f"{tmp_path.name}_{'pg' if prepared.database else 'lite'}"
    return prepared.copy(tmp_path / name)


def line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    return dict(json.loads(process.stdout.readline()))


@pytest.mark.parametrize("how", ["die", "cut"])
def test_killed_or_without_power_at_any_step_nothing_is_answered_that_was_not_charged_and_nothing_is_drawn_twice(
    node: Node, how: str
) -> None:
    kept: dict[str, list[str] | None] = {
        "transaction": None,
        "committed": ["charged", ""],
        "charged": ["charged", ""],
        "attempted": ["charged", ""],
        "answered": ["answered", "answered"],
        "head": ["answered", "head"],
        "delivered": ["delivered", "delivered"],
    }
    expected: dict[str, list[str]] = {}
    # Each process finds what the last one left, ends it, and is killed one step later.
    for before, step in zip((None, *STEPS), (*STEPS, "never"), strict=True):
        found = node.run(how, step, step)
        assert found["killed"] == (step != "never")
        assert (found["problem"], found["whole"], found["frozen"]) == ("", "", "")
        if before is None:
            continue
        assert found["releases"].get(before) == kept[before]
        if (state := kept[before]) is not None:
            # The draw that was kept is the one that is delivered; without one, the next process makes it.
            expected[before] = ["delivered", state[1] or "second"]
        if before in ("head", "delivered"):
            assert found["head"] == len(expected), "a head that an answer waited for is not lost"
        one = found["spent"] // max(1, len(expected))
        assert found["spent"] == one * len(expected) and bool(one) == bool(expected), "what was charged stays charged"
        assert found["after"]["releases"] == expected
        assert (found["after"]["spent"], found["after"]["whole"]) == (found["spent"], "")


def test_of_fifty_that_race_for_the_last_unit_none_gets_more_than_there_is(node: Node) -> None:
    processes = [node.start("race", f"client {number}", "13") for number in range(4)]
    for process in processes:
        assert line(process) == {"ready": True}
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [json.loads(process.communicate()[0]) for process in processes]
    charged, refused = (sum(each[name] for each in said) for name in ("charged", "refused"))
    found = node.run("start")
    assert (found["whole"], len(found["releases"]), charged + refused) == ("", charged, 52)
    one = found["spent"] // charged
    assert found["spent"] == charged * one <= found["cap"] < (charged + 1) * one
    assert charged > 5


def test_a_restored_database_spends_nothing_until_two_people_open_a_new_epoch(node: Node, tmp_path: Path) -> None:
    node.run("die", "never", "before")
    backup = node.copy(tmp_path / f"{node.folder.name}_b", keys=node.folder / "keys")
    node.run("die", "never", "after")
    # Database and storage are put back together; the keys with the outside head are where they were.
    assert "frozen" in backup.run("charge", "k")["refused"]
    found = backup.run("start")
    assert "names release 2" in found["problem"] and found["frozen"]
    assert list(found["releases"]) == ["before"] and "names release 2" in found["whole"]
    assert "frozen" in backup.run("charge", "k")["refused"]
    opened = backup.run("epoch")
    assert (opened["frozen"], opened["whole"]) == ("", "")
    assert backup.run("charge", "k")["refused"] == ""
    # And now it is the original that is the older one.
    assert "frozen" in node.run("charge", "k")["refused"]


@pytest.mark.django_db(transaction=True)
def test_database_and_keys_of_yesterday_together_spend_nothing_after_the_first_heartbeat(
    node: Node, tmp_path: Path, people: People
) -> None:
    network: list[Member] = []

    def heartbeat(of: Node) -> dict[str, Any]:
        """Let the node show its heads to the network, and hear the answer."""
        process = of.start("heartbeat")
        said = line(process)
        if not network:
            network.append(member("hospital", people.administrator))
            network[0].public_key = said["key"]
            network[0].save()
        with acting_as("grid", "network") as key:
            push = push_of(base=None, heads=msgspec.convert(said["heads"], list[NamedHead]))
            seen = announcements.receive(push, key=said["key"], now=NOW).heads
        return dict(json.loads(process.communicate(json.dumps([key, msgspec.to_builtins(seen)]) + "\n")[0]))

    node.run("die", "never", "before")
    restored = node.copy(tmp_path / f"{node.folder.name}_y")  # with its keys, as they are at this moment
    node.run("die", "never", "after")
    found = heartbeat(node)
    assert (found["frozen"], found["whole"], found["audit"]) == ("", "", "")

    assert restored.run("start")["problem"] == "", "database and keys fit each other"
    found = heartbeat(restored)
    words = "the head that the network counter-signed names release 2"
    assert words in found["frozen"] and words in found["whole"]
    assert "the head that the network counter-signed" in found["audit"]
    assert "frozen" in restored.run("charge", "k")["refused"]
    assert restored.run("epoch")["frozen"] == ""
    assert heartbeat(restored)["frozen"] == "", "what two people have written down is not held against it again"
    assert restored.run("charge", "k")["refused"] == ""


def test_a_copy_beside_the_original_is_refused_and_takes_over_only_after_its_end(node: Node, tmp_path: Path) -> None:
    node.run("die", "never", "first")
    clone = node.copy(tmp_path / f"{node.folder.name}_c", keys=node.folder / "keys")
    original = node.start("charge", "second", "wait")
    assert line(original) == {"refused": ""}
    assert "copy" in clone.run("charge", "k")["refused"]
    assert node.run("charge", "beside")["refused"] == "", "another process of the same deployment works"
    original.kill()
    original.communicate()
    # The lock has died with its process; what was spent meanwhile is still not the copy's to spend.
    assert "frozen" in clone.run("charge", "k")["refused"]
    assert node.run("charge", "third")["refused"] == "", "a restart on the same machine goes on at once"


def test_a_charge_and_an_answer_wait_for_the_disk_whatever_the_server_does_elsewhere(node: Node) -> None:
    # The server of the tests has synchronous_commit off. An answer that is lost after it left would be drawn twice.
    safe = "on" if node.database else 2
    found = node.run("promised")
    assert (found["charge"], found["answer"]) == (safe, safe)
