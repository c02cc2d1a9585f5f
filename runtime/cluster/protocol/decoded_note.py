"""Say of a job's result that a part of it was decoded: what, and how far off it may be."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class DecodedNote(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The codes by which a part of a result was decoded.

    ``error_bound`` is the largest error of a decoded value, as a part of the largest value of its operator.
    """

    codes: Annotated[tuple[Annotated[str, Meta(max_length=500)], ...], Meta(max_length=1000)]
    error_bound: Annotated[float, Meta(ge=0, le=1)]


def encode_note(note: DecodedNote) -> str:
    """Return the text that the journal keeps."""
    return msgspec.json.encode(note).decode()


def decode_note(text: str) -> DecodedNote | None:
    """Return the note of a job that is done; None if nothing of it was decoded."""
    return msgspec.json.decode(text, type=DecodedNote) if text else None
