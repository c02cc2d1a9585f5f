"""Exits in a manifest are checked, keep their places without parity shards, and say how likely steps run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from hyps.runtime.bundle.codes import CodeRecord
from hyps.runtime.bundle.exits import exit_records, exits_identity, likely_exits, step_reach
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME, FileRecord, Manifest, OutputRecord, TensorRecord, encode_manifest
from tests.runtime.bundle.manifest_documents import MISSING, changed, refusal


@pytest.fixture
def exiting(manifest: Manifest) -> Manifest:
    """A manifest of two steps with an exit after each."""
    first, second = manifest.steps
    first = msgspec.structs.replace(first, outputs=("hidden", "early"), live=("hidden", "early"), multiply_adds=5)
    second = msgspec.structs.replace(second, live=("early", "scores"), multiply_adds=7)
    steps = (first, second)
    return msgspec.structs.replace(
        manifest,
        steps=steps,
        outputs=tuple(OutputRecord(name=name, probabilities=False) for name in ("early", "scores")),
        tensors=manifest.tensors | {"early": manifest.tensors["scores"]},
        exits=exit_records(steps, ("early", "scores"), (0.75, 0.25)),
    )


def test_exits_round_trip(bundle: Path, exiting: Manifest) -> None:
    (bundle / MANIFEST_NAME).write_bytes(encode_manifest(exiting))
    assert read_manifest(bundle) == exiting
    assert [(each.after_step, each.macs) for each in exiting.exits] == [(0, 5), (1, 12)]


@pytest.mark.parametrize(
    ("path", "value", "refused"),
    [
        ((0, "output"), "hidden", "$.exits[0].output: 'hidden' is no output of the model"),
        ((0, "after_step"), 1, "$.exits[1]: the exits are not in the order of their depth"),
        ((0, "after_step"), 9, "$.exits[0].after_step: 'early' is not made by then"),
        ((1, "after_step"), 0, "$.exits[1].after_step: 'scores' is not made by then"),
        ((0, "macs"), 13, "$.exits[1]: the exits are not in the order of their depth"),
        ((0, "rate"), 0.5, "$.exits: their rates do not add up to 1"),
        ((0, "rate"), -0.5, "Expected `float` >= 0.0 - at `$.exits[0].rate`"),
        ((1,), MISSING, "$.exits: 1 exits, where 2 to 64 make sense"),
        ((1, "output"), "early", "$.exits: two exits have one output"),
    ],
)
def test_wrong_exits_are_refused(
    bundle: Path, exiting: Manifest, path: tuple[Any, ...], value: object, refused: str
) -> None:
    assert refused in refusal(bundle, changed(exiting, (("exits", *path), value)))


def test_an_exit_of_other_classes_is_refused(bundle: Path, exiting: Manifest) -> None:
    for shape, why in (((1, 3), "has other classes than 'scores'"), ((2, 4), "is no vector of scores of classes")):
        other = msgspec.structs.replace(
            exiting, labels=None, tensors=exiting.tensors | {"early": TensorRecord(dtype="float32", shape=shape)}
        )
        assert why in refusal(bundle, encode_manifest(other))


def test_the_last_exit_is_the_last_output(bundle: Path, exiting: Manifest) -> None:
    turned = msgspec.structs.replace(exiting, outputs=exiting.outputs[::-1])
    assert "the last exit is not the model's last output 'early'" in refusal(bundle, encode_manifest(turned))


def test_exits_keep_their_places_without_parity(exiting: Manifest) -> None:
    parity = msgspec.structs.replace(
        exiting.steps[0],
        name="parity",
        model=FileRecord(path="partitions/p.onnx", size_bytes=1, sha256="0" * 64),
        weights=None,
        outputs=("parity",),
        live=("image",),
    )
    first, second = exiting.steps
    steps = (parity, msgspec.structs.replace(first, live=("hidden", "early", "image")), second)
    code = CodeRecord(
        name="fc", shards=("hidden",), parity=("parity",), coefficients=((1.0,),), amplification=1.0, error_bound=0.0
    )
    coded = msgspec.structs.replace(
        exiting,
        steps=steps,
        codes=(code,),
        tensors=exiting.tensors | {"parity": exiting.tensors["hidden"]},
        exits=exit_records(steps, ("early", "scores"), (0.75, 0.25)),
    )
    assert [each.after_step for each in coded.exits] == [1, 2]
    plain = coded.without_parity()
    assert [each.after_step for each in plain.exits] == [0, 1]
    assert [each.rate for each in plain.exits] == [0.75, 0.25]


def test_reach_of_steps_and_likely_exits(exiting: Manifest) -> None:
    assert step_reach(exiting.exits, 2) == [1.0, 0.25]
    assert list(likely_exits([1.0, 0.25, 0.25, 0.2, 0.1])) == [0, 3]
    assert list(likely_exits([1.0, 1.0, 0.0, 0.0])) == [1]
    assert step_reach((), 3) == [1.0, 1.0, 1.0]


def test_the_identity_names_model_and_exits() -> None:
    names = [exits_identity("0" * 64, ("a", "b")), exits_identity("1" * 64, ("a", "b")), exits_identity("0" * 64, ("ab",))]
    assert len({*names}) == 3
    assert exits_identity("0" * 64, ["a", "b"]) == names[0]
