"""Codes in a manifest are checked, and the schedule without parity shards is a whole one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hyps.runtime.bundle.codes import CodeRecord
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME, FileRecord, Manifest, OutputRecord, TensorRecord, encode_manifest
from hyps.runtime.errors import BundleError

CODE = CodeRecord(
    name="fc",
    shards=("fc/shard1of2", "fc/shard2of2"),
    parity=("fc/parity1of1",),
    coefficients=((1.0, 1.0),),
    amplification=2.0,
    error_bound=1e-6,
)


@pytest.fixture
def coded(manifest: Manifest) -> Manifest:
    """A manifest whose first step is an operator in two shards with a parity shard, before the second step."""
    first, second = manifest.steps

    def step(index: int, output: str, live: tuple[str, ...]) -> Any:
        file = FileRecord(path=f"partitions/{index:02d}.onnx", size_bytes=1, sha256="0" * 64)
        return msgspec.structs.replace(
            first, name=f"{index:02d}", model=file, weights=None, outputs=(output,), live=live, inputs=("image",)
        )

    one, two = CODE.shards
    steps = (
        step(0, CODE.parity[0], ("image",)),
        step(1, one, ("image", one)),
        step(2, two, CODE.shards),
        msgspec.structs.replace(second, inputs=CODE.shards),
    )
    record = TensorRecord(dtype="float32", shape=(1, 8))
    tensors = dict.fromkeys(CODE.tensors, record) | manifest.tensors
    return msgspec.structs.replace(manifest, steps=steps, tensors=tensors, codes=(CODE,))


def test_codes_round_trip(bundle: Path, coded: Manifest) -> None:
    (bundle / MANIFEST_NAME).write_bytes(encode_manifest(coded))
    assert read_manifest(bundle) == coded


def test_the_schedule_without_parity(bundle: Path, coded: Manifest) -> None:
    plain = coded.without_parity()
    assert [step.name for step in plain.steps] == ["01", "02", "01-second"]
    assert plain.codes == ()
    assert plain.tensors.keys() == coded.tensors.keys() - {CODE.parity[0]}
    (bundle / MANIFEST_NAME).write_bytes(encode_manifest(plain))
    assert read_manifest(bundle) == plain
    assert plain.without_parity() is plain


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a tensor that no step makes": ({"shards": ["a", "fc/shard2of2"]}, "$.codes[0]: no step makes 'a'"),
    "an input of the model": ({"shards": ["image", "fc/shard2of2"]}, "$.codes[0]: no step makes 'image'"),
    "a tensor twice": ({"shards": ["fc/shard2of2", "fc/shard2of2"]}, "$.codes[0]: a tensor is named twice"),
    "a row too few": ({"coefficients": []}, "$.codes[0].coefficients: no 1 rows of 2 numbers"),
    "a number too few": ({"coefficients": [[1.0]]}, "$.codes[0].coefficients: no 1 rows of 2 numbers"),
    "a coefficient of 0": ({"coefficients": [[1.0, 0.0]]}, "$.codes[0].coefficients: a number is 0 or not finite"),
    "no amplification": ({"amplification": 0}, "$.codes[0].amplification: no finite number above 0"),
    "an error below 0": ({"error_bound": -1.0}, "$.codes[0].error_bound: no finite number from 0 on"),
    "another shape": ({"parity": ["scores"]}, "$.codes[0]: its tensors differ in shape or type"),
    "a parity tensor that a step reads": (
        {"parity": ["fc/shard1of2"], "shards": ["fc/parity1of1", "fc/shard2of2"]},
        "$.codes: 'fc/shard1of2' is a parity tensor, and is used without decoding",
    ),
}


@pytest.mark.parametrize(("changes", "expected"), WRONG.values(), ids=WRONG)
def test_wrong_codes_are_refused(changes: dict[str, Any], expected: str, bundle: Path, coded: Manifest) -> None:
    document = json.loads(encode_manifest(coded))
    document["codes"][0] |= changes
    path = bundle / MANIFEST_NAME
    path.write_text(json.dumps(document))
    with pytest.raises(BundleError) as caught:
        read_manifest(bundle)
    assert str(caught.value).replace(str(path), "M").startswith(f"M: {expected}")


@pytest.mark.parametrize("shards", [[], ["p"] * 5], ids=["no parity shard", "five"])
def test_one_to_four_parity_shards(shards: list[str], bundle: Path, coded: Manifest) -> None:
    document = json.loads(encode_manifest(coded))
    document["codes"][0]["parity"] = shards
    (bundle / MANIFEST_NAME).write_text(json.dumps(document))
    with pytest.raises(BundleError, match=r"length .* - at `\$\.codes\[0\]\.parity`"):
        read_manifest(bundle)


def test_two_codes_of_one_operator_are_refused(bundle: Path, coded: Manifest) -> None:
    (bundle / MANIFEST_NAME).write_bytes(encode_manifest(msgspec.structs.replace(coded, codes=(CODE, CODE))))
    with pytest.raises(BundleError, match="'fc' has two codes"):
        read_manifest(bundle)


def test_a_parity_tensor_is_no_output(bundle: Path, coded: Manifest) -> None:
    steps = tuple(msgspec.structs.replace(step, live=(*step.live, CODE.parity[0])) for step in coded.steps)
    outputs = (*coded.outputs, OutputRecord(name=CODE.parity[0], probabilities=False))
    wrong = msgspec.structs.replace(coded, steps=steps, outputs=outputs)
    (bundle / MANIFEST_NAME).write_bytes(encode_manifest(wrong))
    with pytest.raises(BundleError, match="is a parity tensor, and is used without decoding"):
        read_manifest(bundle)
