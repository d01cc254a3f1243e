"""The database thread: what has begun there is not left alone."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from apps.core.database import Together, in_database


def test_who_is_cancelled_cleans_up_only_after_what_has_begun() -> None:
    """A publication that is cut while it commits must not lose the files that the commit has moved into place."""
    order: list[str] = []
    begun = threading.Event()

    def commit() -> None:
        order.append("begins")
        begun.set()
        time.sleep(0.2)
        order.append("committed")

    async def publish() -> None:
        try:
            await in_database(commit)
        finally:
            order.append("cleaned up")

    async def scenario() -> None:
        publishing = asyncio.create_task(publish())
        await asyncio.to_thread(begun.wait)
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing

    asyncio.run(scenario())
    assert order == ["begins", "committed", "cleaned up"]


class TestTogether:
    """Who waits at the same time is served in one transaction, and nobody suffers for another."""

    @staticmethod
    def outcomes(function: Any, *given: int, cancel: int | None = None) -> list[Any]:
        """What becomes of calls that all wait for the database thread."""
        together = Together[int, int](function)
        free = threading.Event()

        async def scenario() -> list[Any]:
            busy = asyncio.create_task(in_database(free.wait))
            await asyncio.sleep(0)
            calls = [asyncio.create_task(together(each)) for each in given]
            await asyncio.sleep(0)
            if cancel is not None:
                calls[cancel].cancel()
                await asyncio.sleep(0)
            free.set()
            found = await asyncio.gather(*calls, return_exceptions=True)
            await busy
            return found

        return asyncio.run(scenario())

    def test_those_who_wait_are_one_call_and_each_has_its_own_answer(self) -> None:
        calls: list[list[int]] = []

        def twice(given: list[int]) -> list[Any]:
            calls.append(given)
            return [ValueError("odd") if each % 2 else 2 * each for each in given]

        two, odd, eight = self.outcomes(twice, 2, 3, 4)
        assert (two, eight) == (4, 8)
        assert isinstance(odd, ValueError)
        assert calls == [[2, 3, 4]]

    def test_what_fails_for_all_of_them_is_tried_for_each_by_itself(self) -> None:
        def divided(given: list[int]) -> list[Any]:
            return [12 // each for each in given]

        assert [type(each) for each in self.outcomes(divided, 3, 0, 4)] == [int, ZeroDivisionError, int]

    def test_whoever_else_waits_does_not_wait_for_all_who_are_tried_by_themselves(self) -> None:
        served: list[Any] = []

        def locked(given: list[int]) -> list[Any]:
            served.append(given)
            raise TimeoutError

        together = Together[int, int](locked)
        free = threading.Event()

        async def scenario() -> list[Any]:
            busy = in_database(free.wait)
            calls = [asyncio.create_task(each) for each in (busy, together(1), together(2))]
            calls.append(asyncio.create_task(in_database(served.append, "another")))
            await asyncio.sleep(0)
            free.set()
            return await asyncio.gather(*calls, return_exceptions=True)

        assert [type(each) for each in asyncio.run(scenario())[1:3]] == [TimeoutError, TimeoutError]
        assert served == [[1, 2], "another", [1], [2]]

    def test_nobody_waits_for_ever_whatever_happens_to_the_call(self) -> None:
        class Stopped(BaseException):
            pass

        def stop(given: list[int]) -> list[Any]:
            raise Stopped

        assert [type(each) for each in self.outcomes(stop, 1, 2)] == [Stopped, Stopped]

    def test_who_left_while_waiting_is_not_served(self) -> None:
        served: list[int] = []

        def serve(given: list[int]) -> list[Any]:
            served.extend(given)
            return given

        found = self.outcomes(serve, 1, 2, 3, cancel=1)
        assert (found[0], found[2]) == (1, 3)
        assert isinstance(found[1], asyncio.CancelledError)
        assert served == [1, 3]

    def test_a_crowd_is_served_in_parts(self) -> None:
        sizes: list[int] = []

        def serve(given: list[int]) -> list[Any]:
            sizes.append(len(given))
            return given

        assert self.outcomes(serve, *range(150)) == list(range(150))
        assert sizes == [64, 64, 22]
