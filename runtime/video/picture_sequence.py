"""Read pictures as the frames of a video, in the order of their names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from hyps.runtime.bundle.records.preprocessing import Preprocess
from hyps.runtime.bundle.records.video import VideoRecord
from hyps.runtime.errors import InputError, RoomError
from hyps.runtime.io.images import upright_picture
from hyps.runtime.io.picture_file import PICTURE_SUFFIXES
from hyps.runtime.video.frames import DecodedFrame

#: The frames a second that pictures stand for: they have no times of their own.
RATE = 25.0


class PictureSequence:
    """Pictures as frames: an `hyps.runtime.video.frames.FrameSource`. ``room`` bounds what decoding one takes."""

    is_live = False

    def __init__(self, name: str, files: list[Path], recipe: Preprocess, room: VideoRecord) -> None:
        self.name, self._files, self._recipe, self._room = name, files, recipe, room
        self.count: int | None = len(files)

    def frames(self) -> Iterator[DecodedFrame]:
        """Yield every picture; one that cannot be read is broken."""
        for number, file in enumerate(self._files):
            yield DecodedFrame(number=number, time_s=number / RATE, picture=self._picture(file))

    def close(self) -> None:
        """Do nothing: each picture's file is closed once it is read."""

    def _picture(self, file: Path) -> Image.Image | None:
        try:
            return upright_picture(file, str(file), self._recipe, self._room.memory_bytes)
        except RoomError:
            raise
        except InputError:
            return None


def picture_files(arguments: tuple[str, ...]) -> list[Path]:
    """Return the pictures that arguments name: files, folders, and patterns such as ``frames/*.jpg``, in natural order.

    Raises `InputError` where one names none.
    """
    found: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            files = list(path.iterdir())
        else:
            files = [path] if path.exists() else list(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        pictures = sorted((file for file in files if file.suffix.lower() in PICTURE_SUFFIXES), key=_natural)
        if not pictures:
            raise InputError(
                f"{argument} names no pictures; give a video, a folder of pictures, or a pattern such as 'f/*.jpg'"
            )
        found += pictures
    return found


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return a key by which frame2 comes before frame10."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", path.name)]
