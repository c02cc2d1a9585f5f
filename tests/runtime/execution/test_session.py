"""Sessions leave mapped weights mapped, and give all their memory back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from hyps.runtime.device.process_memory import memory
from hyps.runtime.execution.session import open_session, session_options, to_numpy, to_ort
from tests.waiting import PATIENCE_S

MB = 1_000_000
SIDE = 3000  # 36 MB of weights
#: Opens, runs and drops a session; prints the growth of memory: anonymous and file while it is open, anonymous after.
CHILD = """
import sys
from pathlib import Path
import numpy as np
from hyps.runtime.device.process_memory import memory
from hyps.runtime.execution.session import open_session

x = {"x": np.ones((1, 3000), np.float32)}
open_session(Path(sys.argv[1], "small.onnx"), 1).run(["y"], {"x": x["x"][:, :8]})
before = memory()
session = open_session(Path(sys.argv[1], "large.onnx"), 1)
session.run(["y"], x)
during = memory()
del session
after = memory()
print(during.anonymous_bytes - before.anonymous_bytes, during.file_bytes - before.file_bytes)
print(after.resident_bytes - before.resident_bytes)
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a small and a large matrix product with a bias; weights start at an offset of whole pages."""
    folder = tmp_path_factory.mktemp("products")
    for name, side in (("small", 8), ("large", SIDE)):
        constants = [
            helper.make_tensor(key, TensorProto.FLOAT, shape, np.ones(shape, np.float32).tobytes(), raw=True)
            for key, shape in (("W", (side, side)), ("b", (side,)))
        ]
        graph = helper.make_graph(
            [helper.make_node("Gemm", ["x", "W", "b"], ["y"])],
            name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, side])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, side])],
            constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, folder / f"{name}.onnx", save_as_external_data=True, location=f"{name}.weights")
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells anonymous from file-backed memory")
def test_weights_stay_mapped_and_are_let_go_with_the_session(models: Path) -> None:
    """Prepacking would copy them into anonymous memory."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, models], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    anonymous, file, left = map(int, done.stdout.split())
    weight_bytes = SIDE * SIDE * 4
    assert anonymous < 4 * MB
    assert weight_bytes - MB < file < weight_bytes + 8 * MB
    assert left < 8 * MB


def test_options_are_the_recipes() -> None:
    """The effect of each was measured (DESIGN.md section 5)."""
    options = session_options(3)
    assert options.get_session_config_entry("session.disable_prepacking") == "1"
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    assert not options.enable_cpu_mem_arena
    assert not options.enable_mem_pattern
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.uint8, np.bool_])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_values_go_in_and_out_unchanged(dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    array = np.arange(6)[: int(np.prod(shape))].reshape(shape).astype(dtype)
    value = to_ort(array)
    assert to_ort(value) is value
    found = to_numpy(value)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)
    assert to_numpy(array) is array


@pytest.mark.own_process
def test_outputs_of_one_run_are_let_go_one_by_one(tmp_path: Path) -> None:
    """U-Net and Xception exceeded their budgets when a large output lived as long as its small sibling."""
    path, rows = tmp_path / "m.onnx", 10_000_000  # 40 MB: glibc always maps so much by itself
    outputs = {
        "large": ("Neg", TensorProto.FLOAT),
        "small": ("ReduceMax", TensorProto.FLOAT),
        "flags": ("Greater", TensorProto.BOOL),
    }
    nodes = [
        helper.make_node(kind, ["x", "x"] if kind == "Greater" else ["x"], [name]) for name, (kind, _) in outputs.items()
    ]
    typed = [helper.make_tensor_value_info(name, dtype, None) for name, (_, dtype) in outputs.items()]
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows])
    graph = helper.make_graph(nodes, "g", [source], typed)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    held = open_session(path, 1).run(list(outputs), {"x": np.ones(rows, np.float32)})
    with_large = memory().anonymous_bytes
    del held["large"]
    assert with_large - memory().anonymous_bytes > 3.9 * rows
    assert to_numpy(held["small"]).item() == 1
    assert to_numpy(held["flags"]).dtype == np.bool_
    assert not to_numpy(held["flags"]).any()
