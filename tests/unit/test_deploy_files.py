"""The files that a deployment is started with are sound: parsed, held against rules. No engine runs them here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from dockerfile_parse import DockerfileParser

from gridsite import settings as declared

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
SECRET = re.compile(r"(?i)(passw|secret|token|private|credential|api_?key)")


@pytest.fixture(scope="module")
def dockerfile(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Its instructions: {instruction, value}."""
    # The parser may write what it parses.
    copy = tmp_path_factory.mktemp("docker") / "Dockerfile"
    copy.write_text((DEPLOY / "Dockerfile").read_text())
    return [each for each in DockerfileParser(str(copy)).structure if each["instruction"] != "COMMENT"]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text()))


def values(dockerfile: list[dict[str, Any]], instruction: str) -> list[str]:
    return [each["value"] for each in dockerfile if each["instruction"] == instruction]


def test_bases_are_pinned_and_small(dockerfile: list[dict[str, Any]]) -> None:
    bases = values(dockerfile, "FROM")
    assert len(bases) == 2
    assert all(re.match(r"python:3\.11\.\d+-slim-\w+( AS \w+)?$", base) for base in bases)


def test_image_runs_as_somebody_without_rights(dockerfile: list[dict[str, Any]]) -> None:
    last = max(number for number, each in enumerate(dockerfile) if each["instruction"] == "FROM")
    users = values(dockerfile[last:], "USER")
    assert users == ["grid"]
    after = [each["instruction"] for each in dockerfile[[each["instruction"] for each in dockerfile].index("USER") :]]
    assert "RUN" not in after and "COPY" not in after and "ADD" not in after
    assert "useradd --uid 10001" in " ".join(values(dockerfile, "RUN"))


def test_image_holds_no_secret_and_fetches_nothing_unseen(dockerfile: list[dict[str, Any]]) -> None:
    for each in dockerfile:
        if each["instruction"] in ("ENV", "ARG", "LABEL"):
            assert not SECRET.search(each["value"])
        assert each["instruction"] != "ADD"
        if each["instruction"] == "COPY":
            assert each["value"].split()[0] not in (".", "./")
        if each["instruction"] == "RUN":
            assert not re.search(r"curl|wget|sudo|chmod 777", each["value"])


def test_image_says_how_it_is(dockerfile: list[dict[str, Any]]) -> None:
    (check,) = values(dockerfile, "HEALTHCHECK")
    assert "/readyz" in check
    json.loads(check[check.index("[") :])
    for instruction in ("ENTRYPOINT", "CMD"):
        (value,) = values(dockerfile, instruction)
        assert isinstance(json.loads(value), list)  # no shell in between that keeps signals


def test_image_is_made_of_what_exists(dockerfile: list[dict[str, Any]]) -> None:
    copied = [each.split()[0] for each in values(dockerfile, "COPY") if not each.startswith("--from")]
    assert all((ROOT / source).exists() for source in copied)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) == allowed
    # Every room that the server needs is in it.
    assert {"apps", "gridsite", "client_sdk", "templates", "static", "manage.py", "requirements.txt"} == allowed


def test_python_of_the_image_is_the_projects(dockerfile: list[dict[str, Any]]) -> None:
    assert "py311" in (ROOT / "pyproject.toml").read_text()
    client = re.search(r"postgresql-client-(\d+)", " ".join(values(dockerfile, "RUN")))
    server = re.search(r"postgres:(\d+)", (DEPLOY / "compose.yaml").read_text())
    assert client and server and client[1] == server[1], "pg_dump refuses a newer server"


def test_every_container_is_sealed(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "privileged" not in service and "network_mode" not in service, name
        limits = service["deploy"]["resources"]["limits"]
        assert set(limits) == {"cpus", "memory", "pids"}, name
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert not any("docker.sock" in str(volume) for volume in service.get("volumes", [])), name


def test_images_are_pinned(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert re.search(r":\d", service["image"]), name


def test_nothing_starts_before_what_it_needs(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in compose["services"]
            assert how == {"condition": "service_healthy"}


def test_only_the_proxy_can_be_reached(compose: dict[str, Any]) -> None:
    assert [name for name, service in compose["services"].items() if "ports" in service] == ["proxy"]
    assert compose["networks"]["inside"]["internal"] is True
    for name, service in compose["services"].items():
        assert set(service["networks"]) <= set(compose["networks"])
        assert "outside" not in service["networks"] or name == "proxy"
    web = compose["services"]["web"]["environment"]
    assert web["GRID_PROXIES"] == compose["networks"]["inside"]["ipam"]["config"][0]["subnet"]


def test_secrets_are_files_and_never_in_the_environment(compose: dict[str, Any]) -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    for service in compose["services"].values():
        for name, value in service["environment"].items() if "environment" in service else ():
            if SECRET.search(name) or "DATABASE_URL" in name:
                assert name.endswith("_FILE"), name
                assert value.removeprefix("/run/secrets/") in service["secrets"]
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
    assert all(set(secret) == {"file"} for secret in compose["secrets"].values())
    assert re.findall(r"://[^/\s:]+:(?!THE-PASSWORD)[^/\s@]+@", text) == []


def test_settings_that_are_given_exist(compose: dict[str, Any]) -> None:
    known = {variable.name for variable in declared.env.variables}
    given = {name.removesuffix("_FILE") for name in compose["services"]["web"]["environment"]}
    assert given <= known
    assert "GRID_DEVELOPMENT" not in given


def test_values_and_keys_lie_apart(compose: dict[str, Any]) -> None:
    volumes = [volume.split(":")[0] for volume in compose["services"]["web"]["volumes"]]
    assert volumes == ["storage", "keys"]
    for name, service in compose["services"].items():
        if name != "web":
            assert not {"storage", "keys"} & {str(volume).split(":")[0] for volume in service.get("volumes", [])}


def test_sessions_fit_into_the_memory_of_their_container(compose: dict[str, Any]) -> None:
    web = compose["services"]["web"]
    limit = int(web["deploy"]["resources"]["limits"]["memory"].removesuffix("G")) * 2**30
    most = int(web["environment"]["GRID_MAX_SESSIONS"]) * int(web["environment"]["GRID_SESSION_MEMORY"])
    assert most + 2 * 2**30 <= limit


def test_image_and_compose_ask_for_health_in_the_same_words(
    dockerfile: list[dict[str, Any]], compose: dict[str, Any]
) -> None:
    (check,) = values(dockerfile, "HEALTHCHECK")
    assert json.loads(check[check.index("[") :]) == compose["services"]["web"]["healthcheck"]["test"][1:]


def test_proxy_keeps_what_is_for_machines_inside() -> None:
    text = (DEPLOY / "Caddyfile").read_text()
    assert text.count("{") == text.count("}")
    assert "@machines path /healthz /readyz /metrics" in text
    assert "respond @machines 404" in text
    assert "name web" in text and "port 8000" in text


def test_scraper_asks_each_process_with_the_token(compose: dict[str, Any]) -> None:
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    assert job["dns_sd_configs"][0]["names"] == ["web"]
    assert (
        job["authorization"]["credentials_file"] == compose["services"]["web"]["environment"]["GRID_METRICS_TOKEN_FILE"]
    )
