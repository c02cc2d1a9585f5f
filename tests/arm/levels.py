"""On the board: run a model as onnxruntime optimises it at two levels, and keep what each makes of it.

    levels.py MODEL.onnx INPUT.npy ARRAYS.npz

The levels are EXTENDED, at which a bundle's steps are optimised, and ALL, at which ``hyps-run tune`` optimises them.
ARRAYS.npz has the first output and the bytes of the model that was run, less its weights: ``ALL`` and ``ALL.onnx``, say.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort


def main() -> None:
    """Run one model at both levels."""
    model, values, saved = sys.argv[1:]
    arrays = {}
    for level in ("EXTENDED", "ALL"):
        path = Path(f"/tmp/{level}.onnx")
        session = ort.InferenceSession(model, _options(level, path), providers=["CPUExecutionProvider"])
        arrays[level] = session.run(None, {session.get_inputs()[0].name: np.load(values)})[0]
        arrays[f"{level}.onnx"] = np.frombuffer(path.read_bytes(), np.uint8)
    np.savez(saved, **arrays)


def _options(level: str, path: Path) -> ort.SessionOptions:
    """Return a bundle's options, less the level, and the place of the optimised model."""
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.optimized_model_filepath = str(path)
    prefix = "session.optimized_model_external_initializers"
    options.add_session_config_entry(f"{prefix}_file_name", f"{level}.weights")
    options.add_session_config_entry(f"{prefix}_min_size_in_bytes", "1024")
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.log_severity_level = 4  # that the file is for this processor alone
    return options


if __name__ == "__main__":
    main()
