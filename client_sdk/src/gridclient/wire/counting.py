"""How many values MessagePack holds, found by walking over its bytes: nothing is made of them."""

from __future__ import annotations

# By the first byte of a value, for those whose length it does not hold itself: bytes behind it.
_FIXED = {
    0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
    0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4,
}  # fmt: skip
# The same where a length follows: bytes of the length, bytes between it and the content.
_COUNTED = {
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1),
    0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0),
}  # fmt: skip


def has_more_values(data: bytes | memoryview, limit: int) -> bool:
    """Whether there are more than `limit` values, lists and maps counted with what is in them, maps with their keys.

    Takes at most `limit` steps. Bytes that are no MessagePack have no meaning here: the decoder must refuse them.
    """
    if len(data) <= limit:  # a value takes a byte at least
        return False
    place = count = 0
    end = len(data)
    while place < end:
        count += 1
        if count > limit:
            return True
        first = data[place]
        place += 1
        if 0xA0 <= first <= 0xBF:
            place += first & 31
        elif 0xC4 <= first <= 0xDF:
            if first in _FIXED:
                place += _FIXED[first]
            else:
                width, between = _COUNTED[first]
                place += width + between + int.from_bytes(data[place : place + width], "big")
    return False
