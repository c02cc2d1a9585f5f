"""A part of the budget may be left to other things: less stays in memory then, and what does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.sub_bundle import with_less_memory
from hyps.runtime.errors import BudgetError
from hyps.runtime.execution.loading import load_executor


def test_less_stays_in_memory_with_the_same_bits(cifar_bundle: Path) -> None:
    manifest = read_manifest(cifar_bundle)
    largest = max(step.alone_bytes for step in manifest.steps)
    spared = manifest.budget_bytes - largest
    less = with_less_memory(manifest, spared)
    assert max(step.peak_bytes for step in less.steps) <= manifest.budget_bytes - spared
    assert [step.live for step in less.steps] == [step.live for step in manifest.steps]
    assert (less.budget_bytes, less.preprocess, less.outputs) == (
        manifest.budget_bytes,
        manifest.preprocess,
        manifest.outputs,
    )
    record = manifest.tensors[manifest.inputs[0]]
    sample = {manifest.inputs[0]: np.random.default_rng(0).standard_normal(record.shape).astype(np.float32)}
    right = load_executor(cifar_bundle).run(sample)
    found = load_executor(cifar_bundle, adapt=lambda known: with_less_memory(known, spared)).run(sample)
    assert all(np.array_equal(found[name], right[name]) for name in right)


def test_where_there_is_room_nothing_changes(cifar_bundle: Path) -> None:
    manifest = read_manifest(cifar_bundle)
    spared = manifest.budget_bytes - max(step.peak_bytes for step in manifest.steps)
    assert with_less_memory(manifest, spared) is manifest


def test_what_does_not_fit_is_refused(cifar_bundle: Path) -> None:
    manifest = read_manifest(cifar_bundle)
    largest = max(step.alone_bytes for step in manifest.steps)
    with pytest.raises(BudgetError, match="are needed besides the bundle: step"):
        with_less_memory(manifest, manifest.budget_bytes - largest + 1)
