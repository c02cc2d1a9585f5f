"""Choose, before anything large is imported, the interface to onnxruntime that runs the inputs of ``hyps-run``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.cli.run_options import RunOptions
from hyps.runtime.errors import InputError
from hyps.runtime.execution.c_api.library import find_library
from hyps.runtime.io.inputs import InputSource, sources


class ChosenLibrary(NamedTuple):
    """The C library of onnxruntime, and whether its code is to be mapped a few pages at a time."""

    path: Path
    is_lean: bool


def c_library(options: RunOptions) -> ChosenLibrary | None:
    """Return the C library that can run the inputs: pictures, through a network of numbers, one after the other.

    None where only numpy and onnxruntime's Python module can. Raises `BundleError` for a faulty manifest.
    """
    engine, report = options.engine, options.report
    if options.names_video:  # windows are made by numpy
        return None
    writes_table = report.output is not None and report.output.suffix == ".parquet"
    if engine.exits.may_end_early:  # what decides at an exit needs numpy
        return None
    if engine.is_remote or engine.custom_ops or engine.batch > 1 or report.save or writes_table:
        return None
    manifest = read_manifest(engine.bundle)
    path = find_library() if manifest.takes_pictures_alone and _are_pictures(options.inputs) else None
    return ChosenLibrary(path, manifest.has_lean_code) if path else None


def _are_pictures(arguments: Iterable[str]) -> bool:
    try:
        return all(isinstance(source, InputSource) and not source.holds_tensors for source in sources(arguments))
    except InputError:  # reported when the bundle is open
        return False
