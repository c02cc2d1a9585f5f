"""Test that a bundle leaves room for decoding a video, and says so; and that wrong requests are one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hyps.compiler import compile_model
from hyps.compiler.errors import OptionError
from hyps.compiler.video import asked_video
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.video_memory import decoding_bytes, window_bytes

BUDGET_BYTES = 150_000_000


@pytest.fixture
def compiled(root: Path, tmp_path: Path) -> Any:
    def call(**options: Any) -> Manifest:
        compile_model(
            root / "models/cifar10_vgg.onnx", tmp_path / "bundle", memory_bytes=BUDGET_BYTES, force=True, **options
        )
        return read_manifest(tmp_path / "bundle")

    return call


def peak(manifest: Manifest) -> int:
    return max(step.peak_bytes for step in manifest.steps)


def test_every_peak_counts_decoding(compiled: Any) -> None:
    plain = compiled(preprocess="cifar10")
    video = compiled(preprocess="cifar10", video=(640, 360))
    assert not plain.video
    assert (video.video.width, video.video.height) == (640, 360)
    assert video.video.memory_bytes == decoding_bytes(640, 360) + window_bytes(video.preprocess)
    assert peak(video) - peak(plain) == video.video.memory_bytes
    assert peak(video) <= BUDGET_BYTES


def test_larger_frames_take_more() -> None:
    sizes = [(176, 144), (640, 360), (1280, 720), (1920, 1080)]
    taken = [decoding_bytes(*size) for size in sizes]
    assert taken == sorted({*taken})
    assert decoding_bytes(1280, 720, pixel_bytes=3) > decoding_bytes(1280, 720)


def test_video_needs_preprocessing(compiled: Any) -> None:
    with pytest.raises(OptionError, match="--video is for models of one input"):
        compiled(video=(640, 360))


@pytest.mark.parametrize("text", ["640", "640x", "0x360", "640x99999", "axb", "-1x2"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"write e\.g\. --video 1280x720"):
        asked_video(text)


def test_sizes_are_parsed() -> None:
    assert asked_video("640x360") == (640, 360)
    assert asked_video(None) is None
