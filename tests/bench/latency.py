"""VGG16 whole, as a user would run it, and in bundles at six budgets: memory, time and bytes read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.bench.contender import COLD_PROCESSES, Contender, race
from tests.bench.place import Place, compile_bundle
from tests.bench.readings import Race
from tests.bench.summary import DEFAULT, LEAN, MAPPED

BUDGETS_MB = (72, 96, 128, 256, 384, 512)


def latency(place: Place) -> tuple[Race, ...]:
    """With one thread, and with one on every core."""
    races = []
    for threads in sorted({1, os.cpu_count() or 1}):
        contenders = [
            Contender(label=DEFAULT, mode="default", path=place.inside()),
            Contender(label="whole, external data", mode="default", path=place.beside()),
            Contender(label=MAPPED, mode="mapped", path=place.beside()),
            Contender(label=LEAN, mode="lean", path=place.beside()),
        ]
        bundles = [bundled(place.beside(), place.folder / "raced", budget, threads) for budget in BUDGETS_MB]
        contenders += bundles
        raced = race(contenders, place.image(), threads=threads, rounds=place.rounds, cold=COLD_PROCESSES, say=place.say)
        model_bytes = place.inside().stat().st_size
        races.append(Race(network="vgg16", threads=threads, model_bytes=model_bytes, contenders=raced))
        for contender in bundles:
            shutil.rmtree(contender.path)
    return tuple(races)


def bundled(model: Path, folder: Path, budget_mb: int, threads: int) -> Contender:
    """Return the contender: the model in a bundle for this budget."""
    bundle = folder / f"{model.stem}-{budget_mb}-{threads}"
    bundle.parent.mkdir(exist_ok=True)
    compile_bundle(model, bundle, f"{budget_mb}MB", threads)
    return Contender(label=f"bundle, {budget_mb} MB", mode="bundle", path=bundle, budget_bytes=budget_mb * 10**6)
