"""Check that a manifest is consistent, and that the bundle on disk is the one it describes.

Nothing in a bundle is trusted: sizes are bounded, paths confined, types and hashes checked.
"""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path

import msgspec

from hyps.runtime.bundle.codes import code_problems
from hyps.runtime.bundle.exits import exit_problems
from hyps.runtime.bundle.manifest import (
    FORMAT_VERSION,
    LARGEST_COUNT,
    MANIFEST_NAME,
    STORAGE_TYPES,
    CompressedRecord,
    FileRecord,
    Manifest,
    Step,
    TensorRecord,
    WeightRecord,
    WeightsRecord,
)
from hyps.runtime.bundle.tuned_steps import with_tuned_steps
from hyps.runtime.errors import BundleError
from hyps.runtime.signals import deferred_signals

#: Larger than the manifest of a bundle of 100,000 operators.
MANIFEST_LIMIT_BYTES = 64 << 20
_COMPILE_AGAIN = "compile the model again"
_TUNE_AGAIN = "tune the bundle again"
_COPY_AGAIN = "copy the bundle again"


def read_manifest(bundle: Path) -> Manifest:
    """Read a bundle's manifest and check it; `check_files` checks the bundle's files.

    Raises `BundleError`, with the path in the manifest, for another version, wrong types or an inconsistent schedule.
    """
    path = bundle / MANIFEST_NAME
    try:
        if path.stat().st_size > MANIFEST_LIMIT_BYTES:
            raise BundleError(f"{path} is larger than {MANIFEST_LIMIT_BYTES} bytes: hypsc did not write it")
        document = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"{bundle} is no bundle: it has no {MANIFEST_NAME}", "make one with 'hypsc compile'") from None
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from None
    _check_version(path, document)
    try:
        with deferred_signals():
            manifest = msgspec.json.decode(document, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path}: {error}", _COMPILE_AGAIN) from None
    _check_tuned(path, manifest)
    for schedule in (manifest, with_tuned_steps(manifest)) if manifest.tuned else (manifest,):
        _check_schedule(path, schedule)
        _check_weights(path, schedule)
        _check_rows(path, schedule)
        _check_sessions(path, schedule)
    _check_picture(path, manifest)
    for place, problem in code_problems(manifest):
        raise BundleError(f"{path}: $.codes{place}: {problem}", _COMPILE_AGAIN)
    for place, problem in exit_problems(manifest):
        raise BundleError(f"{path}: $.exits{place}: {problem}", _COMPILE_AGAIN)
    return manifest


def _check_version(path: Path, document: bytes) -> None:
    match = re.search(rb'"version"\s*:\s*(-?\d{1,9})\s*[,}]', document[:200])
    if match and int(match[1]) != FORMAT_VERSION:
        raise BundleError(
            f"{path} has format version {int(match[1])}, this hyps-run reads version {FORMAT_VERSION}",
            "compile the model again, or install the hyps that wrote it",
        )


def _check_schedule(path: Path, manifest: Manifest) -> None:
    """Check that every tensor is held when a step reads it, and that every output is produced."""
    held = set(manifest.inputs)
    for index, step in enumerate(manifest.steps):
        where = f"{path}: $.steps[{index}]"
        if missing := [name for name in step.inputs if name not in held]:
            raise BundleError(f"{where}.inputs: {missing[0]!r} is not held by then", _COMPILE_AGAIN)
        held |= set(step.outputs)
        if missing := [name for name in step.live if name not in held]:
            raise BundleError(f"{where}.live: {missing[0]!r} was never produced", _COMPILE_AGAIN)
        held &= set(step.live)
    needed = {output.name for output in manifest.outputs}
    if missing := sorted(needed - held):
        raise BundleError(f"{path}: $.outputs: no step produces {missing[0]!r}", _COMPILE_AGAIN)
    named = needed | set(manifest.inputs) | {n for step in manifest.steps for n in (*step.inputs, *step.outputs)}
    if missing := sorted(named - set(manifest.tensors)):
        raise BundleError(f"{path}: $.tensors: no entry for {missing[0]!r}", _COMPILE_AGAIN)
    if vast := [name for name, record in manifest.tensors.items() if record.nbytes > LARGEST_COUNT]:
        raise BundleError(f"{path}: $.tensors: {vast[0]!r} is larger than any memory", _COMPILE_AGAIN)
    shared = [(file.path, _content(step, file)) for step in manifest.steps for file in step.data_files]
    contents = dict(shared)
    models = {step.model.path for step in manifest.steps}
    if len(models) < len(manifest.steps) or not models.isdisjoint(contents):
        raise BundleError(f"{path}: $.steps: two entries share a file", _COMPILE_AGAIN)
    if any(contents[name] != content for name, content in shared):
        raise BundleError(f"{path}: $.steps: two entries differ about the weights in a file", _COMPILE_AGAIN)


def _content(step: Step, file: FileRecord) -> object:
    """Return what a step says of the content of a file that other steps may share."""
    weights = step.weights
    plain = (weights.size_bytes, weights.sha256, weights.compressed) if weights and weights.compressed else None
    return file.size_bytes, file.sha256, plain


def _check_weights(path: Path, manifest: Manifest) -> None:
    """Check that every weight lies within its file, and every step's peak within the budget."""
    for index, step in enumerate(manifest.steps):
        where = f"{path}: $.steps[{index}]"
        size = step.weights_file_bytes
        for weight in step.weights.tensors if step.weights else ():
            _check_weight(f"{where}.weights", weight, size)
        if step.weights and step.weights.compressed:
            if step.session.is_stock:
                raise BundleError(f"{where}.weights.compressed: onnxruntime itself reads these weights", _COMPILE_AGAIN)
            _check_frames(f"{where}.weights.compressed", step.weights, step.weights.compressed)
        if step.pinned_bytes > size:
            raise BundleError(f"{where}.pinned_bytes: more than its weights", _COMPILE_AGAIN)
        if max(step.peak_bytes, step.alone_bytes) > manifest.budget_bytes:
            raise BundleError(f"{where}.peak_bytes: more than the budget", _COMPILE_AGAIN)
        if step.session.uses_arena and not manifest.activations:
            raise BundleError(f"{where}.session.tier: there is no arena in $.activations", _COMPILE_AGAIN)
    arena = manifest.activations
    if arena and arena.region_bytes + arena.packed_bytes > manifest.budget_bytes:
        raise BundleError(f"{path}: $.activations: more than the budget", _COMPILE_AGAIN)


def _check_weight(where: str, weight: WeightRecord, size: int) -> None:
    """Check that a weight is of a known type, and lies within its file of ``size`` bytes."""
    if weight.dtype not in STORAGE_TYPES:
        raise BundleError(f"{where}: {weight.name!r} is of unknown type {weight.dtype!r}", _COMPILE_AGAIN)
    item = STORAGE_TYPES[weight.dtype].item_bytes
    if weight.offset % item or weight.offset + weight.elements * item > size:
        raise BundleError(f"{where}: {weight.name!r} does not lie within its file", _COMPILE_AGAIN)


def _check_frames(where: str, weights: WeightsRecord, compressed: CompressedRecord) -> None:
    """Check that the frames make up the weights file and the compressed one, and that none is larger than what it holds."""
    frames = compressed.frames
    if sum(each.plain_bytes for each in frames) != weights.size_bytes:
        raise BundleError(f"{where}.frames: they do not make up the weights", _COMPILE_AGAIN)
    if sum(each.stored_bytes for each in frames) != compressed.size_bytes or compressed.path == weights.path:
        raise BundleError(f"{where}.frames: they do not make up a file of their own", _COMPILE_AGAIN)
    if any(each.stored_bytes > each.plain_bytes or each.plain_bytes % each.item_bytes for each in frames):
        raise BundleError(f"{where}.frames: one does not hold what it says", _COMPILE_AGAIN)


def _check_rows(path: Path, manifest: Manifest) -> None:
    """Check that a step which reads rows has a table, indices and nothing else, and returns rows of that table."""
    for index, step in enumerate(manifest.steps):
        if not step.rows:
            continue
        where, table = f"{path}: $.steps[{index}].rows", step.rows.table
        _check_weight(where, table, step.rows.size_bytes)
        if step.weights or len(step.inputs) != 1 or len(step.outputs) != 1 or not table.shape:
            raise BundleError(f"{where}: the step needs one table with rows, one input and one output", _COMPILE_AGAIN)
        indices, result = manifest.tensors[step.inputs[0]], manifest.tensors[step.outputs[0]]
        if indices.dtype not in ("int32", "int64"):
            raise BundleError(f"{where}: {step.inputs[0]!r} holds no indices but {indices.dtype}", _COMPILE_AGAIN)
        if result != TensorRecord(dtype=table.dtype, shape=(*indices.shape, *table.shape[1:])):
            raise BundleError(f"{where}: {step.outputs[0]!r} is not made of rows of {table.name!r}", _COMPILE_AGAIN)


def _check_sessions(path: Path, manifest: Manifest) -> None:
    """Check that small weights have the bytes of their types, and that the steps of a group can run in one session."""
    known: dict[str, object] = {}
    for index, step in enumerate(manifest.steps):
        where = f"{path}: $.steps[{index}].session"
        for weight in step.session.small_weights:
            kind = STORAGE_TYPES.get(weight.dtype)
            if kind is None or len(weight.data) != math.prod(weight.shape) * kind.item_bytes:
                raise BundleError(f"{where}.small_weights: {weight.name!r} is not of its type and shape", _COMPILE_AGAIN)
        group = step.session.group
        if group and known.setdefault(group, _interface(manifest, step)) != _interface(manifest, step):
            raise BundleError(f"{where}.group: it has other tensors than {group!r}", _COMPILE_AGAIN)


def _interface(manifest: Manifest, step: Step) -> object:
    """Return what the steps of a group have in common: types and shapes of tensors and weights, and session options."""
    tensors = [[manifest.tensors[name] for name in names] for names in (step.inputs, step.outputs)]
    large = step.weights.tensors if step.weights else ()
    weights = [[(each.dtype, each.shape) for each in records] for records in (large, step.session.small_weights)]
    return tensors, weights, step.session.is_optimizable, step.session.reuses_memory, step.session.tier


def _check_tuned(path: Path, manifest: Manifest) -> None:
    """Check that a tuned bundle has an entry for each step, and tunes none whose session others share."""
    if not manifest.tuned:
        return
    where, found = f"{path}: $.tuned.steps", manifest.tuned.steps
    if len(found) != len(manifest.steps):
        raise BundleError(f"{where}: {len(found)} entries for {len(manifest.steps)} steps", _TUNE_AGAIN)
    own_session = (not step.rows and not step.session.group for step in manifest.steps)
    if any(tuned.partition and not own for tuned, own in zip(found, own_session, strict=True)):
        raise BundleError(f"{where}: a step that has no session of its own is tuned", _TUNE_AGAIN)
    own = {file.path for step in manifest.steps for file in (step.model, *step.data_files)}
    parts = [tuned.partition for tuned in found if tuned.partition]
    if any(file.path in own for part in parts for file in part.files):
        raise BundleError(f"{where}: an entry shares a file with the compiled steps", _TUNE_AGAIN)


def _check_picture(path: Path, manifest: Manifest) -> None:
    """Check that preprocessing makes the model's only input, and that there is a label for each class."""
    if recipe := manifest.preprocess:
        channels, takes = recipe.channels, TensorRecord(dtype=recipe.dtype, shape=recipe.input_shape)
        if ("T" in recipe.layout) != (recipe.frames is not None) or (recipe.frames and not manifest.video):
            raise BundleError(f"{path}: $.preprocess: frames, layout and $.video do not agree", _COMPILE_AGAIN)
        if [manifest.tensors[name] for name in manifest.inputs] != [takes]:
            raise BundleError(f"{path}: $.preprocess: does not make the model's input", _COMPILE_AGAIN)
        if not {len(recipe.mean), len(recipe.std)} <= {1, channels} or 0.0 in recipe.std:
            raise BundleError(
                f"{path}: $.preprocess: mean and std need 1 or {channels} numbers, std none that is 0",
                _COMPILE_AGAIN,
            )
    classes = max(manifest.tensors[manifest.outputs[0].name].shape, default=1)
    if manifest.labels is not None and len(manifest.labels) != classes:
        raise BundleError(f"{path}: $.labels: {len(manifest.labels)} labels for {classes} classes", _COMPILE_AGAIN)


def check_files(bundle: Path, manifest: Manifest, *, models: bool = True, weights: bool = True) -> None:
    """Check that every file is a plain file of its size; with ``models`` and ``weights``, that these files are unchanged.

    Raises `BundleError` with the file's name. Files are read a block at a time: memory does not grow with the bundle.
    """
    hashed = {step.model.path for step in manifest.steps if models}
    hashed |= {file.path for step in manifest.steps if weights for file in step.data_files}
    for file in manifest.files:
        path = bundle / file.path
        try:
            _check_file(bundle, path, file, file.path in hashed)
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
            reason = error.strerror if isinstance(error, OSError) else "links in a circle"
            raise BundleError(f"cannot read {path}: {reason}", _COPY_AGAIN) from None


def _check_file(bundle: Path, path: Path, file: FileRecord, hashes: bool) -> None:
    if not path.resolve().is_relative_to(bundle.resolve()):
        raise BundleError(f"{path} leads out of the bundle", "copy the bundle again, without links")
    if path.is_symlink() or not path.is_file():
        problem = "is no plain file" if path.exists() else "is missing"
        raise BundleError(f"{path} {problem}", "copy the bundle again, or compile the model again")
    size = path.stat().st_size
    if size != file.size_bytes:
        raise BundleError(f"{path} holds {size} bytes, the manifest says {file.size_bytes}", _COPY_AGAIN)
    if hashes and _sha256(path) != file.sha256:
        raise BundleError(f"{path} was changed: its sha256 is not the manifest's", _COPY_AGAIN)


def _sha256(path: Path) -> str:
    with path.open("rb", buffering=0) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
