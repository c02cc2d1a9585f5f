"""One contender of a benchmark in a process of its own: opens its model, runs once for every line on standard input.

    python -m tests.bench.worker bundle|picture DIR INPUT.npy THREADS
    python -m tests.bench.worker exits DIR INPUT.npy THREADS POLICY.json
    python -m tests.bench.worker default|mapped|lean MODEL.onnx INPUT.npy THREADS

``default`` is onnxruntime as it comes (weights inside the model, or in a file next to it); ``mapped`` is what a user
would pick on a small device: external data, no prepacking. ``picture`` runs a bundle as hyps-run runs pictures, by
onnxruntime's C interface, without numpy; ``exits`` runs one with exits under a policy. ``lean`` has a bundle's own session
options and environment.
The opening and every run are answered with a line of JSON, a `tests.bench.readings.Reading`; seconds of opening begin
before onnxruntime is imported.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hyps.runtime.device.process_memory import memory, restart_lean

Run = Callable[[], object]
Made = TypeVar("Made")


def bundle(path: Path, values: Path, threads: int) -> Run:
    """A bundle in the runtime's own executor, hashes checked as it comes."""
    import numpy as np

    from hyps.runtime.execution.loading import load_executor

    executor = load_executor(path, threads=threads)
    inputs = {executor.manifest.inputs[0]: np.load(values)}
    return lambda: executor.run(inputs, again=True)


def picture(path: Path, values: Path, threads: int) -> Run:
    """A bundle by onnxruntime's C interface; its input is float32."""
    from hyps.runtime.bundle.integrity import read_manifest
    from hyps.runtime.execution.c_api.library import find_library
    from hyps.runtime.execution.c_api.session import c_interface
    from hyps.runtime.execution.loading import load_executor
    from hyps.runtime.execution.tensor import RawTensor

    library = find_library()
    assert library, "onnxruntime's C library is in its package"
    interface = c_interface(library, is_lean=read_manifest(path).has_lean_code)
    executor = load_executor(path, threads=threads, interface=interface)
    name = executor.manifest.inputs[0]
    tensor = executor.manifest.tensors[name]
    content = bytearray(values.read_bytes()[-tensor.nbytes :])
    inputs = {name: RawTensor(tensor.dtype, tensor.shape, memoryview(content))}
    return lambda: executor.run(inputs, again=True)


def exits(path: Path, values: Path, threads: int) -> Run:
    """A bundle whose inferences end where the policy says that is named last."""
    import numpy as np

    from hyps.runtime.api import load

    loaded = load(path, threads=threads, exit_policy=sys.argv[5])
    inputs = {next(iter(loaded.inputs)): np.load(values)}
    return lambda: loaded.run_to_exit(inputs)


def whole(mode: str, path: Path, values: Path, threads: int) -> Run:
    """The whole model in onnxruntime."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if mode == "mapped":
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    if mode == "lean":
        from hyps.runtime.execution.session import session_options

        options = session_options(threads)
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: np.load(values)}
    return lambda: session.run(None, inputs)


def main() -> None:
    """Serve one contender."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the benchmark reports ctrl-C, once
    mode, path, values, threads = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    if mode in ("bundle", "picture", "exits", "lean"):
        restart_lean(huge_pages=mode == "lean" or '"huge_pages": true' in (path / "manifest.json").read_text())
    bundles = {"bundle": bundle, "picture": picture, "exits": exits}
    run = _answered(lambda: bundles[mode](path, values, threads) if mode in bundles else whole(mode, path, values, threads))
    for _ in sys.stdin:
        _answered(run)


def _answered(act: Callable[[], Made]) -> Made:
    """Do it, and print what it took."""
    storage, asked = _bytes_read()
    started = time.perf_counter()
    made = act()
    seconds = time.perf_counter() - started
    storage_after, asked_after = _bytes_read()
    answer = {
        "seconds": round(seconds, 6),
        "storage_bytes": storage_after - storage,
        "asked_bytes": asked_after - asked,
        "peak_bytes": memory().peak_bytes,
    }
    print(json.dumps(answer), flush=True)
    return made


def _bytes_read() -> tuple[int, int]:
    """Bytes that this process made storage give, and that it asked for by read calls (proc(5)); zeros where none tells."""
    try:
        fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    except OSError:
        return 0, 0
    return int(fields["read_bytes"]), int(fields["rchar"])


if __name__ == "__main__":
    main()
