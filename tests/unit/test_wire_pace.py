"""A token bucket: bursts pass, whoever goes on too fast waits as long as it takes, and rest is given back."""

from __future__ import annotations

import pytest

from apps.wire.pace import Bucket


def test_a_burst_passes_and_what_is_beyond_it_waits() -> None:
    bucket = Bucket(100, 0.0)
    assert [bucket.spend(50, 0.0), bucket.spend(50, 0.0)] == [0.0, 0.0]
    assert bucket.spend(25, 0.0) == pytest.approx(0.25)


def test_rest_is_given_back_up_to_a_second() -> None:
    bucket = Bucket(100, 0.0)
    bucket.spend(100, 0.0)
    assert bucket.spend(40, 0.5) == 0.0
    assert not bucket.is_full(0.6)
    assert bucket.is_full(60.0)
    assert bucket.spend(100, 60.0) == 0.0
    assert bucket.spend(1, 60.0) == pytest.approx(0.01)
