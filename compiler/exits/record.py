"""Record a network's answers at every exit for labelled inputs (Seifeddine, section 3.5.1, algorithm 2)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from hyps.compiler.errors import OptionError
from hyps.compiler.exits.network import exit_costs, open_classifier
from hyps.compiler.exits.recorded import RecordedExits
from hyps.compiler.exits.samples import open_samples
from hyps.compiler.exits.session import check_room, open_classifier_session, softmax
from hyps.compiler.progress import Advance


def record_exits(
    model: Path,
    data: Path,
    labels: Path | None,
    preprocess: str | None,
    memory_bytes: int,
    advance: Advance = lambda count: None,
) -> RecordedExits:
    """Run the model on every input at ``data`` and return its probabilities at all exits.

    Every output is an exit, in order of depth. Without labels, the network's own answer counts as right. The probabilities
    take at most ``memory_bytes``. Raises `OptionError` for a model without exits, and for data that do not fit it.
    """
    with open_classifier(model, preprocess) as network:
        exits, classes = network.graph.outputs, network.classes
        if len(exits) < 2:
            raise OptionError(f"{model} has one output and so no exits; give it some with 'hypsc exits attach'")
        costs = exit_costs(network.graph, exits)
        samples = open_samples(data, labels, network.form, classes)
        check_room(samples.count, len(exits) * classes, memory_bytes)
        found = np.empty((samples.count, len(exits), classes), np.float32)
        is_probability = [network.is_probability(name) for name in exits]
        for index, scores in enumerate(open_classifier_session(model).outputs(samples, exits, advance)):
            for place, (score, is_done) in enumerate(zip(scores, is_probability, strict=True)):
                found[index, place] = score[0] if is_done else softmax(score[0])
    if not np.isfinite(found).all():
        raise OptionError(f"the scores of {model} are not all numbers; check the inputs' preprocessing")
    return RecordedExits(
        probabilities=found,
        labels=samples.classes if samples.classes is not None else found[:, -1].argmax(axis=1),
        names=exits,
        multiply_adds=tuple(cost.multiply_adds for cost in costs),
        live_bytes=tuple(cost.live_bytes for cost in costs),
        model=_sha256(model),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
