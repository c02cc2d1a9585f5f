"""Names that are almost right."""

from __future__ import annotations

import pytest

from hyps.compiler.preprocessing import PRESETS
from hyps.compiler.target_files import target_names
from hyps.models.catalogue import NETWORKS
from hyps.runtime.suggestions import did_you_mean, suggestion

TARGETS = target_names()


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("rpi4", TARGETS, "rpi4b-2gb"),
        ("rpi4b", TARGETS, "rpi4b-2gb"),
        ("RPI4B-8G", TARGETS, "rpi4b-8gb"),
        ("pi4", TARGETS, "rpi4b-2gb"),
        ("rpi3", TARGETS, "rpi3b"),
        ("rpi-zero", TARGETS, "rpizero2w"),
        ("rpi3b_plus", TARGETS, "rpi3b-plus"),
        ("jetson", TARGETS, "jetson-nano"),
        ("mainframe", TARGETS, None),
        ("", TARGETS, None),
        ("imagnet", PRESETS, "imagenet"),
        ("imagenet-cafe", PRESETS, "imagenet-caffe"),
        ("imagenet-v2", PRESETS, "imagenet"),
        ("vgg61", NETWORKS, "vgg16"),
        ("resnet-50", NETWORKS, "resnet50"),
        ("resent50", NETWORKS, "resnet50"),
        ("yolo", NETWORKS, "tiny_yolo"),
        ("anything", (), None),
    ],
)
def test_suggestions(name: str, known: tuple[str, ...], meant: str | None) -> None:
    assert suggestion(name, known) == meant
    assert did_you_mean(name, known) == (f"did you mean {meant!r}? " if meant else "")
