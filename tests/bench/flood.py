"""A client with many images under way at once, until it is killed: its own process.

python -m tests.bench.flood BUNDLE HUB COUNT
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hyps.runtime.cluster.client import ClusterEngine
from hyps.runtime.execution.engine import in_memory


def main() -> None:
    """Send images of noise, each another."""
    bundle, hub, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    logging.disable(logging.WARNING)
    engine = ClusterEngine(bundle, hub, None)
    (name,) = engine.manifest.inputs
    shape = engine.manifest.tensors[name].shape
    generator = np.random.default_rng(0)

    def images() -> Iterator[dict[str, NDArray[np.float32]]]:
        for _ in range(count):
            yield {name: generator.standard_normal(shape, dtype=np.float32)}

    for _ in engine.run(in_memory(images()), window=count):
        pass


if __name__ == "__main__":
    main()
