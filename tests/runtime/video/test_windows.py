"""Test that windows of a video give the answers of its frames read one by one, whatever stride, hop and engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV, of the extra 'video', decodes")

import av
import msgspec
from PIL import Image

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.video.clip import Clip
from hyps.runtime.video.frame_values import frame_values
from hyps.runtime.video.frames import FrameAccount
from hyps.runtime.video.streams import EveryWindow
from hyps.runtime.video.windows import WindowRing
from tests.runtime.video.clips import compile_clip_network, write_clip

COUNT, LENGTH = 30, 4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_clip_network(tmp_path_factory.mktemp("clips"), LENGTH)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", COUNT)


def picture(frame: av.VideoFrame) -> Image.Image:
    return Image.fromarray(frame.to_ndarray(format="rgb24"))


def all_frames(clip: Path, manifest: Manifest) -> np.ndarray:
    """Return every frame of a clip as the network takes it, read without anything that is tested here but its resizing."""
    assert manifest.preprocess
    with av.open(str(clip)) as container:
        return np.stack([frame_values(picture(frame), manifest.preprocess) for frame in container.decode(video=0)])


def windows_of(
    clip: Path, manifest: Manifest, account: FrameAccount, stride: int, hop: int
) -> list[tuple[tuple[int, int], np.ndarray]]:
    """Return each window's first and last frame, and its tensor."""
    assert manifest.preprocess and manifest.video
    ring = WindowRing("clip", manifest.preprocess, account, stride=stride, hop=hop)
    source = Clip(str(clip), manifest.video)
    found = []
    for window in EveryWindow(source=source, ring=ring):
        (tensor,) = window.read(manifest, lambda: 0).values()
        found.append(((window.stamps[0].number, window.stamps[1].number), np.asarray(tensor)))
    source.close()
    return found


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("hop", [1, 2, 3, 4, 7])
def test_streaming_equals_offline(bundle: Path, clip: Path, stride: int, hop: int) -> None:
    manifest, account = read_manifest(bundle), FrameAccount()
    frames = all_frames(clip, manifest)[::stride]
    starts = range(0, len(frames) - LENGTH + 1, hop)
    found = windows_of(clip, manifest, account, stride, hop)
    assert [numbers for numbers, _ in found] == [(first * stride, (first + LENGTH - 1) * stride) for first in starts]
    executor = load_executor(bundle)
    for first, (_, tensor) in zip(starts, found, strict=True):
        expected = frames[first : first + LENGTH].transpose(1, 0, 2, 3)[np.newaxis]
        assert np.array_equal(tensor, expected)
        answers = [executor.run({"clip": values})["scores"] for values in (tensor, expected)]
        assert np.array_equal(*answers)
    assert account.read == COUNT == account.used + account.dropped.total()
    assert account.dropped["stride"] == COUNT - len(frames)
    assert account.used == len({frame for first in starts for frame in range(first, first + LENGTH)})


def test_each_window_of_the_square_differs(bundle: Path, clip: Path) -> None:
    tensors = [tensor for _, tensor in windows_of(clip, read_manifest(bundle), FrameAccount(), 1, 1)]
    assert len({tensor.tobytes() for tensor in tensors}) == len(tensors) == COUNT - LENGTH + 1


@pytest.mark.parametrize(
    ("layout", "axis"), [("NCTHW", 2), ("NTCHW", 1), ("NTHWC", 1)], ids=["channels first", "time first", "channels last"]
)
def test_layouts(bundle: Path, clip: Path, layout: str, axis: int) -> None:
    manifest = read_manifest(bundle)
    assert manifest.preprocess
    recipe = msgspec.structs.replace(manifest.preprocess, layout=layout)
    tensors = windows_of(clip, msgspec.structs.replace(manifest, preprocess=recipe), FrameAccount(), 1, 1)
    assert tensors[0][1].shape == recipe.input_shape
    assert recipe.input_shape[axis] == LENGTH
    reference = windows_of(clip, manifest, FrameAccount(), 1, 1)
    order = [layout.index(letter) for letter in "NCTHW"]
    assert all(np.array_equal(a.transpose(order), b) for (_, a), (_, b) in zip(tensors, reference, strict=True))
