"""Predict the seconds of a step that was never profiled, from those that were (Hadidi, section 4.4.3: regression models).

The model of one class of boards is linear: some seconds for each multiply-add of this kind of operator, for each byte of
weights, for each byte of inputs and outputs, for each operator, and for the step itself. No coefficient is negative. The fit
makes *relative* errors small: a step of a millisecond counts as much as one of a second. Such fits are too low, as no error
can be below -1; all coefficients are then raised until half of the steps are predicted too high.

The error that is stated is the median relative error of steps that the fit had not seen: each is left out once. For a kind
of operator that was never profiled, its multiply-adds cost what those of all kinds cost, and each kind is left out once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyps.runtime.errors import ProfileError
from hyps.runtime.profiling.step_content import StepContent

_Floats = NDArray[np.float64]
#: The fewest steps that a fit is made of.
LEAST_STEPS = 5
#: A step that takes less is noise: its error counts as if it took this.
_LEAST_S = 1e-6
_SETTLED = 1e-10
#: The most fits for the error: with more steps than this, several are left out at a time.
_MOST_FITS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfiledTime:
    """A step that was profiled on a class of boards, and the seconds that it takes there."""

    content: StepContent
    seconds: float


class StepRegression:
    """The regression of one class of boards, fitted to ``profiled`` steps. Raises `ProfileError` for fewer than five."""

    def __init__(self, profiled: Sequence[ProfiledTime]) -> None:
        if len(profiled) < LEAST_STEPS:
            raise ProfileError(
                f"{len(profiled)} profiled steps are too few to predict others from",
                f"profile a bundle of {LEAST_STEPS} steps or more there with 'hyps-run profile'",
            )
        self._kinds = sorted({each.content.kind for each in profiled if each.content.multiply_adds})
        self._by_kind = _fit(profiled, self._kinds)
        self._of_all = _fit(profiled, [])
        #: The median relative error for kinds of operators that were profiled, and for others.
        self.known_error = _error_left_out(profiled, self._kinds, [place % _MOST_FITS for place in range(len(profiled))])
        groups = [each.content.kind for each in profiled]
        several = len(set(groups)) > 1
        self.unknown_error = _error_left_out(profiled, [], groups) if several else max(1.0, self.known_error)

    def predict(self, content: StepContent) -> tuple[float, float]:
        """Return the seconds that a step takes, and the median relative error of such predictions."""
        if content.kind in self._kinds or not content.multiply_adds:
            return float(_features(content, self._kinds) @ self._by_kind), self.known_error
        return float(_features(content, []) @ self._of_all), self.unknown_error


def _features(content: StepContent, kinds: Sequence[str]) -> _Floats:
    """Return a step's multiply-adds by kind (of all kinds, if none are named), both kinds of bytes, operators, and 1."""
    macs = [content.multiply_adds if content.kind == kind else 0 for kind in kinds] or [content.multiply_adds]
    return np.array([*macs, content.weight_bytes, content.tensor_bytes, content.operators, 1], np.float64)


def _fit(profiled: Sequence[ProfiledTime], kinds: Sequence[str]) -> _Floats:
    """Return the coefficients, none negative, that make the sum of squared relative errors least, with their median at 0."""
    seconds = np.array([max(each.seconds, _LEAST_S) for each in profiled])
    rows = np.array([_features(each.content, kinds) for each in profiled]) / seconds[:, None]
    found = least_squares(rows, np.ones(len(profiled)))
    middle = float(np.median(rows @ found)) if len(profiled) else 0.0
    return found / middle if middle > 0 else found


def least_squares(rows: _Floats, wanted: _Floats) -> _Floats:
    """Return the x >= 0 that makes ``|rows @ x - wanted|`` least, by the active-set method.

    Lawson and Hanson (1974), "Solving Least Squares Problems", chapter 23. Columns are scaled to unit length meanwhile.
    """
    lengths = np.linalg.norm(rows, axis=0)
    lengths[lengths == 0] = 1.0
    unit, found = rows / lengths, np.zeros(rows.shape[1])
    free = np.zeros(rows.shape[1], bool)
    for _ in range(3 * rows.shape[1]):
        slope = np.where(free, -np.inf, unit.T @ (wanted - unit @ found))
        if slope.max() <= _SETTLED * max(1.0, float(np.linalg.norm(wanted))):
            break
        free[slope.argmax()] = True
        while True:
            solved = np.zeros_like(found)
            solved[free] = np.linalg.lstsq(unit[:, free], wanted, rcond=None)[0]
            if (solved[free] > 0).all():
                found = solved
                break
            below = free & (solved <= 0)
            way = float((found[below] / np.maximum(found[below] - solved[below], _SETTLED)).min())
            found = np.maximum(found + way * (solved - found), 0.0)
            free &= found > _SETTLED
            if not free.any():
                break
    return np.asarray(found / lengths)


def _error_left_out(profiled: Sequence[ProfiledTime], kinds: Sequence[str], groups: Sequence[object]) -> float:
    """Return the median relative error of steps, each predicted from those that are not of its group.

    A step whose kind is in its own group alone is predicted as one of an unknown kind.
    """
    errors: list[float] = []
    for group in dict.fromkeys(groups):
        seen = [each for each, own in zip(profiled, groups, strict=True) if own != group]
        left = [each for each, own in zip(profiled, groups, strict=True) if own == group]
        known = [kind for kind in kinds if any(each.content.kind == kind for each in seen)]
        coefficients, of_all = _fit(seen, known), _fit(seen, [])
        for each in left:
            is_known = each.content.kind in known or not each.content.multiply_adds
            used = (known, coefficients) if is_known else ([], of_all)
            predicted = float(_features(each.content, used[0]) @ used[1])
            truth = max(each.seconds, _LEAST_S)
            errors.append(abs(predicted - truth) / truth)
    return float(np.median(errors))
