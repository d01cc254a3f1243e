"""The page of the wire protocol, from the structs that encode and decode it."""

from __future__ import annotations

import inspect
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

import msgspec

from apps.accounts.once import KEPT_FOR
from gridclient.program import graph
from gridclient.wire import frames
from gridclient.wire import messages as m
from gridclient.wire.errors import SessionStoppedError

_INTRODUCTION = """\
# The wire

The data path of a node: a websocket at `/ws/grid/`, binary messages only. `vectors.json` beside this page holds encoded
frames with their meaning, frames that must be refused, and hashes; an implementation in another language can check
itself against it.

## Frames

A message is one frame: a header of {header} bytes, little-endian, then the body.

| bytes | field | meaning |
|---|---|---|
| 1 | kind | {batch}: a batch of commands; {chunk}: a chunk of a transfer |
| 4 | transfer | the transfer that a chunk belongs to; 0 in a batch |
| 8 | offset | where in the transfer the chunk begins; 0 in a batch |
| 4 | crc32 | of the body, as zlib computes it |

A frame has at most {max_frame} bytes. A chunk holds at most {chunk_size} bytes of body, and at most {in_flight} chunks
of a transfer are on their way without an `ack`. The `ack` with offset 0 says that a transfer may begin.

The body of a batch is MessagePack of `[id, [command, ...], seen]`. Batch ids of one direction only grow. A command is
an array whose first element is its kind and whose others are its fields in the order below; trailing fields with a
default may be left out. Fields that do not exist are refused.

## A socket is lost, a session goes on

`seen` is the last batch that the sender has received; each end keeps what it has sent until the other has seen it.
After a lost socket the client presents the `resume` token of its last welcome within {outlives:g} seconds. Where the
welcome names the same session, both ends send again what the other has not seen, and each transfer goes on at the
offset that its receiver acknowledges first. A batch that arrives twice is passed over; one with a known id and other
bytes ends the session. A token is good for one socket: each welcome brings the next one, and the one before stays good
until that is presented. Where the welcome names another session, nothing is left of the old one: the client says again
what its values are made from. `lost` and `begin` do the same without a new socket.

A `goodbye` ends the session, and no token brings it back. Where its code is `session_stopped` (the socket is closed
with {stopped}), an administrator of the node or the account itself has ended it, and the message says why: a client
does not connect again by itself. One that was away at the time gets this goodbye in place of a welcome.

An ask that changes something may carry a key: 1 to 64 visible ASCII characters that the client chooses, a new one for
each ask. Whoever asks the same again under it within {kept} days, in whatever session, gets the first reply, and
nothing is done twice; what was refused may be tried again. Another ask under the key is refused as `conflict`. The same
is what has the same content (a program, a specification, uploaded bytes), whatever numbers a session gives to its asks,
values and transfers; uploads are made again.

Protocol version: {protocol}. Values of at most {inline} bytes travel inside `answer`, longer ones as a transfer;
constants of at most {inline_constant} bytes travel inside `constant`.

Two MessagePack extensions occur in the arguments of a node: 1 is a reference to an output of another node (`u32` node,
`u8` output, little-endian), 2 is a dtype by its torch name without the prefix. Everywhere else a reference is a map
`{{"node": ..., "output": ...}}`.
"""


def _type(annotation: Any) -> str:
    if annotation is Any:
        return "any"
    if annotation is type(None):
        return "nil"
    if isinstance(annotation, UnionType):
        return " or ".join(_type(part) for part in get_args(annotation))
    parts = get_args(annotation)
    if get_origin(annotation) is Annotated:
        most = next((meta.max_length for meta in parts[1:] if isinstance(meta, msgspec.Meta)), None)
        return _type(parts[0]) if most is None else f"{_type(parts[0])}, at most {most}"
    if parts:
        return f"{annotation.__origin__.__name__} of {' to '.join(_type(part) for part in parts)}"
    return str(annotation.__name__)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return ""
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return msgspec.json.encode(value).decode()


def _struct(struct: type[msgspec.Struct], title: str) -> str:
    lines = [f"### {title}", "", inspect.cleandoc(struct.__doc__ or ""), ""]
    fields = msgspec.structs.fields(struct)
    if fields:
        lines += ["| field | type | default |", "|---|---|---|"]
        lines += [f"| `{field.name}` | {_type(field.type)} | {_default(field)} |" for field in fields]
        lines.append("")
    return "\n".join(lines)


def page() -> str:
    """`docs/reference/wire/README.md`."""
    text = _INTRODUCTION.format(
        header=frames.HEADER.size,
        batch=frames.BATCH,
        chunk=frames.CHUNK,
        max_frame=frames.MAX_FRAME,
        chunk_size=frames.CHUNK_SIZE,
        in_flight=frames.CHUNKS_IN_FLIGHT,
        protocol=m.PROTOCOL_VERSION,
        outlives=m.OUTLIVES,
        stopped=SessionStoppedError.close,
        kept=KEPT_FOR.days,
        inline=m.INLINE_LIMIT,
        inline_constant=m.INLINE_CONSTANT_LIMIT,
    )
    sections = [text]
    for title, commands in (("Client to node", m.ClientCommand), ("Node to client", m.NodeCommand)):
        sections.append(f"## {title}\n")
        for command in get_args(commands):
            sections.append(_struct(command, f"`{command.__struct_config__.tag}`"))
    sections.append("## Parts\n\nThe first two are arrays, the others maps.\n")
    for part in (m.TensorHeader, graph.Node, m.PublishSpec, m.Column):
        sections.append(_struct(part, part.__name__))
    return "\n".join(sections).rstrip() + "\n"
