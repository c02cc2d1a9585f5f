"""Compile a model from a program: ``hyps.compiler.compile_model(model, bundle, memory_bytes=...)``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hyps.compiler.errors import OptionError
from hyps.compiler.pipeline import Compilation, compile_file
from hyps.compiler.requests import resolve_request, target_name
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
    onnxruntime: str | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    preprocess: str | None = None,
    labels: Path | str | None = None,
    force: bool = False,
) -> Plan:
    """Compile the ONNX file ``model`` into the folder ``bundle``, for a target, a budget in bytes, or both.

    It does what ``hypsc compile`` does: the folder is written whole or not at all, and an existing bundle is replaced only
    with ``force``. Raises `hyps.compiler.errors.CompilerError` or `hyps.passes.errors.PassError` (`DoesNotFit` names the
    smallest budget).
    """
    base = Request(split=split, images=preprocess is not None)
    request, profile = resolve_request(
        base, target=target, memory_bytes=memory_bytes, threads=threads, onnxruntime=onnxruntime
    )
    if request.budget_bytes is None:
        raise OptionError("compile_model has nothing to compile for; give target or memory_bytes")
    compilation = Compilation(
        model=Path(model),
        output=Path(bundle),
        request=request,
        target_name=target_name(profile),
        input_shapes=input_shapes or {},
        preprocess=preprocess,
        labels=Path(labels) if labels else None,
        force=force,
    )
    return compile_file(compilation).plan
