"""The base of the manifest's values, and the types of their fields."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

#: The largest count of bytes or elements: a sum of a few such counts stays within a 64-bit integer's range.
LARGEST_COUNT: Final = 1 << 62
Count = Annotated[int, Meta(ge=0, le=LARGEST_COUNT)]
Positive = Annotated[int, Meta(gt=0, le=LARGEST_COUNT)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
FilePath = Annotated[str, Meta(pattern=r"^partitions/[A-Za-z0-9_-][A-Za-z0-9._-]*\Z", max_length=255)]
Name = Annotated[str, Meta(min_length=1)]
#: The first two numbers of a version.
Version = Annotated[str, Meta(pattern=r"^\d{1,4}\.\d{1,4}\Z")]
#: A tensor's shape: numpy has no more dimensions, and the product of a million of them takes minutes.
Extents = Annotated[tuple[Count, ...], Meta(max_length=64)]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the manifest's values."""
