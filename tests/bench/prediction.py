"""Predicted against measured peak memory, for every seeded reference network at six budgets each."""

from __future__ import annotations

from hyps.models.catalogue import NETWORKS, build
from tests.bench.place import Place
from tests.bench.readings import Predicted
from tests.regression.budgets import peaks


def prediction(place: Place) -> tuple[Predicted, ...]:
    """Two inputs one after the other by ``hyps-run``; budgets from the smallest that works to the whole model's need."""
    rows = []
    for name in (network.name for network in NETWORKS.values() if not network.trained):
        place.say(f"predicted against measured: {name}")
        model = place.folder / f"{name}.onnx"
        build(name, model)
        rows += [
            Predicted(
                network=name,
                budget_bytes=each.budget_bytes,
                partitions=each.partitions,
                predicted_bytes=each.predicted_bytes,
                measured_bytes=each.measured_bytes,
            )
            for each in peaks(model, place.folder)
        ]
        for path in place.folder.glob(f"{name}.*"):
            path.unlink()
    return tuple(rows)
