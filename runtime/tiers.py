"""Open the link to the tier above, to which inferences are offloaded: a manager at a hub, or a Dask cluster.

What offloads nothing imports none of the libraries for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from hyps.runtime.exits.tier import NextTier

_log = logging.getLogger(__name__)


def is_dask(address: str) -> bool:
    """Return whether an address of ``--offload`` is a Dask cluster's."""
    return address.startswith(("dask://", "dask+tls://"))


def open_tier(
    bundle: Path,
    address: str,
    wait_s: float,
    exits: Sequence[int],
    *,
    warn: Callable[[str], None] = _log.warning,
) -> NextTier:
    """Return the tier above for rests behind these exits, after a wait for its link of so long at most.

    The address is a hub's, a join file, or a Dask cluster's. The link connects on a thread of its own. Raises
    `RuntimeFault`.
    """
    tier: NextTier
    if is_dask(address):
        from hyps.runtime.dask.dask_tier import DaskTier

        tier = DaskTier(bundle, address, warn, exits)
    else:
        from hyps.runtime.cluster.hub_tier import HubTier, hub_or_join

        tier = HubTier(bundle, *hub_or_join(address), warn=warn, exits=exits)
    tier.wait(wait_s)
    return tier
