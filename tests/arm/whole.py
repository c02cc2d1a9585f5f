"""On the board: a whole model in onnxruntime, on one input file after the other; says what it read and how long it took.

    whole.py inside|mapped|lean MODEL.onnx OUTPUTS.npz INPUT.npy ...

``inside`` is onnxruntime as it comes. ``mapped`` is what a user would pick on a small device: external data, no prepacking.
``lean`` also goes without the arena and without memory patterns, which reserve a block as large as the weights: as a bundle
is run. The outputs are named after the input files.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort


def main() -> None:
    """Run one model."""
    mode, model, saved, *inputs = sys.argv[1:]
    started = time.perf_counter()
    session = ort.InferenceSession(model, _options(mode), providers=["CPUExecutionProvider"])
    opened, read_before = time.perf_counter(), _read_bytes()
    name = session.get_inputs()[0].name
    outputs = {Path(path).stem: session.run(None, {name: np.load(path)})[0] for path in inputs}
    said = {
        "load_s": opened - started,
        "run_s": time.perf_counter() - opened,
        "run_read_bytes": _read_bytes() - read_before,
    }
    np.savez(saved, **outputs)
    print(json.dumps(said), flush=True)


def _options(mode: str) -> ort.SessionOptions:
    options = ort.SessionOptions()
    if mode != "inside":
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.add_session_config_entry("session.disable_prepacking", "1")
    if mode == "lean":
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
    return options


def _read_bytes() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["read_bytes"])


if __name__ == "__main__":
    main()
