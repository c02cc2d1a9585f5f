"""The manifest's records of early exits: the places where an inference may end."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from hyps.runtime.bundle.records.fields import Count, Name, Record

#: The most exits of a network.
MOST_EXITS: Final = 64
#: A part of all inferences.
Share = Annotated[float, Meta(ge=0, le=1)]


class ExitRecord(Record, frozen=True, kw_only=True):
    """An exit: an inference may end after the step with index ``after_step``, with the scores of classes in ``output``.

    ``macs`` are the multiply-adds of all steps up to that one. ``rate`` is the part of all inferences that is expected to
    end here.
    """

    after_step: Count
    output: Name
    macs: Count
    rate: Share
