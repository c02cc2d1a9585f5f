"""Compile random graphs of real operators under random requests: each bundle computes the whole model's outputs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, note, reject, settings
from hypothesis import strategies as st
from onnx import ModelProto, checker

from hyps.compiler.jobs import Compilation
from hyps.compiler.pipeline import Compiled, compile_file
from hyps.compiler.validate import random_inputs
from hyps.passes.device import DeviceRates
from hyps.passes.errors import DoesNotFit
from hyps.passes.planning.request import Request
from hyps.runtime.errors import BundleError
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.execution.session import open_session, to_numpy
from tests.compiler.drawn import random_models
from tests.compiler.onnxes import saved

#: A process that needs no memory itself, so that small graphs are cut, split and tiled as large ones are.
NOTHING = DeviceRates(start_bytes=0, process_bytes=0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    drawn=random_models(),
    split=st.sampled_from(["auto", "layers", "pooling", "mandatory"]),
    policy=st.sampled_from(["auto", "output", "input", "spatial"]),
    threads=st.sampled_from([1, 2]),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    max_params=st.sampled_from([None, 500]),
)
def test_a_bundle_computes_what_the_whole_model_does(
    drawn: ModelProto, split: Any, policy: Any, threads: int, share: float, max_params: int | None
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        model, bundle = saved(Path(scratch) / "model.onnx", drawn), Path(scratch) / "bundle"
        request = {"split": split, "policy": policy, "threads": threads, "device": NOTHING}

        def compiled(**options: Any) -> Compiled:
            job = Request(**request | options)
            return compile_file(Compilation(model=model, output=bundle, request=job, target_name="test", force=True))

        try:
            whole = open_session(model, threads)
        except BundleError:  # a Pad that onnxruntime joins to a pooling, and then finds too wide for it
            reject()
        roomy = compiled(budget_bytes=10**12).plan
        budget = roomy.smallest_budget_bytes + int(share * (roomy.whole_peak_bytes - roomy.smallest_budget_bytes))
        try:
            made = compiled(budget_bytes=max(budget, roomy.smallest_budget_bytes), max_params=max_params)
        except DoesNotFit:
            assert max_params is not None  # one of so many parameters cannot be split so
            made = compiled(budget_bytes=max(budget, roomy.smallest_budget_bytes))
        note(f"{made.plan.budget_bytes} bytes, {len(made.plan.partitions)} partitions, {made.plan.changes}")
        for step in made.manifest.steps:
            checker.check_model(bundle / step.model.path, full_check=True)
        executor = load_executor(bundle, threads=threads)
        names = [output.name for output in made.manifest.outputs]
        for sample in random_inputs(made.manifest, 1):
            expected, found = whole.run(names, sample), executor.run(sample)
            for name in names:
                array = to_numpy(expected[name])
                assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
                if made.manifest.exact:
                    np.testing.assert_array_equal(found[name].view(np.int32), array.view(np.int32), name)
                else:
                    np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-4 * max(1e-3, np.abs(array).max()))
