"""Test what is said of this machine's processor against what onnxruntime computes on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hyps.runtime.device.instruction_set import InstructionSet, instruction_set
from tests.passes.nets import Net, run


def test_products_saturate_where_it_is_said(tmp_path: Path) -> None:
    net = Net()
    net.input("x", 1, 64, data_type=2)  # uint8
    net.node("MatMulInteger", "x", net.constant("w", np.full((64, 16), 127, np.int8)), to="y")
    net.output("y", data_type=6)  # int32
    found = run(net.model(tmp_path), {"x": np.full((1, 64), 255, np.uint8)}, tmp_path)["y"]
    assert (found == 64 * 255 * 127).all() != instruction_set().saturates


@pytest.mark.parametrize(
    ("machine", "features", "saturates"),
    [
        ("x86_64", ("avx", "avx2"), True),
        ("x86_64", ("avx2", "avx512f", "avx512_vnni"), False),
        ("x86_64", ("avx2", "avx_vnni"), False),
        ("x86_64", (), False),
        ("aarch64", ("asimd",), False),
    ],
)
def test_x86_without_vnni_saturates(machine: str, features: tuple[str, ...], saturates: bool) -> None:
    assert InstructionSet(machine=machine, features=features).saturates == saturates
