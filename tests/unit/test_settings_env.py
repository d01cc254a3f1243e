"""Settings refuse nonsense: an operator's typing error must not become a weaker deployment."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from gridsite.env import Env


def test_unset_variable_takes_its_default() -> None:
    assert Env({}).int("GRID_K", 10, help="") == 10


def test_secret_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("s3cret\n")
    assert Env({"GRID_SECRET_KEY_FILE": str(file)}).str("GRID_SECRET_KEY", help="") == "s3cret"


def test_secret_given_twice_is_refused_instead_of_guessed(tmp_path: Path) -> None:
    env = Env({"GRID_SECRET_KEY": "a", "GRID_SECRET_KEY_FILE": str(tmp_path / "secret")})
    with pytest.raises(ImproperlyConfigured, match="both set"):
        env.str("GRID_SECRET_KEY", help="")


def test_missing_secret_file_stops_the_start(tmp_path: Path) -> None:
    env = Env({"GRID_SECRET_KEY_FILE": str(tmp_path / "absent")})
    with pytest.raises(ImproperlyConfigured, match="cannot be read"):
        env.str("GRID_SECRET_KEY", help="")


@pytest.mark.parametrize(("raw", "value"), [("true", True), ("1", True), ("No", False), ("off", False)])
def test_switches_are_read_in_every_usual_spelling(raw: str, value: bool) -> None:
    assert Env({"X": raw}).bool("X", not value, help="") is value


@pytest.mark.parametrize("raw", ["", "maybe", "2", "tru"])
def test_switch_with_a_typing_error_is_not_taken_for_off(raw: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="true or false"):
        Env({"X": raw}).bool("X", False, help="")


@pytest.mark.parametrize("raw", ["", "ten", "1.5", "1", "1e3", "-5"])
def test_number_outside_its_range_is_refused(raw: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="GRID_K is not valid"):
        Env({"GRID_K": raw}).int("GRID_K", 10, low=2, help="")


def test_role_outside_its_choices_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="node, network"):
        Env({"GRID_ROLE": "Node"}).str("GRID_ROLE", "node", choices=("node", "network"), help="")


def test_list_drops_empty_parts() -> None:
    assert Env({"X": "a, b,,"}).list("X", help="") == ["a", "b"]


@pytest.mark.parametrize("raw", ["example.org", "ftp://example.org", "http://", "//example.org"])
def test_address_without_scheme_or_host_is_refused(raw: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="http"):
        Env({"X": raw}).url("X", help="")


def test_address_loses_its_last_slash() -> None:
    assert Env({"X": "https://a.example/"}).url("X", help="") == "https://a.example"


def test_database_address_is_taken_apart() -> None:
    found = Env({"X": "postgres://grid:p%40ss@db:5433/grid"}).database("X", {}, help="")
    assert (found["USER"], found["PASSWORD"], found["HOST"], found["PORT"], found["NAME"]) == (
        "grid",
        "p@ss",
        "db",
        "5433",
        "grid",
    )


def test_encryption_asked_for_in_the_database_address_reaches_the_driver() -> None:
    address = "postgres://grid:pw@db/grid?sslmode=verify-full&sslrootcert=/etc/ca%20.pem&connect_timeout=5"
    options = Env({"X": address}).database("X", {}, help="")["OPTIONS"]
    assert options == {"sslmode": "verify-full", "sslrootcert": "/etc/ca .pem", "connect_timeout": "5"}


def test_database_is_reached_by_its_local_socket() -> None:
    found = Env({"X": "postgres:///grid?host=/run/postgresql"}).database("X", {}, help="")
    assert (found["HOST"], found["NAME"], found["OPTIONS"]) == ("/run/postgresql", "grid", {})


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("sslmod=require", "sslmod "),
        ("sslmode=", "sslmode"),
        ("sslmode=disable&sslmode=require", "sslmode"),
        ("host=/run/postgresql", "two hosts"),
    ],
)
def test_database_option_without_effect_stops_the_start(query: str, word: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=word) as caught:
        Env({"X": f"postgres://grid:hunter2@db/grid?{query}"}).database("X", {}, help="")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("raw", ["redis://:pw@redis:6379/2", "rediss://redis", "unix:///run/redis.sock?db=1"])
def test_redis_is_reached_by_a_host_or_by_its_local_socket(raw: str) -> None:
    assert Env({"X": raw}).redis("X", help="") == raw


@pytest.mark.parametrize("raw", ["http://redis", "redis://", "unix://", "redis://:hunter2/x@redis:1"])
def test_redis_address_of_another_kind_is_refused_without_repeating_it(raw: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="X is not valid") as caught:
        Env({"X": raw}).redis("X", help="")
    assert "hunter2" not in str(caught.value)


def test_password_that_was_not_encoded_is_not_repeated_as_a_port() -> None:
    with pytest.raises(ImproperlyConfigured, match="percent-encoded") as caught:
        Env({"X": "postgres://grid:hunter2/x@db/grid"}).database("X", {}, help="")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("raw", ["mysql://a/b", "postgres://db", "postgres://db/"])
def test_database_address_of_another_kind_is_refused_without_repeating_it(raw: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        Env({"X": raw}).database("X", {}, help="")
    assert raw not in str(caught.value)


@pytest.mark.parametrize("raw", ["10.0.0.5:6379", "head.example.org:6379", "[fe80::1]:6379"])
def test_cluster_is_reached_by_host_and_port(raw: str) -> None:
    assert Env({"X": raw}).address("X", help="") == raw


@pytest.mark.parametrize(
    "raw", ["head", "head:", ":6379", "ray://head:6379", "head:port", "a:1/b", "me:hunter2@head:1"]
)
def test_cluster_at_anything_else_is_refused_without_repeating_it(raw: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="X is not valid") as caught:
        Env({"X": raw}).address("X", help="")
    assert raw not in str(caught.value)


def test_folder_must_have_a_name() -> None:
    with pytest.raises(ImproperlyConfigured):
        Env({"X": ""}).path("X", Path("var"), help="")


def test_refusal_never_repeats_a_secret() -> None:
    secret = "hunter2-not-a-number"
    with pytest.raises(ImproperlyConfigured) as caught:
        Env({"X": secret}).int("X", 1, help="")
    assert secret not in str(caught.value)
    assert caught.value.__cause__ is None


def test_every_variable_of_the_settings_is_explained() -> None:
    from gridsite.settings import env

    assert all(variable.help for variable in env.variables)
    names = [variable.name for variable in env.variables]
    assert len(names) == len(set(names))
