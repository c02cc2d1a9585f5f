"""Define what is measured of a board's link to its hub; `hyps.runtime.cluster.worker.hub_probe` measures it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

#: More than any link carries.
MAX_LINK_BYTES_PER_S = 10**12
_Rate = Annotated[int, Meta(ge=1, le=MAX_LINK_BYTES_PER_S)]


class LinkRates(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The rates of a board's link to its hub.

    They are bytes a second to the hub and from it, and the seconds of a small message one way: half of its round trip.
    """

    up_bytes_per_s: _Rate
    down_bytes_per_s: _Rate
    latency_s: Annotated[float, Meta(ge=0, le=1e6)]


@dataclass(frozen=True, slots=True, kw_only=True)
class HubMeasurements:
    """What a board measures at its hub: its link, and the seconds that it works for a message.

    ``message_s`` is None where the link is too slow to measure it.
    """

    link: LinkRates
    message_s: float | None
