"""Bends good messages: their values while they are a tree, and their bytes. All chance comes from one source."""

from __future__ import annotations

import math
import random
import struct
from typing import Any

import msgspec

LONG = 4_000
"""Most items that one mutation makes of one; bombs of megabytes are in tests/unit/test_decoding_bombs.py."""
MOST = 2**25
"""Most bytes of an input before these are bent."""
LONGEST = 2**18
"""Most characters of a text that is said again and again."""
NUMBERS = [
    0, 1, -1, 2, 7, 16, 17, 127, 128, 255, 256, 1024, 4097, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40,
    2**40 + 1, 2**53, 2**62, 2**63 - 1, -(2**31), -(2**63), 0.0, -0.0, 0.5, 1e308, -1e308, 5e-324,
]  # fmt: skip
TEXTS = [
    "", "\0", " ", "a", "\n", "..", "../../etc/passwd", "/dev/zero", "__class__", "__reduce__", "a.b.c", "=1+1",
    "<script>alert(1)</script>", "' OR 1=1 --", '"', "\\", "%s%n", "%00", "\u202eevil", "\u0301" * 90, "\U0001f600",
    "e\u0301",    "ß" * 70, "a" * 65, "a" * 5_000, "9" * 5_000, "[" * 5_000, "2027-01-31", "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59", "0" * 64, "f" * 64, "f" * 128, "NaN", "1e999", "float32", "object", "aten::add.Tensor",
    "grid::asset", "grid::plan", "grid::constant", "values", "#tag", "#", "team:", "https://[::1", "http://10.0.0.1/",
    "00000000-0000-4000-8000-000000000000", "00000000000040008000000000000000", "\ud7ff", "\uffff", "team:x", "-" * 300,
]  # fmt: skip
_PACKED = [
    b"\xc1", b"\xa2\xff\xfe", b"\xa3\xed\xa0\x80", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff", b"\xdb\x7f\xff\xff\xff", b"\xd6\xff\0\0\0\0", b"\xc7\x0c\xff" + bytes(12),
    b"\xcf" + b"\xff" * 8, b"\xcb\x7f\xf8" + bytes(6), b"\x81\x90\x90", b"\x82\xa1a\1\xa1a\2",
    b"\x91" * 2_000 + b"\x90",    b"\x81\xa1a" * 2_000 + b"\x80", b"\xdc\x0f\xa0" + b"\x90" * 4_000,
]  # fmt: skip
_WRITTEN = [
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e-999", b"1" * 4_400, b'"\\ud800"', b'"\\u0000"', b'"\xff"',
    b'"\xed\xa0\x80"', b"[" * 3_000 + b"]" * 3_000, b'{"a":' * 3_000 + b"1" + b"}" * 3_000, b'{"a":1,"a":2}', b"1.0",
    b"00", b"+1", b"\xef\xbb\xbf1", b"[1,]", b"/**/1", b"'a'", b"true", b"0." + b"3" * 3_000,
    b"[" + b"0," * 4_000 + b"0]",
]  # fmt: skip


class Mutator:
    """What one input is made with."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def one_of(self, items: Any) -> Any:
        return items[int(self.random.random() * len(items))]

    # --- trees ---

    def packed(self, trees: list[Any]) -> bytes:
        """MessagePack of one of these trees, bent."""
        pool = [msgspec.Raw(raw) for raw in _PACKED]
        return self._encoded(trees, pool, msgspec.msgpack.encode, [math.nan, math.inf, b"", bytes(40), *self._exts()])

    def _exts(self) -> list[Any]:
        code, size = self.random.randrange(-128, 128), self.random.randrange(40)
        return [msgspec.msgpack.Ext(kind, self.random.randbytes(size)) for kind in (1, 2, code)] + [
            msgspec.msgpack.Ext(1, struct.pack("<IB", self.random.randrange(9), 0))
        ]

    def written(self, trees: list[Any]) -> bytes:
        """JSON of one of these trees, bent."""
        return self._encoded(trees, [msgspec.Raw(raw) for raw in _WRITTEN], msgspec.json.encode, [])

    def _encoded(self, trees: list[Any], raws: list[Any], encode: Any, more: list[Any]) -> bytes:
        tree, pool = self.one_of(trees), [*raws, *more]
        for _ in range(self.one_of((0, 1, 1, 1, 2, 3, 6))):
            tree = self._bent(tree, trees, pool)
        try:
            data = encode(tree)
            if len(data) > MOST:
                raise OverflowError
        except (UnicodeEncodeError, TypeError, OverflowError, RecursionError, MemoryError):
            # An odd key, a number beyond 64 bits, or lists of lists of lists: longer than anybody would be let send.
            data = encode(self.one_of(trees))
        return self.bytes(data) if self.random.random() < 0.25 else data

    def value(self, pool: list[Any]) -> Any:
        kind = self.random.random()
        if kind < 0.3:
            return self.one_of(NUMBERS)
        if kind < 0.65:
            return self.one_of(TEXTS)
        if kind < 0.75:
            return self.one_of([None, True, False, [], {}])
        return self.one_of(pool)

    def _bent(self, tree: Any, trees: list[Any], pool: list[Any]) -> Any:
        if isinstance(tree, (list, tuple)) and tree and self.random.random() < 0.85:
            copy = list(tree)
            place = int(self.random.random() * len(copy))
            copy[place] = self._bent(copy[place], trees, pool)
            return copy
        if isinstance(tree, dict) and tree and self.random.random() < 0.85:
            name = self.one_of(list(tree))
            return tree | {name: self._bent(tree[name], trees, pool)}
        match tree, self.random.random():
            case list(), chance if chance < 0.6:
                return self._list(tree, trees, pool)
            case dict(), chance if chance < 0.6:
                return self._dict(tree, trees, pool)
            case int() | float(), chance if chance < 0.5 and not isinstance(tree, bool):
                return self.one_of((tree + 1, tree - 1, -tree, tree * 2, float(tree), str(tree)))
            case str(), chance if chance < 0.5:
                return self.text(tree)
            case bytes(), chance if chance < 0.7:
                return self.bytes(tree)
            case _, chance if chance < 0.9:
                return self.value(pool)
        return self._part(self.one_of(trees))

    def _part(self, tree: Any) -> Any:
        while isinstance(tree, (list, dict)) and tree and self.random.random() < 0.7:
            tree = self.one_of(list(tree.values()) if isinstance(tree, dict) else tree)
        return tree

    def _list(self, items: list[Any], trees: list[Any], pool: list[Any]) -> list[Any]:
        place = int(self.random.random() * (len(items) + 1))
        match self.random.randrange(5):
            case 0:
                return items[:place] + items[place + 1 :]
            case 1:
                return [*items[:place], self.value(pool), *items[place:]]
            case 2:
                return [*items[:place], self._part(self.one_of(trees)), *items[place:]]
            case 3:
                return items * self.random.randrange(2, 3 + min(300, LONG // (len(items) or 1)))
        return [items]

    def _dict(self, items: dict[Any, Any], trees: list[Any], pool: list[Any]) -> dict[Any, Any]:
        match self.random.randrange(4):
            case 0:
                return dict(list(items.items())[self.random.randrange(2) :][:-1])
            case 1:
                return items | {self.one_of(TEXTS): self.value(pool)}
            case 2:
                return items | {f"n{number}": self.value(pool) for number in range(self.random.randrange(1, 300))}
        part = self._part(self.one_of(trees))
        return items | part if isinstance(part, dict) else items | {"more": part}

    # --- texts and bytes ---

    def text(self, text: str) -> str:
        """The text with something cut out, put in or said again."""
        place, other = (int(self.random.random() * (len(text) + 1)) for _ in range(2))
        match self.random.randrange(4):
            case 0:
                return text[:place] + text[other:]
            case 1:
                return text[:place] + self.one_of(TEXTS) + text[place:]
            case 2:
                return text[:place] + chr(self.random.randrange(0xD800)) + text[place + 1 :]
        return text * max(1, min(self.random.randrange(2, 40), LONGEST // (len(text) + 1)))

    def bytes(self, data: bytes) -> bytes:
        """The bytes with a few of them changed, cut out, put in or said again."""
        found = bytearray(data)
        for _ in range(self.one_of((1, 1, 1, 2, 4, 16))):
            place = int(self.random.random() * (len(found) + 1))
            match self.random.randrange(7):
                case 0 if place < len(found):
                    found[place] ^= 1 << self.random.randrange(8)
                case 1 if place < len(found):
                    found[place] = self.one_of((0, 1, 127, 128, 255, self.random.randrange(256)))
                case 2:
                    size = self.one_of((1, 2, 4, 8))
                    number = int(self.one_of(NUMBERS[:26])) % 256**size
                    found[place : place + size] = number.to_bytes(size, self.one_of(("little", "big")))
                case 3:
                    del found[place:]
                case 4:
                    del found[place : place + self.random.randrange(1, 9)]
                case 5:
                    found[place:place] = self.random.randbytes(self.random.randrange(1, 9))
                case 6:
                    piece = found[place : place + self.random.randrange(1, 65)]
                    found[place:place] = piece * self.random.randrange(1, 9)
        return bytes(found)
