"""Write a bundle whole or not at all.

Everything goes into a temporary folder next to the destination, the manifest last. Then the folder is renamed. A failure, a
full disk or ctrl-C leaves the destination as it was.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from msgspec import UNSET, UnsetType

from hyps.compiler.bundle_writer.compress import PlacedWeight, write_compressed_weights
from hyps.compiler.bundle_writer.copy import write_bytes, write_weights
from hyps.compiler.bundle_writer.extract import Extractor, placed
from hyps.compiler.errors import WriteError
from hyps.compiler.owned_folders import REPLACED, owned_folder
from hyps.compiler.progress import Advance
from hyps.passes.cost.folding import unfolded_weights
from hyps.passes.planning.plan import Partition
from hyps.passes.planning.planner import PlannedModel
from hyps.passes.weights import Weight
from hyps.runtime.bundle.manifest import MANIFEST_NAME, FileRecord, RowsRecord, SessionRecord, Step, WeightsRecord
from hyps.runtime.units import megabytes_down, megabytes_up

#: The folder of a bundle that holds its partitions and their weights.
PARTITIONS = "partitions"
#: Copying and hashing release the interpreter lock; two threads keep two cores busy.
WRITERS = 2


def check_bundle_path(path: Path, *, force: bool) -> None:
    """Raise `WriteError` unless a bundle may be written at ``path``; ``force`` allows replacing a bundle."""
    try:
        if not path.parent.is_dir():
            raise WriteError(f"the folder {path.parent} does not exist; create it, or name another with -o")
        if not path.exists():
            return
        if not path.is_dir() or (any(path.iterdir()) and not _is_bundle(path)):
            raise WriteError(f"{path} exists and is not a bundle; name another folder with -o")
        if not force:
            raise WriteError(f"{path} exists; replace it with --force, or name another folder with -o")
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}; name another folder with -o") from None


@contextmanager
def staging_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` when the block succeeds, and is removed when it raises.

    Raises `WriteError` when the disk is full or cannot be written to.
    """
    try:
        replaces = path.exists()
        with owned_folder(path.parent, f".{path.name}-") as folder:
            folder.chmod(0o755)
            (folder / PARTITIONS).mkdir()
            yield folder
            if replaces:
                _replace(folder, path)
            else:
                folder.rename(path)  # fails if something appeared there meanwhile
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise WriteError(f"no space left to write {path}; free some, or name another disk with -o") from None
        raise WriteError(f"cannot write {path}: {error.strerror or error}; name another folder with -o") from None


def check_space(path: Path, needed_bytes: int) -> None:
    """Raise `WriteError` when the disk of ``path`` has less than ``needed_bytes`` free."""
    free = shutil.disk_usage(path.parent).free
    if free < needed_bytes:
        raise WriteError(
            f"{path} needs {megabytes_up(needed_bytes)}, its disk has {megabytes_down(free)} free; free some, or name "
            "another disk with -o"
        )


def write_partitions(folder: Path, planned: PlannedModel, advance: Advance, *, compress: bool = False) -> tuple[Step, ...]:
    """Write every partition of a plan into ``folder`` and return the steps of the schedule; ``advance`` counts bytes.

    With ``compress`` weights are compressed, except those that onnxruntime itself reads and those that are read by rows.
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
                pool.submit(_write_partition, folder, extractor, partition, file.result() if file else None)
                for partition, file in zip(planned.plan.partitions, weights, strict=True)
            ]
            return tuple(step.result() for step in steps)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _write_partition(folder: Path, extractor: Extractor, partition: Partition, file: FileRecord | None) -> Step:
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
            group=extracted.alike,
            small_weights=extracted.small,
        ),
        reason=partition.reason,
        rows=rows,
    )


def _is_bundle(path: Path) -> bool:
    """Return whether a folder looks like a bundle, even a damaged one; ``manifest.json`` alone is not enough."""
    return (path / MANIFEST_NAME).is_file() and (path / PARTITIONS).is_dir()


def _replace(folder: Path, path: Path) -> None:
    """Replace the older bundle at ``path`` with ``folder``; without the new one the older comes back."""
    with owned_folder(path.parent, f".{path.name}-", REPLACED) as older:
        path.rename(older / path.name)
        folder.rename(path)
