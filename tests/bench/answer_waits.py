"""Measure how long a stream's next answer takes from any moment: what a kill that kills nobody would show.

The time from a kill to the next answer is mostly that between two answers. What the kill *adds* is its difference to the
same time from moments when nothing was killed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: The moments are so far apart, and so many quantiles of their waits are kept.
_STEP_S, _QUANTILES = 0.005, 101


def waits_s(times: Sequence[float], busy: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    """Return the quantiles, from the least to the most, of the waits for the next of these ``times``.

    They begin at evenly spread moments outside of the ``busy`` intervals; there are none if all is busy.
    """
    ordered = np.sort(np.asarray(times, np.float64))
    if len(ordered) < 2:
        return ()
    moments = np.arange(ordered[0], ordered[-1], _STEP_S)
    following = ordered[np.searchsorted(ordered, moments, side="right")]
    is_calm = np.ones(len(moments), bool)
    for start, stop in busy:
        is_calm &= (moments < start) | (moments >= stop)
    waits = (following - moments)[is_calm]
    return tuple(np.quantile(waits, np.linspace(0, 1, _QUANTILES)).round(5).tolist()) if len(waits) else ()
