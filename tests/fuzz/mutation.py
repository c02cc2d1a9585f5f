"""Damage bytes and JSON documents, as hypothesis draws it: failures shrink to the fewest changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

#: Lengths and counts at the edges of their types.
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 62) - 1, 1 << 62, (1 << 64) - 1)
_VALUES: tuple[Any, ...] = (*EDGES, -1, 3, 64, 1.5, 1e308, "", "x", "\x1b[2J\u202e<b>", None, True, False, [], {})
_MOST_BYTES = 1 << 20


@st.composite
def damaged_bytes(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """Draw a seed with one to four changes: other bytes, edges of numbers, parts cut out, repeated or exchanged."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        size = len(content)
        place = draw(st.integers(0, min(size, 255)) | st.integers(0, size))
        length = draw(st.integers(0, 16) | st.integers(0, size))
        match draw(st.integers(0, 5)):
            case 0:
                content[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                width = draw(st.sampled_from((1, 2, 4, 8)))
                edge = draw(st.sampled_from(EDGES)) % (1 << 8 * width)
                content[place : place + width] = edge.to_bytes(width, "little" if draw(st.booleans()) else "big")
            case 2:
                del content[place : place + length]
            case 3:
                times = draw(st.sampled_from((2, 3, 50, 1000)))
                piece = bytes(content[place : place + length])
                content[place:place] = piece * min(times, _MOST_BYTES // max(1, len(piece)))
            case 4:
                other = draw(st.sampled_from(seeds))
                start = draw(st.integers(0, len(other)))
                content[place : place + length] = other[start : start + length]
            case _:
                content[place:place] = draw(st.binary(max_size=16))
    return bytes(content[:_MOST_BYTES])


@st.composite
def damaged_json(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """Draw a JSON document with one to three changes to its values, or damaged as bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(damaged_bytes(seeds))
    document = json.loads(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 3))):
        places = [*_places(document)]
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        match draw(st.integers(0, 5)):
            case 0:
                holder[key] = draw(st.sampled_from(_VALUES))
            case 1 if isinstance(holder[key], int | float):
                holder[key] += draw(st.sampled_from((-1, 1, -16, 16, 4096, 1 << 20)))
            case 2 if isinstance(holder[key], list):
                most = draw(st.sampled_from((2, 50, 20_000)))
                holder[key] = (holder[key] * most)[:20_000]
            case 3:
                del holder[key]
            case 4:
                other_holder, other_key = draw(st.sampled_from(places))
                holder[key] = json.loads(json.dumps(other_holder[other_key]))
            case _ if isinstance(holder, list):
                holder.insert(key, json.loads(json.dumps(holder[key])))
    return json.dumps(document).encode()


def _places(value: Any) -> Any:
    """Yield every (holder, key) of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)
