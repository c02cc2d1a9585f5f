"""One contender of a benchmark in a process of its own: runs once for every line on standard input, answers in JSON.

    python -m tests.bench.worker bundle DIR INPUT.npy THREADS
    python -m tests.bench.worker default|external|mapped|lean MODEL.onnx INPUT.npy THREADS

``default`` and ``external`` are onnxruntime as it comes (weights inside the model, or in a file beside it); ``mapped`` is
what a user would pick on a small device: external data, no prepacking. ``lean`` has a bundle's own session options and
environment.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hyps.runtime.process import Memory, memory, restart_lean, storage_bytes_read

Run = Callable[[], Memory]


def bundle(path: Path, values: Path, threads: int) -> Run:
    """A bundle in the runtime's own executor; memory is told for the step that holds the most."""
    import numpy as np

    from hyps.runtime.executor import StepProfile, load

    executor = load(path, threads=threads, verify=False)
    inputs = {executor.manifest.inputs[0]: np.load(values)}

    seen: list[Memory] = []

    def watch(_: StepProfile) -> None:
        seen.append(memory())

    def run() -> Memory:
        executor.run(inputs, None if seen else watch, again=True)  # to be watched takes time
        return max(seen, key=lambda reading: reading.resident_bytes)

    return run


def whole(mode: str, path: Path, values: Path, threads: int) -> Run:
    """The whole model in onnxruntime."""
    import numpy as np
    import onnxruntime as ort

    from hyps.runtime.sessions import session_options

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if mode == "mapped":
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    if mode == "lean":
        options = session_options(threads)
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: np.load(values)}

    def run() -> Memory:
        session.run(None, inputs)
        return memory()

    return run


def main() -> None:
    """Serve one contender."""
    mode, path, values, threads = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    if mode in ("bundle", "lean"):
        restart_lean(huge_pages=mode == "lean" or '"huge_pages": true' in (path / "manifest.json").read_text())
    started = time.perf_counter()
    run = bundle(path, values, threads) if mode == "bundle" else whole(mode, path, values, threads)
    load_s = time.perf_counter() - started
    for _ in sys.stdin:
        read_before = storage_bytes_read()
        started = time.perf_counter()
        reading = run()
        answer = {
            "load_s": load_s,
            "run_s": time.perf_counter() - started,
            "read_bytes": storage_bytes_read() - read_before,
            "peak_bytes": memory().peak_bytes,
            "anonymous_bytes": reading.anonymous_bytes,
            "file_bytes": reading.file_bytes,
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
