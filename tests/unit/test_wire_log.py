"""An operator reads in the log who was here, and a client cannot write lines of its own into it."""

from __future__ import annotations

import logging

import pytest
from django.conf import settings

from apps.wire import log


def test_log_says_who_opened_a_session_and_that_it_ended(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="apps.wire"):
        log.opened("0190b3a0-secret-rest", user="dana", client="gridclient 0.1.0")()
    assert [record.getMessage() for record in caplog.records] == [
        "Session 0190b3a0 of dana opened with gridclient 0.1.0.",
        "Session 0190b3a0 of dana ended after 0 s.",
    ]


def test_client_writes_no_line_of_its_own_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="apps.wire"):
        log.opened("0190b3a0", user="dana", client="x\nERROR forged\x1b[2J" + "y" * 1000)
    opened = caplog.records[0].getMessage()
    assert "\n" not in opened and "\x1b" not in opened and len(opened) < 150


def test_refusals_and_sockets_do_not_drown_what_matters() -> None:
    quiet = settings.LOGGING["loggers"]
    assert (quiet["django.request"]["level"], quiet["uvicorn.error"]["level"]) == ("ERROR", "WARNING")
