"""Test what is read of video files, streams and pictures: times, rotation, damage, gaps; and what is refused."""

from __future__ import annotations

import socket
import threading
from contextlib import closing
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV, of the extra 'video', decodes")

import av
from PIL import Image

from hyps.runtime.bundle.records.preprocessing import Preprocess
from hyps.runtime.bundle.records.video import VideoRecord
from hyps.runtime.errors import InputError, RoomError
from hyps.runtime.video.clip import Clip
from hyps.runtime.video.frames import DecodedFrame
from hyps.runtime.video.picture_sequence import PictureSequence, picture_files
from tests.runtime.video.clips import HEIGHT, WIDTH, pictures, write_clip, write_sound

ROOM = VideoRecord(width=WIDTH, height=HEIGHT, memory_bytes=40_000_000)
COUNT = 20


def read(path: Path, room: VideoRecord = ROOM) -> list[DecodedFrame]:
    with closing(Clip(str(path), room)) as clip:
        return list(clip.frames())


def test_frames_have_numbers_times_and_pictures(tmp_path: Path) -> None:
    times = [0, 4, 9, 10, 30, 31, 32, 50, 90, 91]
    frames = read(write_clip(tmp_path / "clip.mkv", len(times), times=times))
    assert [frame.number for frame in frames] == [*range(len(times))]
    assert [round(frame.time_s, 3) for frame in frames] == [time / 100 for time in times]
    for frame, expected in zip(frames, pictures(len(times)), strict=True):
        assert frame.picture
        assert np.abs(np.asarray(frame.picture).astype(int) - expected).mean() < 30  # of 255: colour is coded coarsely


def test_a_file_says_how_many_frames_it_has(tmp_path: Path) -> None:
    with closing(Clip(str(write_clip(tmp_path / "clip.mp4", COUNT)), ROOM)) as clip:
        assert (clip.count, clip.is_live) == (COUNT, False)


@pytest.mark.parametrize(
    ("matrix", "turn"), [((0, 1, -1, 0), Image.Transpose.ROTATE_270), ((-1, 0, 0, -1), Image.Transpose.ROTATE_180)]
)
def test_rotated_clips_are_turned_upright(tmp_path: Path, matrix: tuple[int, ...], turn: Image.Transpose) -> None:
    plain = write_clip(tmp_path / "plain.mp4", 3)
    content = plain.read_bytes()
    start = content.index(b"tkhd") + 4 + 40  # version, flags, times, identifiers, layer and volume come before the matrix
    a, b, c, d = (value << 16 for value in matrix)
    turned = b"".join(value.to_bytes(4, "big", signed=True) for value in (a, b, 0, c, d, 0, 0, 0, 1 << 30))
    (tmp_path / "turned.mp4").write_bytes(content[:start] + turned + content[start + 36 :])
    for upright, original in zip(read(tmp_path / "turned.mp4"), read(plain), strict=True):
        assert upright.picture and original.picture
        assert np.array_equal(np.asarray(upright.picture), np.asarray(original.picture.transpose(turn)))


def test_damaged_frames_are_counted_and_the_others_read(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.avi", COUNT, codec="mjpeg")
    content = bytearray(clip.read_bytes())
    pictures_at = [at for at in range(len(content)) if content.startswith(b"\xff\xd8", at)]
    content[pictures_at[5] : pictures_at[6] - 8] = bytes(pictures_at[6] - 8 - pictures_at[5])
    clip.write_bytes(content)
    frames = read(clip)
    assert [frame.number for frame in frames if frame.picture is None] == [5]
    assert len(frames) == COUNT


def test_a_file_that_ends_early_gives_what_it_has(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", COUNT)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 2 // 3])
    frames = read(clip)
    assert 0 < sum(frame.picture is not None for frame in frames) < COUNT


def test_what_is_no_video_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    whole = write_clip(tmp_path / "whole.mp4", COUNT)
    (tmp_path / "half.mp4").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile {whole}\n")
    (tmp_path / "list.ts").write_text(f"#EXTM3U\n#EXTINF:1,\nfile://{whole}\n#EXT-X-ENDLIST\n")
    cases = {
        "text.mp4": "cannot read video",
        "half.mp4": "cannot read video",
        "list.mp4": "cannot read video",
        "list.ts": "cannot read video",
        write_sound(tmp_path / "sound.wav").name: "cannot read video",
        write_sound(tmp_path / "sound.mkv").name: "has no video in it",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=message) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_larger_frames_than_the_bundle_has_room_for_are_refused(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 2)
    with pytest.raises(InputError, match=r"64 x 48 pixels .*room for 32 x 48; compile with --video 64x48"):
        read(clip, VideoRecord(width=32, height=48, memory_bytes=40_000_000))


@pytest.mark.parametrize("address", ["ftp://127.0.0.1/clip.mp4", "file:///etc/passwd", "concat://a|b"])
def test_only_a_few_protocols_are_read(address: str) -> None:
    with pytest.raises(InputError, match="an address that is not read"):
        Clip(address, ROOM)


def test_a_stream_that_comes_back_has_a_gap(tmp_path: Path) -> None:
    content = write_clip(tmp_path / "clip.ts", COUNT, codec="mpeg2video").read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                with connection:
                    connection.sendall(content)

        threading.Thread(target=serve, daemon=True).start()
        with closing(Clip(f"tcp://127.0.0.1:{server.getsockname()[1]}", ROOM)) as clip:
            assert (clip.is_live, clip.count) == (True, None)
            frames = list(islice(clip.frames(), 2 * COUNT))
    assert [frame.number for frame in frames] == [*range(2 * COUNT)]
    assert [frame.number for frame in frames if frame.follows_gap] == [COUNT]
    assert all(first.time_s < second.time_s for first, second in pairwise(frames))


def test_pictures_are_frames_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number, pixels in enumerate(pictures(12)):
        Image.fromarray(pixels).save(tmp_path / f"frame{number}.png")
    (tmp_path / "frame5.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    recipe = Preprocess(size=(24, 32), frames=4, layout="NCTHW")
    for argument in (str(tmp_path), f"{tmp_path}/frame*.png"):
        frames = list(PictureSequence("pictures", picture_files((argument,)), recipe, ROOM).frames())
        assert [frame.number for frame in frames if frame.picture is None] == [5]
        for frame, pixels in zip(frames, pictures(12), strict=True):
            assert frame.picture is None or np.array_equal(np.asarray(frame.picture), pixels)
    with pytest.raises(InputError, match="names no pictures"):
        picture_files((f"{tmp_path}/none*.png",))


def test_a_picture_without_room_is_no_broken_frame(tmp_path: Path) -> None:
    Image.new("RGB", (4000, 4000)).save(tmp_path / "large.png")
    recipe = Preprocess(size=(24, 32), frames=4, layout="NCTHW")
    with pytest.raises(RoomError, match="needs"):
        list(PictureSequence("large", picture_files((str(tmp_path),)), recipe, ROOM).frames())


def test_av_is_told_the_formats_that_it_knows() -> None:
    from hyps.runtime.video.clip import _FORMATS

    assert {*_FORMATS.split(",")} <= {alias for name in av.formats_available for alias in name.split(",")}
