"""What deployments say to each other, checked while decoding: unknown fields fall away, texts are bounded and clean."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from django.conf import settings
from msgspec import Meta

from apps.network.models import State
from gridclient.wire.errors import InvalidInputError, LimitExceededError
from gridclient.wire.normal_form import nfc

T = TypeVar("T")

MAX_BODY = 2**20
"""Most bytes of one message between deployments."""
MAX_METADATA = 2**16
"""Most bytes of one dataset's public metadata, as JSON."""
MAX_BATCH = 100
"""Most datasets that one message announces."""
MAX_DATASETS = 10_000
"""Most datasets that one node announces."""
MAX_SIZE = 2**25
"""Most bytes that the datasets of one node take up at its network: metadata, and `WORD_SIZE` for each indexed word."""
MAX_LOGS = 8
"""Most logs of which one node shows the head."""
MAX_SEEN = 256
"""Most heads that a network names to one node."""
WORD_SIZE = 64
"""Bytes of a word of one dataset in the search index."""

Count = Annotated[int, Meta(ge=0, le=2**62)]
Number = Annotated[int, Meta(ge=1, le=2**62)]
Key = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Signature = Annotated[str, Meta(pattern="^[0-9a-f]{128}$")]
NodeId = Annotated[str, Meta(max_length=40, pattern="^[a-z0-9]+(-[a-z0-9]+)*$")]
Word = Annotated[str, Meta(max_length=40, pattern="^[a-z0-9_]*$")]

# They make a text look like another one; nobody needs them in a name.
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Join(msgspec.Struct):
    """A node asks for an id. The request is signed by `public_key`, which is who it is from then on."""

    id: NodeId
    name: Annotated[str, Meta(min_length=1, max_length=80)]
    url: Annotated[str, Meta(max_length=200)]
    public_key: Key


class Joined(msgspec.Struct):
    """What the network decided so far."""

    id: NodeId
    state: State
    reason: Annotated[str, Meta(max_length=500)] = ""


class NamedHead(msgspec.Struct):
    """The newest head of one of a node's logs, with the node's signature of its hash."""

    log: Word
    number: Number
    hash: Key
    signature: Signature


class SeenHead(msgspec.Struct):
    """A head as the network saw it, and its own signature (`core/countersigned.py`). `seen`: when, in UTC."""

    log: Word
    number: Number
    hash: Key
    signature: Signature
    seen: Annotated[str, Meta(max_length=40)]
    counter_signature: Signature


class Push(msgspec.Struct):
    """Changes of listed datasets after revision `base`, up to `revision`; without changes, a heartbeat.

    `base` None begins anew: what is not in `keep` is forgotten. `put` holds public metadata, one JSON object each.
    `heads` come with each push; a node that was made before them sends none.
    """

    base: Count | None
    revision: Count
    put: Annotated[list[msgspec.Raw], Meta(max_length=MAX_BATCH)] = []
    remove: Annotated[list[UUID], Meta(max_length=MAX_BATCH)] = []
    keep: Annotated[list[UUID], Meta(max_length=MAX_DATASETS)] = []
    heads: Annotated[list[NamedHead], Meta(max_length=MAX_LOGS)] = []


class Receipt(msgspec.Struct):
    """Answer to a push. Not `in_step`: nothing was taken, begin anew. `refused`: id and reason of datasets left out.

    `heads`: all that the network has seen of the node's logs, counter-signed; of a member only.
    """

    state: State
    revision: Count
    in_step: bool
    refused: Annotated[list[list[str]], Meta(max_length=MAX_BATCH)] = []
    heads: Annotated[list[SeenHead], Meta(max_length=MAX_SEEN)] = []


class Identity(msgspec.Struct):
    """Who answers at a URL. `signature` is over the challenge that was asked with."""

    role: str
    name: str
    id: str
    protocol: int
    operations: int
    public_key: Key
    signature: str


class PublicColumn(msgspec.Struct):
    name: Annotated[str, Meta(max_length=200)]
    kind: Word = "number"
    low: float | None = None
    high: float | None = None
    categories: Annotated[list[Annotated[str, Meta(max_length=200)]], Meta(max_length=1000)] | None = None


class PublicMetadata(msgspec.Struct):
    """The fields of `datasets.queries.public_metadata` that a network keeps."""

    id: UUID
    slug: Annotated[str, Meta(max_length=120, pattern="^[-a-zA-Z0-9_]+$")]
    name: Annotated[str, Meta(max_length=200)]
    description: Annotated[str, Meta(max_length=10_000)]
    tags: Annotated[list[Annotated[str, Meta(max_length=100)]], Meta(max_length=100)]
    visibility: Word
    version: Count
    kind: Word
    shape: Annotated[list[Count], Meta(max_length=16)]
    dtype: Word | None = None
    rows_public: bool = True
    columns: Annotated[list[PublicColumn], Meta(max_length=2000)] | None = None
    max_rows_per_entity: Count | None = None
    entities: Word | None = None
    missing: Annotated[str, Meta(max_length=40)] | float | None = None
    created: Annotated[str, Meta(max_length=40)] | None = None
    sequence: UUID | None = None


def decode(body: bytes | msgspec.Raw, kind: type[T], *, cap: int = MAX_BODY) -> T:
    """Decode JSON. Raises LimitExceededError beyond `cap` bytes, InvalidInputError for any other shape."""
    if memoryview(body).nbytes > cap:
        raise LimitExceededError(f"The message is longer than {cap} bytes.", limit=cap)
    try:
        return msgspec.json.decode(body, type=kind)
    except RecursionError:
        raise InvalidInputError("The message is nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"The message has another shape than expected: {error}.") from None


def clean(text: str, *, lines: bool = False) -> str:
    """The text without control, direction and surrogate characters; line breaks stay only with `lines`."""
    kept = (
        c
        for c in nfc(text)
        if (lines and c in "\n\t") or (unicodedata.category(c) not in ("Cc", "Cs") and c not in _DIRECTIONS)
    )
    return "".join(kept).strip()


def listed_metadata(raw: msgspec.Raw) -> dict[str, Any]:
    """A dataset's metadata as announced, checked and cleaned, as JSON values. Raises GridError."""
    metadata = decode(raw, PublicMetadata, cap=MAX_METADATA)
    if metadata.visibility != "listed":
        raise InvalidInputError("Only listed datasets are announced.")
    metadata.name = clean(metadata.name)
    metadata.description = clean(metadata.description, lines=True)
    metadata.tags = [clean(tag) for tag in metadata.tags]
    metadata.created = clean(metadata.created or "")
    if isinstance(metadata.missing, str):
        metadata.missing = clean(metadata.missing)
    for column in metadata.columns or []:
        column.name = clean(column.name)
        column.categories = None if column.categories is None else [clean(c) for c in column.categories]
    built: dict[str, Any] = msgspec.to_builtins(metadata)
    return built


def checked_url(url: str) -> str:
    """A deployment's base URL, without a slash at the end. Raises InvalidInputError."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if not host or parts.scheme not in ("http", "https") or url != clean(url) or " " in url or "\\" in url:
        raise InvalidInputError("The url must begin with https:// and name a host.")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InvalidInputError("The url must hold no user name, no query and no fragment.")
    if parts.scheme == "http" and not settings.GRID_DEVELOPMENT:
        raise InvalidInputError("The url must begin with https://: tokens would travel in the clear.")
    return url.rstrip("/")
