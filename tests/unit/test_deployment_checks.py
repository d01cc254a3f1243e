"""A deployment that would give secrets away does not start, and says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from pytest_django.fixtures import Settings

PRODUCTION: dict[str, Any] = {
    "SECRET_KEY": "2b7e151628aed2a6abf7158809cf4f3c762e7160f38b4da56a784d9045190cfe",
    "GRID_DEVELOPMENT": False,
    "GRID_URL": "https://hospital.example.org",
    "ALLOWED_HOSTS": ["hospital.example.org"],
}


@pytest.fixture(autouse=True)
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel of this machine allows is no matter of these tests."""
    monkeypatch.setattr("gridsite.checks.can_isolate", lambda: True)


def found() -> list[CheckMessage]:
    return run_checks(tags=["grid"], include_deployment_checks=True)


def apply(settings: Settings, **changes: Any) -> None:
    for name, value in (PRODUCTION | changes).items():
        setattr(settings, name, value)


def test_production_as_documented_passes(settings: Settings) -> None:
    apply(settings)
    assert found() == []


def test_development_on_this_machine_passes(settings: Settings) -> None:
    apply(settings, GRID_DEVELOPMENT=True, GRID_URL="http://127.0.0.1:8000", ALLOWED_HOSTS=["127.0.0.1"])
    assert found() == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"SECRET_KEY": ""}, "grid.E001"),
        ({"SECRET_KEY": "short"}, "grid.E001"),
        ({"SECRET_KEY": "ab" * 40}, "grid.E001"),
        ({"GRID_DEVELOPMENT": True}, "grid.E002"),
        (
            {"GRID_DEVELOPMENT": True, "GRID_URL": "http://192.168.0.7:8000", "ALLOWED_HOSTS": ["192.168.0.7"]},
            "grid.E002",
        ),
        ({"GRID_URL": "http://hospital.example.org"}, "grid.E003"),
        ({"ALLOWED_HOSTS": ["other.example.org"]}, "grid.E004"),
        ({"ALLOWED_HOSTS": ["*", "hospital.example.org"]}, "grid.E005"),
        ({"GRID_WORKERS": "ray"}, "grid.E007"),
    ],
)
def test_weak_setting_is_refused(settings: Settings, changes: dict[str, Any], code: str) -> None:
    apply(settings, **changes)
    assert [message.id for message in found()] == [code]


def test_refusal_does_not_print_the_secret(settings: Settings) -> None:
    apply(settings, SECRET_KEY="hunter2")
    assert "hunter2" not in "".join(f"{message.msg} {message.hint}" for message in found())


def test_keys_that_others_can_read_are_refused(settings: Settings, tmp_path: Path) -> None:
    apply(settings, GRID_KEYS_DIR=tmp_path / "open")
    (tmp_path / "open").mkdir(mode=0o755)
    assert [message.id for message in found()] == ["grid.E006"]


def test_a_node_whose_cluster_is_named_starts_and_one_without_ray_says_what_to_install(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(settings, GRID_WORKERS="ray", GRID_RAY_ADDRESS="10.0.0.5:6379")
    assert found() == []
    monkeypatch.setattr("gridsite.checks.find_spec", lambda name: None)
    assert [message.id for message in found()] == ["grid.E008"]


def test_operator_learns_when_workers_keep_the_network(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(settings)
    monkeypatch.setattr("gridsite.checks.can_isolate", lambda: False)
    assert [message.id for message in found()] == ["grid.W001"]
