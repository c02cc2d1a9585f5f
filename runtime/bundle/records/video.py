"""The manifest's record of the video that a bundle has memory for."""

from __future__ import annotations

from hyps.runtime.bundle.records.fields import Count, Positive, Record


class VideoRecord(Record, frozen=True, kw_only=True):
    """The largest frame that is decoded while the network runs, in pixels, and the memory that every peak counts for it."""

    width: Positive
    height: Positive
    memory_bytes: Count
