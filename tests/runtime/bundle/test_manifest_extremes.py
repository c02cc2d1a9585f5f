"""A manifest of extreme lengths is refused at once: none makes a run endless."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME
from hyps.runtime.errors import BundleError

#: Products of so many numbers have a gigabit: computing one takes hours.
MANY = [1 << 61] * 1_000_000


def tensor(document: dict[str, Any]) -> None:
    document["tensors"]["hidden"]["shape"] = MANY


def unused_tensor(document: dict[str, Any]) -> None:
    document["tensors"]["nobody's"] = {"dtype": "float32", "shape": MANY}


def weight(document: dict[str, Any]) -> None:
    document["steps"][0]["weights"]["tensors"][0]["shape"] = MANY


def small_weight(document: dict[str, Any]) -> None:
    small = {"name": "s", "dtype": "uint8", "shape": MANY, "data": ""}
    document["steps"][0]["session"]["small_weights"] = [small]


@pytest.mark.parametrize("change", [tensor, unused_tensor, weight, small_weight])
def test_a_shape_of_a_million_dimensions_is_refused(bundle: Path, change: Any) -> None:
    document = json.loads((bundle / MANIFEST_NAME).read_bytes())
    change(document)
    (bundle / MANIFEST_NAME).write_text(json.dumps(document))
    with pytest.raises(BundleError, match="length <= 64") as caught:
        read_manifest(bundle)
    assert "\n" not in str(caught.value)
