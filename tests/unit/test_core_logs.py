"""What is written to the log holds no secret, whoever wrote it and however."""

from __future__ import annotations

import io
import json
import logging
import secrets
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django.fixtures import Settings

from apps.accounts import tokens
from apps.core import keys, logs

SECRET = "tr0ub4dor&3"
RANDOM = secrets.token_urlsafe(32) + "aA1"


@pytest.fixture(params=["plain", "json"])
def log(request: pytest.FixtureRequest) -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger with the deployment's own handler, and what it wrote."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.addFilter(logs.SecretFilter())
    handler.setFormatter(logs.JsonFormatter() if request.param == "json" else logging.Formatter("%(message)s"))
    logger = logging.getLogger(f"tests.logs.{request.param}")
    logger.addHandler(handler)
    logger.propagate = False
    yield logger, written
    logger.removeHandler(handler)


LEAKS = {
    "access token": "called with grd_abcd1234_" + "x" * 43,
    "access token, cut": "grd_abcd1234_" + "x" * 10,
    "header as it travels": f"Authorization: Token {SECRET}\r\nHost: x",
    "header in a dict": f"{{'Authorization': 'Token {SECRET}', 'Host': 'x'}}",
    "header in a list of pairs": f"[(b'authorization', b'Token {SECRET}'), (b'host', b'x')]",
    "bearer": f"the word was Bearer {SECRET}",
    "json": f'{{"username": "ana", "password": "{SECRET}"}}',
    "dict": f"{{'username': 'ana', 'new_password': '{SECRET}'}}",
    "list in a dict": f"{{'password': ['x', '{SECRET}']}}",
    "quote in a value": f'{{"password": "a\\"{SECRET}"}}',
    "form": f"username=ana&password={SECRET}&next=/",
    "argument": f"sign_in(username='ana', password='{SECRET}')",
    "cookie": f"Cookie: gridsite_node={SECRET}",
    "session": f"sessionid_token={SECRET}",
    "database": f"postgres://grid:{SECRET}@db:5432/grid",
    "constraint": f"DETAIL: Key (token)=({SECRET}) already exists.",
    "private key": f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
    "private key, cut": f"-----BEGIN ED25519 PRIVATE KEY-----\n{SECRET}",
    "resume token": f"resume: {SECRET}",
    "assertion": f"assertion={{'signature': '{SECRET}'}}",
    "password hash": f"$argon2id$v=19$m=8,t=1,p=1${SECRET}",
}


@pytest.mark.parametrize("name", LEAKS)
def test_secret_is_taken_out_and_the_rest_stays(name: str, log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, written = log
    logger.error("before; %s", LEAKS[name])
    try:
        raise ValueError(LEAKS[name])
    except ValueError as error:
        logger.exception("%s", RuntimeError(error))
    text = written.getvalue()
    assert SECRET not in text
    assert "grd_" not in text
    assert logs.REMOVED in text
    assert "before" in text
    assert "test_core_logs.py" in text  # where it happened


def test_random_bits_and_signatures_are_taken_out_without_a_name() -> None:
    assert RANDOM not in logs.clean(f"the client said {RANDOM} and left")
    resume = secrets.token_hex(32)
    assert resume not in logs.clean(f"came back with {resume}")
    signature = keys.sign("test", b"message")
    assert signature not in logs.clean(f"[{signature}]")
    assert tokens.fresh()[1][13:] not in logs.clean(tokens.fresh()[1])


def test_own_secrets_are_known_by_heart(settings: Settings) -> None:
    settings.GRID_METRICS_TOKEN = "plain words"
    keys.public_key()
    key = (settings.GRID_KEYS_DIR / "signing.key").read_bytes()
    for shown in (settings.SECRET_KEY, "plain words", key.hex(), repr(key), str(list(key))):
        assert shown.strip("b'[]") not in logs.clean(f"x {shown} y")


KEPT = [
    "Session 0a1b2c3d of ana opened with gridclient 1.0.",
    "Approved request 5f0c7f4e-8f0b-4f52-9a0e-3f6a3c1d7a10 failed: InternalError.",
    "session 0a1b2c3d4e5f60718293a4b5c6d7e8f9 ended",
    'File "/usr/lib/python3.11/site-packages/django/db/backends/utils.py", line 105, in _execute',
    "ConflictError at /srv/Gridsite/apps/compute/release.py:123 _permit < /srv/Gridsite/apps/wire/consumer.py:9 go",
    "test_a_reader_who_follows_a_very_long_way_of_words_arrives_in_the_end",
]


@pytest.mark.parametrize("text", KEPT)
def test_what_is_no_secret_stays(text: str) -> None:
    assert logs.clean(text) == text


def test_arguments_that_do_not_fit_are_not_printed_raw(
    log: tuple[logging.Logger, io.StringIO], capsys: pytest.CaptureFixture[str]
) -> None:
    logger, written = log
    logger.error("one %s two %s", SECRET)
    assert SECRET not in written.getvalue() + capsys.readouterr().err
    assert "do not fit" in written.getvalue()


@given(st.text(alphabet="aA1_-:='\"{}[]()tokenpassword \n\\", max_size=300))
def test_any_text_is_cleaned_without_an_error(text: str) -> None:
    logs.clean(text)


@pytest.mark.parametrize("unit", ["a", "aA1", "password", "token=", "_", "'", "grd_", "://", "$argon2", "0", "bearer "])
def test_a_hostile_line_takes_no_time(unit: str) -> None:
    began = time.perf_counter()
    logs.clean(unit * (200_000 // len(unit)))
    assert time.perf_counter() - began < 1


def test_what_is_too_long_is_cut_not_written_unseen() -> None:
    assert len(logs.clean("a " * 100_000)) < logs.LONGEST + 100


def test_lines_of_json_say_whose_session_it_is() -> None:
    record = logging.LogRecord("apps.wire", logging.WARNING, "x.py", 1, "two\nlines %s", ("é",), None)
    with logs.about(session="0a1b2c3d", user="ana"):
        (line,) = logs.JsonFormatter().format(record).splitlines()
    assert json.loads(line) | {"time": ""} == {
        "time": "",
        "level": "WARNING",
        "logger": "apps.wire",
        "message": "two\nlines é",
        "session": "0a1b2c3d",
        "user": "ana",
    }
    assert "session" not in json.loads(logs.JsonFormatter().format(record))


def test_warnings_and_uncaught_errors_go_through_the_log_too(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((sys, "excepthook"), (sys, "unraisablehook"), (logs.threading, "excepthook")):
        monkeypatch.setattr(module, name, getattr(module, name))
    show: Any = warnings.showwarning
    try:
        logs.log_all()
        error = ValueError("broken")
        sys.excepthook(ValueError, error, None)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("careful", UserWarning, stacklevel=1)
    finally:
        logging.captureWarnings(False)
        warnings.showwarning = show
    assert "nobody caught" in caplog.text
    assert "careful" in caplog.text
