"""A node and a network in this process: REST routes and a conversation, with their real database and a real worker."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from django.contrib.auth.hashers import Argon2PasswordHasher
from django.core.management import call_command
from django.test import Client, override_settings

from apps.accounts.models import LockOut
from apps.accounts.token_actions import create_token
from apps.compute.workers import CRASHED, Workers
from apps.core import keys, metrics
from apps.core.clock import now
from apps.network import signing
from apps.wire.conversation import Conversation, carried_on
from apps.wire.hello import greet
from gridclient.program.graph import Node, Ref, constant, tensor_digest
from gridclient.wire import messages as m
from gridclient.wire.errors import GridError
from gridclient.wire.frames import CHUNK, pack_batch, unpack
from tests.attacks.fuzz import seeds
from tests.attacks.fuzz.mutate import Mutator
from tests.attacks.fuzz.targets import Target, framed
from tests.factories.network import member
from tests.factories.people import ROLES, make_user
from tests.factories.queue import publish, submit
from tests.factories.sockets import hello

Found = Callable[[str, int], None]
_BODY_ROUTES = [
    ("POST", "sign-in/", 0), ("POST", "users/", 1), ("PATCH", "users/stranger/", 2), ("PATCH", "users/owner/", 2),
    ("POST", "teams/", 3), ("PATCH", "teams/lab/", 3), ("POST", "tokens/", 4), ("PATCH", "datasets/births/", 5),
    ("POST", "datasets/births/grants/", 6), ("POST", "requests/ID/deny/", 7), ("POST", "assertions/", 8),
    ("POST", "sign-in/assertion/", 9), ("POST", "nodes/hospital/reject/", 7), ("POST", "challenge/", 7),
]  # fmt: skip
_SIGNED = ["nodes/", "announcements/"]
_LISTS = [
    "users/", "teams/", "tokens/", "datasets/", "plans/", "requests/", "audit/", "nodes/", "search/", "search/facets/",
    "search/suggest/", "identity/", "me/", "membership/", "audit/verify/", "datasets/births/grants/",
    "requests/ID/", "users/owner/", "datasets/births/", "teams/lab/",
]  # fmt: skip
_QUERIES = ["limit", "after", "q", "prefix", "challenge", "state", "mine", "verb", "by", "tag", "format", "seen", "all"]
_CURSORS = ["MjAyNi0wMi0wMVQxMjowMDowMCswMDowMCAw", "MjAyNi0wMi0wMVQxMjowMDowMCswMDowMCAwMDAwMDAwMC0wMDAwLTQwMDA=", "7"]


class _Logged(logging.Handler):
    """Tells where an exception was met that the node had not foreseen; the caller sees only "internal"."""

    def __init__(self, found: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._tell = found

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and (error := record.exc_info[1]):
            frame = traceback.extract_tb(error.__traceback__)[-1]
            self._tell(f"{record.name}: {type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}")
        elif record.name == "apps.api.errors":
            self._tell(f"{record.name}: {record.getMessage()[:300]}")


class _Socket:
    """Takes every frame, and looks for what a node must not say."""

    def __init__(self, found: Callable[[str], None]) -> None:
        self.commands: list[Any] = []
        self._found = found

    async def put(self, frame: bytes) -> bool:
        unpacked = unpack(frame)
        if unpacked.kind != CHUNK:
            self.commands += m.decode_node(unpacked.body).commands
            for command in m.decode_node(unpacked.body).commands:
                # An ask that is open when its program is begun anew is told so; `_talk` looks for workers that fell.
                if getattr(command, "code", "") == "internal" and command.message != CRASHED:
                    self._found(f"{type(command).__name__} {command.message!r}")
        return True

    async def close(self, code: int) -> None:
        pass


class Served:
    """Everything is made when it is entered, and gone afterwards. `found` is told of findings."""

    def __init__(self, found: Found) -> None:
        self.number = 0
        self._found = found
        self._numbers = count(2)
        self._crashed = 0
        self._socket: _Socket | None = None
        self._conversation: Conversation | None = None
        self.targets = [
            Target("REST", 4, self._request, self._call),
            Target("conversation", 3, self._frames, self._talk),
            Target("hello", 1, self._greeting, self._greet),
        ]

    def __enter__(self) -> Served:
        logging.getLogger().handlers = [_Logged(lambda what: self._found(what, self.number))]
        logging.getLogger("django").handlers.clear()
        call_command("migrate", verbosity=0)
        # Argon2 in every respect but its price.
        for name, value in {"time_cost": 1, "memory_cost": 8, "parallelism": 1}.items():
            setattr(Argon2PasswordHasher, name, value)
        self._people = {name: make_user(name, *roles) for name, roles in ROLES.items()}
        self._tokens = {
            name: create_token(user=user, name="fuzz", expires=None, by=user, kind="session")[1]
            for name, user in self._people.items()
        }
        asked = submit(self._people["scientist"], publish(self._people["owner"], "Births"))
        self._request_id = str(asked.pk)
        member("hospital", self._people["administrator"], now=now())
        self._web = Client(raise_request_exception=False, SERVER_NAME="127.0.0.1")
        self._runner = asyncio.Runner()
        self._workers = Workers()
        self._runner.run(self._workers.start())
        return self

    def __exit__(self, *_: object) -> None:
        if self._conversation is not None:
            self._runner.run(self._goes_on())
            self._runner.run(self._conversation.end())
        self._runner.run(self._workers.close())
        self._runner.close()

    # --- REST ---

    def _request(self, mutator: Mutator) -> dict[str, Any]:
        chance = mutator.random.random()
        headers: dict[str, str] = {}
        body, query = b"", ""
        if chance < 0.5:
            method, path, number = mutator.one_of(_BODY_ROUTES)
            body = mutator.written([seeds.BODIES[number]] if chance < 0.4 else seeds.BODIES)
            if chance < 0.1:
                headers["Idempotency-Key"] = mutator.text("key-1")
        elif chance < 0.65:
            method, path = "POST", mutator.one_of(_SIGNED)
            body = mutator.written([*seeds.PUSHES, seeds.MESSAGES[0] | {"public_key": "OWN"}])
            headers |= {"sign": "yes"} if chance < 0.64 else {signing.KEY: mutator.text("0" * 64)}
        else:
            method, path = mutator.one_of(("GET", "GET", "GET", "DELETE", "PUT")), mutator.one_of(_LISTS)
            names = [mutator.one_of(_QUERIES) for _ in range(mutator.random.randrange(1, 4))]
            query = "&".join(f"{name}={_escaped(self._word(mutator))}" for name in names)
        path = path.replace("ID", self._request_id)
        if mutator.random.random() < 0.15:
            path = f"{path}{_escaped(self._word(mutator))}/"
        who = mutator.one_of([*ROLES, "administrator", "owner", ""])
        if mutator.random.random() < 0.03:
            headers["Authorization"] = mutator.text(f"Bearer {self._tokens['owner']}")
        role = mutator.one_of(("node", "network"))
        return {
            "method": method,
            "path": path,
            "query": query,
            "body": body,
            "headers": headers,
            "who": who,
            "role": role,
        }

    def _word(self, mutator: Mutator) -> str:
        word = mutator.one_of([*_CURSORS, *seeds.WORDS])
        return str(mutator.text(word))[:4_000] if mutator.random.random() < 0.8 else str(word)

    def _call(self, given: dict[str, Any]) -> None:
        headers, path = dict(given["headers"]), f"/api/{given['path']}"
        with override_settings(GRID_ROLE=given["role"], GRID_GUEST_SEARCH=True):
            if headers.pop("sign", ""):
                headers |= signing.sign_request("POST", path, given["body"], audience=keys.public_key(), now=now())
            elif given["who"]:
                headers.setdefault("Authorization", f"Bearer {self._tokens[given['who']]}")
            if given["path"] == "sign-in/":
                LockOut.objects.all().delete()  # the same address every time
            response = self._web.generic(
                given["method"], path, given["body"], content_type="application/json", headers=_sendable(headers),
                QUERY_STRING=given["query"],
            )  # fmt: skip
        if response.status_code >= 500:
            self._found(f"REST: {response.status_code} of {given['method']} {given['path'].split('/')[0]}", self.number)
        elif response.status_code >= 400 and response.headers["Content-Type"] == "application/json":
            refused = msgspec.json.decode(response.content)["error"]
            raise GridError(refused["message"])

    # --- a conversation ---

    def _frames(self, mutator: Mutator) -> bytes:
        number = next(self._numbers) if mutator.random.random() < 0.97 else mutator.random.randrange(2**10)
        trees = [[number, *tree[1:]] for tree in seeds.CLIENT]
        tree = mutator.one_of(trees)
        if mutator.random.random() < 0.8:  # what is bent are the commands
            body = msgspec.msgpack.encode([number, msgspec.Raw(mutator.packed([tree[1]])), 0])
            return pack_batch(body)
        return framed(mutator, trees)

    def _talk(self, data: bytes) -> None:
        self._runner.run(self._take(data))
        if (crashed := metrics.WORKERS_ENDED.labels("crashed")._value.get()) > self._crashed:
            self._crashed = crashed
            self._found("conversation: a worker crashed", self.number)

    async def _take(self, data: bytes) -> None:
        if self._conversation is None or self._conversation.ended:
            self._socket = _Socket(lambda what: self._found(f"conversation: {what}", self.number))
            greeted = await greet(pack_batch(m.encode(m.ClientBatch(1, [hello(self._tokens["owner"])]))))
            self._conversation = await carried_on(self._socket, greeted, self._workers)
            self._numbers = count(2)
        assert self._socket is not None
        self._socket.commands.clear()
        await self._conversation.take(data, self._socket)
        await asyncio.sleep(0)
        if any(isinstance(command, m.Error | m.Refused | m.Goodbye) for command in self._socket.commands):
            raise GridError

    async def _goes_on(self) -> None:
        """After all that, a session is worth what it was: a sum is right."""
        await self._conversation.end() if self._conversation else None
        self._conversation = None
        body = bytes.fromhex("0000803f00000040")  # 1 and 2
        digest = tensor_digest("float32", [2], body)
        nodes = [constant(1, digest), Node(2, "aten::sum", [Ref(1)])]
        commands = [m.Constant(digest, m.TensorHeader("float32", [2], 8), body), m.Run(nodes), m.Get(1, Ref(2))]
        try:
            await self._take(pack_batch(m.encode(m.ClientBatch(2, commands))))
        except GridError:
            self._found("conversation: the last session was refused", self.number)
        assert self._socket is not None
        for _ in range(1_000):
            answers = [command for command in self._socket.commands if isinstance(command, m.Answer)]
            if answers:
                break
            await asyncio.sleep(0.01)
        if [answer.data for answer in answers] != [bytes.fromhex("00004040")]:
            self._found("conversation: the last session gives no right answer", self.number)

    # --- a hello ---

    def _greeting(self, mutator: Mutator) -> bytes:
        command = hello(self._tokens["owner"], resume="4" * 64)
        return framed(mutator, [msgspec.msgpack.decode(m.encode(m.ClientBatch(1, [command])))])

    def _greet(self, data: bytes) -> None:
        self._runner.run(self._greeted(data))

    async def _greeted(self, data: bytes) -> None:
        greeted = await greet(data)
        assert greeted.user == "owner", "somebody else was let in"


def _escaped(text: str) -> str:
    return quote(text.encode("utf-8", "replace"), safe="")


def _sendable(headers: dict[str, str]) -> dict[str, str]:
    """As a server hands them on: bytes read as latin-1, without line breaks."""
    return {
        name: value.encode("utf-8", "replace").decode("latin-1").replace("\n", "") for name, value in headers.items()
    }
