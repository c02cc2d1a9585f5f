"""Compiling for programs: ``hyps.compiler.compile_model(model, bundle, memory_bytes=...)``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hyps.compiler import pipeline
from hyps.compiler.cli import choices
from hyps.compiler.errors import OptionError
from hyps.compiler.targets import load_target
from hyps.passes.planning.plan import Plan
from hyps.passes.planning.request import CutMode, Request


def compile_model(
    model: Path | str,
    bundle: Path | str,
    *,
    target: str | None = None,
    memory_bytes: int | None = None,
    split: CutMode = "auto",
    threads: int | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    preprocess: str | None = None,
    labels: Path | str | None = None,
    force: bool = False,
) -> Plan:
    """Compile the ONNX file ``model`` into the folder ``bundle``, for a target, a budget in bytes, or both.

    As ``hypsc compile`` does: the folder is written whole or not at all, and replaced with ``force`` alone. Raises
    `hyps.compiler.errors.CompilerError` or `hyps.passes.errors.PassError` (`DoesNotFit` names the smallest budget).
    """
    device = load_target(target) if target else None
    if device is None and memory_bytes is None:
        raise OptionError("say what to compile for: target or memory_bytes")
    if device and memory_bytes is not None and memory_bytes > device.budget_bytes:
        raise OptionError(f"memory_bytes is more than {device.name} has for one process, {device.budget_bytes}")
    budget = memory_bytes if memory_bytes is not None else device.budget_bytes if device else 0
    job = pipeline.Compilation(
        model=Path(model),
        output=Path(bundle),
        request=choices.asked(device, budget, threads, Request(split=split, images=preprocess is not None)),
        target_name=choices.target_name(device),
        input_shapes=input_shapes or {},
        preprocess=preprocess,
        labels=Path(labels) if labels else None,
        force=force,
    )
    return pipeline.compile_file(job).plan
