"""A step that reads rows of a table is checked: the table, its file, the indices and the result."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from hyps.runtime.bundle.integrity import check_files, read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME, Manifest, encode_manifest
from hyps.runtime.bundle.records.files import RowsRecord, WeightRecord
from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.errors import BundleError
from tests.runtime.bundle.manifest_documents import DocumentPath, changed, refusal


def with_rows(manifest: Manifest) -> Manifest:
    """Return a manifest whose first step reads rows of a table."""
    first, second = manifest.steps
    assert first.weights
    table = WeightRecord(name="table", dtype="float16", shape=(3, 2), offset=6)
    file = first.weights
    rows = RowsRecord(path=file.path, size_bytes=file.size_bytes, sha256=file.sha256, table=table)
    tensors = {
        "image": TensorRecord(dtype="int64", shape=(1, 4)),
        "hidden": TensorRecord(dtype="float16", shape=(1, 4, 2)),
        "scores": manifest.tensors["scores"],
    }
    steps = (msgspec.structs.replace(first, weights=None, rows=rows), second)
    return msgspec.structs.replace(manifest, tensors=tensors, steps=steps, preprocess=None)


WRONG_ROWS: dict[str, tuple[list[tuple[DocumentPath, object]], str]] = {
    "a table beyond the file's end": ([(("rows", "table", "offset"), 8)], "'table' does not lie within its file"),
    "a table of no known type": ([(("rows", "table", "dtype"), "int4")], "'table' is of unknown type 'int4'"),
    "a table without rows": (
        [(("rows", "table", "shape"), [])],
        "the step needs one table with rows, one input and one output",
    ),
    "rows of another length": ([(("rows", "table", "shape"), [3, 1])], "'hidden' is not made of rows of 'table'"),
    "two inputs": ([(("inputs",), ["image", "image"])], "the step needs one table with rows, one input and one output"),
}


@pytest.mark.parametrize(("changes", "expected"), WRONG_ROWS.values(), ids=WRONG_ROWS)
def test_rows_that_are_no_table_s_are_refused(
    bundle: Path, manifest: Manifest, changes: list[tuple[DocumentPath, object]], expected: str
) -> None:
    valid = with_rows(manifest)
    (bundle / MANIFEST_NAME).write_bytes(encode_manifest(valid))
    assert read_manifest(bundle) == valid
    inside = [(("steps", 0, *place), value) for place, value in changes]
    assert refusal(bundle, changed(valid, *inside)) == f"M: $.steps[0].rows: {expected}; compile the model again"


def test_indices_are_integers(bundle: Path, manifest: Manifest) -> None:
    said = "M: $.steps[0].rows: 'image' holds no indices but float32; compile the model again"
    assert refusal(bundle, changed(with_rows(manifest), (("tensors", "image", "dtype"), "float32"))) == said


def test_the_file_of_a_table_is_checked(bundle: Path, manifest: Manifest) -> None:
    valid = with_rows(manifest)
    check_files(bundle, valid)
    assert valid.steps[0].rows
    (bundle / valid.steps[0].rows.path).write_bytes(b"weights of 3rd one")
    check_files(bundle, valid, weights=False)
    with pytest.raises(BundleError, match="was changed"):
        check_files(bundle, valid)
