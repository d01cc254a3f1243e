"""What the container runs, run here: its command, its environment, its health check, its end."""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from dockerfile_parse import DockerfileParser

from tests.factories import databases
from tests.factories.processes import wait_until

ROOT = Path(__file__).resolve().parents[2]
HOST = "node.example.org"


def exec_form(text: str) -> list[str]:
    return [str(each) for each in json.loads(text[text.index("[") :])]


@dataclass
class Container:
    port: int
    health: list[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes]
    log: Path

    def healthy(self) -> bool:
        return subprocess.run(self.health, env=self.environment, capture_output=True).returncode == 0

    def call(self, path: str, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path, headers={"Host": HOST, **headers})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """The command of the image with the environment of compose.yaml, its paths in a folder of this test."""
    folder = tmp_path_factory.mktemp("container")
    copy = folder / "Dockerfile"
    copy.write_text((ROOT / "deploy" / "Dockerfile").read_text())
    parsed = {each["instruction"]: each["value"] for each in DockerfileParser(str(copy)).structure}
    web = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["web"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def here(text: str) -> str:
        text = text.replace("8000", str(port)).replace("0.0.0.0", "127.0.0.1")
        text = re.sub(r"\$\{GRID_HOST:\?[^}]*\}", HOST, text)
        text = re.sub(r"\$\{GRID_NAME:\?[^}]*\}", "hospital", text)
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
        places = {"/run/secrets": str(folder / "secrets"), "/data": str(folder / "data")}
        return re.sub(r"^(/run/secrets|/data)\b", lambda found: places[found[0]], text)

    (folder / "secrets").mkdir()
    (folder / "data").mkdir()
    image = dict(re.findall(r"(GRID_\w+)=(\S+)", parsed["ENV"]))
    environment = {name: here(str(value)) for name, value in (image | web["environment"]).items()}
    environment |= {"PATH": os.environ["PATH"], "GRID_REDIS_URL": databases.redis_url()}
    for name, secret in {
        "database_url": databases.make_database("container"),
        "secret_key": secrets.token_urlsafe(64),
        "metrics_token": secrets.token_urlsafe(32),
    }.items():
        (folder / "secrets" / name).write_text(f"{secret}\n")
    words = [*exec_form(parsed["ENTRYPOINT"]), *map(here, exec_form(parsed["CMD"]))]
    assert words[0] == "python"
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *words[1:]], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    check = exec_form(parsed["HEALTHCHECK"])
    container = Container(port, [sys.executable, *map(here, check[1:])], environment, process, log)
    try:
        wait_until(lambda: container.healthy() or process.poll() is not None, 240, "the container is healthy")
        assert process.poll() is None, log.read_text()
        yield container
        process.send_signal(signal.SIGTERM)
        # The server ends in order, and then by the signal that it was sent.
        assert process.wait(10) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()


def test_behind_the_proxy_it_serves_and_alone_it_insists_on_tls(container: Container) -> None:
    status, headers, _ = container.call("/api/identity/")
    assert (status, headers["Location"]) == (301, f"https://{HOST}/api/identity/")
    status, headers, body = container.call("/api/identity/", **{"X-Forwarded-Proto": "https"})
    assert status == 200
    assert json.loads(body)["name"] == "hospital"
    assert "Strict-Transport-Security" in headers


def test_the_scraper_gets_its_figures_with_the_token_in_the_file(container: Container) -> None:
    token = Path(container.environment["GRID_METRICS_TOKEN_FILE"]).read_text().strip()
    assert container.call("/metrics")[0] == 401
    status, _, body = container.call("/metrics", Authorization=f"Bearer {token}")
    assert status == 200
    assert b"gridsite_sessions 0.0" in body


def test_the_first_account_is_made_beside_it(container: Container) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "createaccount", "admin", "--roles", "administrator"],
        cwd=ROOT, env=container.environment, input="correct horse battery\n", capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_it_writes_only_where_volumes_are_and_no_secret(container: Container) -> None:
    data = Path(container.environment["GRID_DIR"])
    assert {path.name for path in data.iterdir()} <= {"storage", "keys"}
    text = container.log.read_text()
    for name in ("database_url", "secret_key", "metrics_token"):
        assert (data.parent / "secrets" / name).read_text().strip() not in text
