"""Compile a model from a program: ``hyps.compiler.compile_model(model, bundle, memory_bytes=...)``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hyps.compiler.errors import OptionError
from hyps.compiler.jobs import Compilation
from hyps.compiler.pipeline import compile_file
from hyps.compiler.progress import Advance, OpenProgress, no_progress
from hyps.compiler.requests import (
    ShardPolicy,
    planning_request,
    requested_code,
    requested_shard,
    resolve_request,
    target_name,
)
from hyps.compiler.video import asked_video
from hyps.passes.normalize.extraction import ModelPart
from hyps.passes.planning.plan import Plan
from hyps.passes.planning.request import CutMode, HighestTier, Tile
from hyps.runtime.library_memory import Interface

#: Called with a stage of the compilation (``reading``, ``planning``, ``analysing``, ``writing``), and how much of it is
#: done, from 0 to 1. An exception that it raises ends the compilation, and nothing is left.
CompileProgress = Callable[[str, float], None]


def compile_model(
    model: Path | str,
    bundle: Path | str,
    *,
    target: str | None = None,
    memory_bytes: int | None = None,
    threads: int | None = None,
    onnxruntime: str | None = None,
    interface: Interface = "python",
    split: CutMode = "auto",
    shards: Mapping[str, tuple[str, int]] | None = None,
    codes: Mapping[str, int | tuple[int, str]] | None = None,
    tolerate: int | None = None,
    shard_policy: ShardPolicy = "auto",
    tile: Tile = "auto",
    tier: HighestTier = "auto",
    max_params: int | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    from_: Sequence[str] = (),
    until: Sequence[str] = (),
    custom_ops: Path | str | None = None,
    preprocess: str | None = None,
    labels: Path | str | None = None,
    video: tuple[int, int] | None = None,
    compress_weights: bool = False,
    tune: bool = False,
    tunable: bool = False,
    exits: Sequence[str] = (),
    exit_rates: Sequence[float] = (),
    force: bool = False,
    progress: CompileProgress | None = None,
) -> Plan:
    """Compile the ONNX file ``model`` into the folder ``bundle``, for a target, a budget in bytes, or both.

    It does what ``hypsc compile`` does, and takes the same options: ``shards={"fc6": ("output", 32)}`` is ``--shard
    fc6=output:32``, ``codes={"fc6": 1, "c1": (2, "rows")}`` is ``--code fc6=1 --code c1=2:rows``, ``from_`` and
    ``until`` are ``--from`` and ``--until``, ``exits=["auto"]`` is ``--exits auto``, ``video=(640, 480)`` is ``--video
    640x480``. The folder is written whole or not at
    all, and an existing bundle is replaced only with ``force``.
    ``progress`` is called with a stage and the share that is done.

    Raises `hyps.HypsError`: `hyps.compiler.errors.OptionError` for a wrong option, other
    `hyps.compiler.errors.CompilerError`, or `hyps.passes.errors.PassError` (`DoesNotFit` names the smallest budget).
    """
    base = planning_request(
        split=split,
        shards=[requested_shard(operator, *_method(operator, each)) for operator, each in (shards or {}).items()],
        codes=[
            requested_code(operator, *(each if isinstance(each, tuple) else (each,)))
            for operator, each in (codes or {}).items()
        ],
        tolerate=tolerate,
        shard_policy=shard_policy,
        tile=tile,
        tier=tier,
        max_params=max_params,
        images=preprocess is not None,
        tunable=tune or tunable,
        exits=_names("exits", exits),
        exit_rates=exit_rates,
    )
    request, profile = resolve_request(
        base,
        target=target,
        memory_bytes=memory_bytes,
        threads=threads,
        onnxruntime=onnxruntime,
        interface=interface,
        compress_weights=compress_weights,
    )
    if tune and request.has_codes:
        raise OptionError("tune is for one board, and codes are for a cluster of them; leave one of the two out")
    if request.budget_bytes is None and not max_params and not shards and not request.has_codes:
        raise OptionError("compile_model has nothing to compile for; give target or memory_bytes")
    compilation = Compilation(
        model=Path(model),
        output=Path(bundle),
        request=request,
        target_name=target_name(profile),
        power=profile.power if profile else None,
        input_shapes={name: _shape(name, shape) for name, shape in (input_shapes or {}).items()},
        part=ModelPart(begin=_names("from_", from_), until=_names("until", until)),
        custom_ops=Path(custom_ops) if custom_ops else None,
        preprocess=preprocess,
        labels=Path(labels) if labels else None,
        video=video and asked_video(f"{video[0]}x{video[1]}"),
        force=force,
        tune=tune,
    )
    return compile_file(compilation, _reporting(progress) if progress else no_progress).plan


def _method(operator: str, given: tuple[str, int]) -> tuple[str, int]:
    if isinstance(given, str) or len(given) != 2:
        raise OptionError(f'shards gives {operator!r} {given!r}; give a method and a number, such as ("output", 32)')
    return given


def _names(option: str, names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise OptionError(f"{option}={names!r} is one name; give a list, [{names!r}]")
    return tuple(names)


def _shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    if isinstance(shape, str) or not all(type(size) is int and size >= 0 for size in shape):
        raise OptionError(f"input_shapes gives {name!r} {shape!r}, which is no shape; give sizes such as (1, 3, 224, 224)")
    return tuple(shape)


def _reporting(progress: CompileProgress) -> OpenProgress:
    """Return the progress display that calls ``progress``, from one thread at a time."""

    @contextmanager
    def open_progress(label: str, total: int | None) -> Iterator[Advance]:
        done, lock = 0, threading.Lock()

        def advance(count: int) -> None:
            nonlocal done
            with lock:
                done += count
                if total:
                    progress(label, min(1.0, done / total))

        progress(label, 0.0)
        yield advance
        progress(label, 1.0)

    return open_progress
