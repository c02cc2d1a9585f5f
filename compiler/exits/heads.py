"""Fit the classifier of an exit to pooled features: one linear layer, or one with a hidden layer (scikit-learn)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The log-odds of a class that no input of the data has.
_ABSENT = -30.0
#: The strength of regularisation, and the most rounds.
_INVERSE_PENALTY, _ROUNDS = 0.1, 300


@dataclass(frozen=True, slots=True)
class ExitHead:
    """The layers of an exit's classifier, weight [out, in] and bias, with ReLU between."""

    layers: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the class scores [N, C] of features [N, F]."""
        values = features
        for number, (weight, bias) in enumerate(self.layers, start=1):
            values = values @ weight.T + bias
            if number < len(self.layers):
                values = np.maximum(values, 0)
        return values


def fit_head(features: NDArray[np.float32], classes: NDArray[np.int64], class_count: int, hidden: int = 0) -> ExitHead:
    """Fit a head to features [N, F] and their classes; ``hidden`` neurons in a hidden layer, none for 0.

    The features are standardised, and that is folded into the first layer.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    mean, scale = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    scale[scale < 1e-6 * max(float(scale.max()), 1e-30)] = np.inf  # a feature that does not vary tells nothing
    inputs = ((features - mean) / scale).astype(np.float32)
    if hidden:
        model: Any = MLPClassifier(
            (hidden,),
            alpha=1e-2,
            learning_rate_init=3e-3,
            early_stopping=True,
            n_iter_no_change=30,
            max_iter=_ROUNDS,
            random_state=0,
        )
        model.fit(inputs, classes)
        layers = [(weight.T, bias) for weight, bias in zip(model.coefs_, model.intercepts_, strict=True)]
    else:
        model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=_ROUNDS)
        model.fit(inputs, classes)
        layers = [(model.coef_, model.intercept_)]
    layers[-1] = _all_classes(*layers[-1], model.classes_, class_count)
    weight, bias = layers[0]
    layers[0] = weight / scale, bias - (weight / scale) @ mean
    return ExitHead(tuple((first.astype(np.float32), second.astype(np.float32)) for first, second in layers))


def _all_classes(
    weight: NDArray[np.float64], bias: NDArray[np.float64], found: NDArray[np.int64], class_count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a last layer with a row for every class, of one for those that were ``found``."""
    if len(found) == 2 and len(weight) == 1:  # scikit-learn keeps the difference of two classes
        weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
    rows, offsets = np.zeros((class_count, weight.shape[1])), np.full(class_count, _ABSENT)
    rows[found], offsets[found] = weight, bias
    return rows, offsets
