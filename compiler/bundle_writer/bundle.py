"""Write a plan's partitions and their weights into the folder that becomes a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath

from msgspec import UNSET, UnsetType

from hyps.compiler.bundle_writer.compress import PlacedWeight, write_compressed_weights
from hyps.compiler.bundle_writer.copy import write_bytes, write_weights
from hyps.compiler.bundle_writer.extract import Extractor, placed
from hyps.compiler.errors import WriteError
from hyps.compiler.progress import Advance
from hyps.passes.cost.folding import unfolded_weights
from hyps.passes.planning.plan import Partition
from hyps.passes.planning.planner import PlannedModel
from hyps.passes.weights import Weight
from hyps.runtime.bundle import bundle_folder
from hyps.runtime.bundle.bundle_folder import PARTITIONS
from hyps.runtime.bundle.records.files import FileRecord, RowsRecord, WeightsRecord
from hyps.runtime.bundle.records.steps import SessionRecord, Step

#: Copying and hashing release the interpreter lock; two threads keep two cores busy.
WRITERS = 2


def check_bundle_path(path: Path, *, force: bool) -> None:
    """Raise `WriteError` unless a bundle may be written at ``path``; ``force`` allows replacing a bundle."""
    bundle_folder.check_is_writable(path, WriteError, force=force)


def check_space(path: Path, needed_bytes: int) -> None:
    """Raise `WriteError` unless the disk of ``path`` has room for a bundle of this size."""
    bundle_folder.check_free_bytes(path, needed_bytes, WriteError)


def staging_folder(path: Path) -> AbstractContextManager[Path]:
    """Yield a temporary folder that becomes ``path`` when the block succeeds, and is removed when it raises.

    Raises `WriteError` when the disk is full or cannot be written to.
    """
    return bundle_folder.whole_or_absent(path, WriteError)


def write_partitions(
    folder: Path,
    planned: PlannedModel,
    tuned_bytes: Mapping[str, int],
    advance: Advance,
    *,
    compress: bool = False,
) -> tuple[Step, ...]:
    """Write every partition of a plan into ``folder`` and return the steps of the schedule; ``advance`` counts bytes.

    ``tuned_bytes`` are those of `hyps.passes.planning.tuned_memory`. With ``compress`` weights are compressed, except those
    that onnxruntime itself reads and those that are read by rows.
    """
    extractor = Extractor(planned.model, planned.plan.partitions, unfolded_weights(planned.graph))
    tables = {extractor.contents(partition) for partition in planned.plan.partitions if partition.reads_rows}
    with ThreadPoolExecutor(WRITERS) as pool:
        files: dict[tuple[Weight, ...], Future[FileRecord]] = {}

        def weights_file(partition: Partition) -> Future[FileRecord] | None:
            """Return the file of a partition's weights: another's, if that has the same contents."""
            contents = extractor.contents(partition)
            if contents and contents not in files:
                name = f"{PARTITIONS}/{partition.name}.weights"
                item_bytes = extractor.item_bytes(partition) if compress and contents not in tables else None
                if item_bytes:
                    items = [PlacedWeight(offset, weight, item_bytes[weight]) for offset, weight in placed(contents)]
                    files[contents] = pool.submit(write_compressed_weights, folder, name, items, advance)
                else:
                    files[contents] = pool.submit(write_weights, folder, name, placed(contents), advance)
            return files.get(contents)

        try:
            weights = [weights_file(partition) for partition in planned.plan.partitions]
            steps = [
                pool.submit(
                    _write_partition,
                    folder,
                    extractor,
                    partition,
                    file.result() if file else None,
                    tuned_bytes.get(partition.name, UNSET),
                )
                for partition, file in zip(planned.plan.partitions, weights, strict=True)
            ]
            return tuple(step.result() for step in steps)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _write_partition(
    folder: Path, extractor: Extractor, partition: Partition, file: FileRecord | None, tuned_bytes: int | UnsetType
) -> Step:
    compressed = file.compressed if isinstance(file, WeightsRecord) else UNSET
    stored = compressed or file
    extracted = extractor.extract(
        partition, PurePosixPath(stored.path).name if stored else "", compressed.size_bytes if compressed else 0
    )
    content = extracted.model.SerializeToString(deterministic=True)
    model = write_bytes(folder, f"{PARTITIONS}/{partition.name}.onnx", content)
    weights: WeightsRecord | None = None
    rows: RowsRecord | UnsetType = UNSET
    if file and partition.reads_rows:
        (table,) = extracted.tensors
        rows = RowsRecord(path=file.path, size_bytes=file.size_bytes, sha256=file.sha256, table=table)
    elif file:
        weights = WeightsRecord(
            path=file.path,
            size_bytes=file.size_bytes,
            sha256=file.sha256,
            tensors=extracted.tensors,
            compressed=compressed,
        )
    return Step(
        name=partition.name,
        model=model,
        weights=weights,
        inputs=partition.inputs,
        outputs=partition.outputs,
        live=partition.live,
        operators=partition.operators,
        multiply_adds=partition.multiply_adds,
        weight_bytes=partition.weight_bytes,
        activation_bytes=partition.activation_bytes,
        alone_bytes=partition.alone_bytes,
        peak_bytes=partition.peak_bytes,
        pinned_bytes=min(partition.pinned_bytes, weights.size_bytes if weights else 0),
        ahead_bytes=partition.ahead_bytes,
        session=SessionRecord(
            stays_open=partition.kept,
            reuses_memory=partition.reuse,
            is_optimizable=not extracted.is_plain,
            group=extracted.group,
            small_weights=extracted.small,
            tier=UNSET if partition.tier == "lean" else partition.tier,
        ),
        reason=partition.reason,
        rows=rows,
        tuned_bytes=tuned_bytes,
    )
