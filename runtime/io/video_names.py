"""Tell a video from other inputs by its name, before anything is opened."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Final

#: The suffixes of the files that are taken for videos.
VIDEO_SUFFIXES: Final = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".h264", ".hevc", ".ivf", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4"}
) | {".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"}


def names_video(argument: str) -> bool:
    """Return whether an argument is an address, a camera, a video file, or a pattern of pictures."""
    if "://" in argument or argument.startswith("/dev/video"):
        return True
    path = Path(argument)
    return path.suffix.lower() in VIDEO_SUFFIXES or (glob.has_magic(argument) and not path.exists())
