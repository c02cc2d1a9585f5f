"""The manifest is read strictly: an error is one line with its place, and no path leads out of the bundle."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from hyps.runtime.bundle import integrity
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME, Manifest, encode_manifest
from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.errors import BundleError
from tests.runtime.bundle.manifest_documents import MISSING, DocumentPath, changed, refusal


def test_round_trip(bundle: Path, manifest: Manifest) -> None:
    assert read_manifest(bundle) == manifest
    assert [file.path for file in manifest.files] == [
        "partitions/00-first.onnx",
        "partitions/00-first.weights",
        "partitions/01-second.onnx",
        "partitions/01-second.weights",
    ]


def test_steps_without_weights_round_trip(bundle: Path, manifest: Manifest) -> None:
    steps = tuple(msgspec.structs.replace(step, weights=None) for step in manifest.steps)
    bare = msgspec.structs.replace(manifest, steps=steps, preprocess=None, labels=None)
    (bundle / MANIFEST_NAME).write_bytes(encode_manifest(bare))
    assert read_manifest(bundle) == bare
    assert len(bare.files) == 2


@pytest.mark.parametrize("version", [0, 1, 2, -1, 999999999])
def test_another_version_is_named(bundle: Path, manifest: Manifest, version: int) -> None:
    assert refusal(bundle, changed(manifest, (("version",), version))) == (
        f"M has format version {version}, this hyps-run reads version 3; "
        "compile the model again, or install the hyps that wrote it"
    )


def test_another_version_is_named_whatever_else_changed(bundle: Path) -> None:
    assert refusal(bundle, b'{"version": 1, "parts": []}').startswith("M has format version 1,")


@pytest.mark.parametrize("version", ["1", 1.5, None, True, 10**12])
def test_a_version_that_is_no_version_is_refused(bundle: Path, manifest: Manifest, version: object) -> None:
    assert "`$.version`" in refusal(bundle, changed(manifest, (("version",), version)))


WRONG_TYPES: dict[str, tuple[DocumentPath, object, str]] = {
    "steps[0].inputs is a number": (("steps", 0, "inputs"), 5, "Expected `array`, got `int` - at `$.steps[0].inputs`"),
    "an input is a number": (("steps", 1, "inputs"), [5], "Expected `str`, got `int` - at `$.steps[1].inputs[0]`"),
    "empty name": (("inputs",), [""], "Expected `str` of length >= 1 - at `$.inputs[0]`"),
    "no steps": (("steps",), [], "Expected `array` of length >= 1 - at `$.steps`"),
    "no outputs": (("outputs",), [], "Expected `array` of length >= 1 - at `$.outputs`"),
    "budget 0": (("budget_bytes",), 0, "Expected `int` >= 1 - at `$.budget_bytes`"),
    "budget text": (("budget_bytes",), "64MB", "Expected `int`, got `str` - at `$.budget_bytes`"),
    "threads 0": (("target", "threads"), 0, "Expected `int` >= 1 - at `$.target.threads`"),
    "negative size": (("steps", 0, "model", "size_bytes"), -1, "Expected `int` >= 0 - at `$.steps[0].model.size_bytes`"),
    "negative dimension": (("tensors", "image", "shape", 2), -4, "Expected `int` >= 0 - at `$.tensors[...].shape[2]`"),
    "no float stands for it": (
        ("steps", 0, "peak_bytes"),
        10**400,
        "Expected `int` <= 4611686018427387904 - at `$.steps[0].peak_bytes`",
    ),
    "exact is text": (("exact",), "yes", "Expected `bool`, got `str` - at `$.exact`"),
    "layout": (("preprocess", "layout"), "CHWN", "Invalid enum value 'CHWN' - at `$.preprocess.layout`"),
    "size": (("preprocess", "size"), [4, 0], "Expected `int` >= 1 - at `$.preprocess.size[1]`"),
    "frame of nothing": (
        ("steps", 0, "weights", "compressed"),
        {"path": "partitions/w.zst", "size_bytes": 0, "sha256": "0" * 64, "frames": [[0, 0, 1]]},
        "Expected `int` >= 1 - at `$.steps[0].weights.compressed.frames[0][0]`",
    ),
    "frame that is too large": (
        ("steps", 0, "weights", "compressed"),
        {"path": "partitions/w.zst", "size_bytes": 9, "sha256": "0" * 64, "frames": [[1 << 40, 9, 1]]},
        "Expected `int` <= 262144 - at `$.steps[0].weights.compressed.frames[0][0]`",
    ),
    "frame of items that are too large": (
        ("steps", 0, "weights", "compressed"),
        {"path": "partitions/w.zst", "size_bytes": 9, "sha256": "0" * 64, "frames": [[18, 9, 9]]},
        "Expected `int` <= 8 - at `$.steps[0].weights.compressed.frames[0][2]`",
    ),
    "labels": (("labels",), [1, 2, 3, 4], "Expected `str`, got `int` - at `$.labels[0]`"),
    "null": (("tensors",), None, "Expected `object`, got `null` - at `$.tensors`"),
    "missing field": (
        ("steps", 0, "model", "sha256"),
        MISSING,
        "Object missing required field `sha256` - at `$.steps[0].model`",
    ),
    "missing at the top": (("model",), MISSING, "Object missing required field `model`"),
    "unknown field": (("shell",), "rm", "Object contains unknown field `shell`"),
    "unknown field in a step": (
        ("steps", 1, "shell"),
        "rm",
        "Object contains unknown field `shell` - at `$.steps[1]`",
    ),
}


@pytest.mark.parametrize(("path", "value", "expected"), WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_wrong_types_are_named_with_their_place(
    bundle: Path, manifest: Manifest, path: DocumentPath, value: object, expected: str
) -> None:
    assert refusal(bundle, changed(manifest, (path, value))) == f"M: {expected}; compile the model again"


@pytest.mark.parametrize("digest", ["0" * 63, "0" * 65, "G" * 64, "A" * 64, "0" * 64 + "\n", ""])
def test_what_is_no_sha256_is_refused(bundle: Path, manifest: Manifest, digest: str) -> None:
    assert "- at `$.steps[0].model.sha256`" in refusal(bundle, changed(manifest, (("steps", 0, "model", "sha256"), digest)))


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "partitions/../../x",
        "partitions/../manifest.json",
        "/etc/passwd",
        "partitions//etc/passwd",
        "partitions/sub/x.onnx",
        "partitions/",
        "partitions/.hidden",
        "partitions/..",
        "partitions\\x.onnx",
        "partitions/x\0.onnx",
        "partitions/x y.onnx",
        "partitions/x.onnx\n",
        "x.onnx",
        "partitions/" + "x" * 250,
    ],
)
def test_paths_stay_in_the_partitions_folder(bundle: Path, manifest: Manifest, path: str) -> None:
    assert "- at `$.steps[0].model.path`" in refusal(bundle, changed(manifest, (("steps", 0, "model", "path"), path)))


INCONSISTENT: dict[str, tuple[list[tuple[DocumentPath, object]], str]] = {
    "an input that was never there": (
        [(("steps", 0, "inputs"), ["picture"])],
        "$.steps[0].inputs: 'picture' is not held by then",
    ),
    "an input that comes later": (
        [(("steps", 0, "inputs"), ["scores"])],
        "$.steps[0].inputs: 'scores' is not held by then",
    ),
    "an input that was dropped": (
        [(("steps", 1, "inputs"), ["hidden", "image"])],
        "$.steps[1].inputs: 'image' is not held by then",
    ),
    "the tensor between the steps is not kept": (
        [(("steps", 0, "live"), [])],
        "$.steps[1].inputs: 'hidden' is not held by then",
    ),
    "live was never produced": (
        [(("steps", 0, "live"), ["hidden", "ghost"])],
        "$.steps[0].live: 'ghost' was never produced",
    ),
    "live comes back from the dead": (
        [(("steps", 1, "live"), ["scores", "image"])],
        "$.steps[1].live: 'image' was never produced",
    ),
    "an output that no step produces": (
        [(("outputs", 0, "name"), "answer")],
        "$.outputs: no step produces 'answer'",
    ),
    "an output that is dropped": ([(("steps", 1, "live"), [])], "$.outputs: no step produces 'scores'"),
    "no entry for a tensor": ([(("tensors", "hidden"), MISSING)], "$.tensors: no entry for 'hidden'"),
    "no entry for an input": ([(("tensors", "image"), MISSING)], "$.tensors: no entry for 'image'"),
    "no entry for an output": ([(("tensors", "scores"), MISSING)], "$.tensors: no entry for 'scores'"),
    "a tensor of which no float gives the size": (
        [(("tensors", "hidden", "shape"), [1 << 61] * 20)],
        "$.tensors: 'hidden' is larger than any memory",
    ),
    "two models in one file": (
        [(("steps", 1, "model", "path"), "partitions/00-first.onnx")],
        "$.steps: two entries share a file",
    ),
    "model and weights in one file": (
        [(("steps", 0, "weights", "path"), "partitions/00-first.onnx")],
        "$.steps: two entries share a file",
    ),
    "two sizes of one weights file": (
        [(("steps", 1, "weights", "path"), "partitions/00-first.weights"), (("steps", 1, "weights", "size_bytes"), 1 << 20)],
        "$.steps: two entries differ about the weights in a file",
    ),
    "preprocessing makes another shape": (
        [(("preprocess", "size"), [4, 5])],
        "$.preprocess: does not make the model's input",
    ),
    "preprocessing makes an enormous picture": (
        [(("preprocess", "size"), [10**12, 10**12])],
        "$.preprocess: does not make the model's input",
    ),
    "preprocessing makes another dtype": (
        [(("preprocess", "dtype"), "uint8")],
        "$.preprocess: does not make the model's input",
    ),
    "preprocessing for two inputs": (
        [(("inputs",), ["image", "hidden"])],
        "$.preprocess: does not make the model's input",
    ),
    "two means for three channels": (
        [(("preprocess", "mean"), [1.0, 2.0])],
        "$.preprocess: mean and std need 1 or 3 numbers, std none that is 0",
    ),
    "division by zero": (
        [(("preprocess", "std"), [1.0, 0.0, 1.0])],
        "$.preprocess: mean and std need 1 or 3 numbers, std none that is 0",
    ),
    "too few labels": ([(("labels",), ["ant", "bee"])], "$.labels: 2 labels for 4 classes"),
}


WHERE = ("steps", 0, "weights", "compressed")
_NOT_THE_WEIGHTS = "$.steps[0].weights.compressed.frames: they do not make up the weights"
_NO_FILE = "$.steps[0].weights.compressed.frames: they do not make up a file of their own"
_NO_FRAME = "$.steps[0].weights.compressed.frames: one does not hold what it says"


def compressed(*frames: list[int], **changes: object) -> dict[str, object]:
    """Return the entry of compressed weights of 10 bytes in these frames."""
    entry = {"path": "partitions/00-first.weights.zst", "size_bytes": 10, "sha256": "0" * 64, "frames": [*frames]}
    return entry | changes


#: The weights of the first step are 18 bytes.
INCONSISTENT |= {
    "frames that hold too little": ([(WHERE, compressed([16, 10, 4]))], _NOT_THE_WEIGHTS),
    "frames that hold too much": ([(WHERE, compressed([12, 8, 4], [8, 2, 4]))], _NOT_THE_WEIGHTS),
    "frames of another file": ([(WHERE, compressed([18, 9, 2]))], _NO_FILE),
    "compressed weights in the weights' own file": (
        [(WHERE, compressed([18, 10, 2], path="partitions/00-first.weights"))],
        _NO_FILE,
    ),
    "a frame that is larger than what it holds": ([(WHERE, compressed([8, 9, 4], [10, 1, 2]))], _NO_FRAME),
    "a frame with a part of an item": ([(WHERE, compressed([18, 10, 4]))], _NO_FRAME),
    "compressed weights that onnxruntime itself reads": (
        [(WHERE, compressed([18, 10, 2])), (("steps", 0, "session", "tier"), "stock")],
        "$.steps[0].weights.compressed: onnxruntime itself reads these weights",
    ),
    "compressed weights in another step's model": (
        [(WHERE, compressed([18, 10, 2], path="partitions/01-second.onnx"))],
        "$.steps: two entries share a file",
    ),
    "two contents of one compressed file": (
        [(WHERE, compressed([18, 10, 2])), (("steps", 1, "weights", "compressed"), compressed([18, 10, 1]))],
        "$.steps: two entries differ about the weights in a file",
    ),
}


@pytest.mark.parametrize(("changes", "expected"), INCONSISTENT.values(), ids=INCONSISTENT)
def test_inconsistent_manifests_are_refused(
    bundle: Path, manifest: Manifest, changes: list[tuple[DocumentPath, object]], expected: str
) -> None:
    assert refusal(bundle, changed(manifest, *changes)) == f"M: {expected}; compile the model again"


def test_a_tensor_may_be_held_over_many_steps(bundle: Path, manifest: Manifest) -> None:
    document = changed(manifest, (("steps", 0, "live"), ["image", "hidden"]), (("steps", 1, "inputs"), ["hidden", "image"]))
    (bundle / MANIFEST_NAME).write_bytes(document)
    assert read_manifest(bundle).steps[1].inputs == ("hidden", "image")


def test_grey_and_channels_last_pictures_fit(bundle: Path, manifest: Manifest) -> None:
    for shape, changes in [
        ((1, 1, 4, 4), {"colour": "L"}),
        ((1, 4, 4, 3), {"layout": "NHWC"}),
        ((1, 4, 4, 1), {"layout": "NHWC", "colour": "L"}),
    ]:
        assert manifest.preprocess
        tensors = manifest.tensors | {"image": TensorRecord(dtype="float32", shape=shape)}
        preprocess = msgspec.structs.replace(manifest.preprocess, **changes)
        fits = msgspec.structs.replace(manifest, tensors=tensors, preprocess=preprocess)
        (bundle / MANIFEST_NAME).write_bytes(encode_manifest(fits))
        assert read_manifest(bundle) == fits


NOT_JSON = {
    "empty": b"",
    "text": b"hello",
    "without a version": b'{"created_by": "hyps test"}',
    "half": b'{"version": 3, "created_by": ',
    "two documents": b'{"version": 3}{"version": 3}',
    "a list": b"[1]",
    "no UTF-8": b'{"created_by": "\xff\xfe"}',
    "NaN": b'{"version": NaN}',
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"model": ' * 100_000,
    "deep in an unknown field": b'{"steps": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("document", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_no_manifest_is_refused(bundle: Path, document: bytes) -> None:
    assert refusal(bundle, document).startswith("M: ")


def test_a_manifest_that_is_too_large_is_not_read(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_bytes = (bundle / MANIFEST_NAME).stat().st_size
    monkeypatch.setattr(integrity, "MANIFEST_LIMIT_BYTES", limit_bytes)
    read_manifest(bundle)
    document = (bundle / MANIFEST_NAME).read_bytes() + b" "
    assert refusal(bundle, document) == f"M is larger than {limit_bytes} bytes: hypsc did not write it"


def test_the_limit_suffices_for_100_000_operators() -> None:
    assert integrity.MANIFEST_LIMIT_BYTES > 100_000 * 500


@pytest.mark.parametrize("kind", ["absent", "file", "empty"])
def test_what_is_no_bundle_is_refused(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "bundle"
    if kind == "file":
        folder.touch()
    elif kind == "empty":
        folder.mkdir()
    with pytest.raises(BundleError) as caught:
        read_manifest(folder)
    assert str(caught.value) == f"{folder} is no bundle: it has no manifest.json; make one with 'hypsc compile'"


def test_a_manifest_that_cannot_be_read_is_refused(bundle: Path) -> None:
    path = bundle / MANIFEST_NAME
    path.unlink()
    path.mkdir()
    with pytest.raises(BundleError) as caught:
        read_manifest(bundle)
    assert str(caught.value) == f"cannot read {path}: Is a directory"
