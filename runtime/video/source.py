"""Open the video that the arguments of ``hyps-run`` name."""

from __future__ import annotations

import glob
from pathlib import Path

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.errors import InputError
from hyps.runtime.io.video_names import names_video
from hyps.runtime.video.frames import FrameSource


def open_video(arguments: tuple[str, ...], manifest: Manifest) -> FrameSource:
    """Open a video, or the pictures that stand for its frames.

    Raises `InputError` for what is no video, for more than one, and for a bundle that has no memory for it.
    """
    videos = [each for each in arguments if names_video(each) and not glob.has_magic(each)]
    if manifest.preprocess is None or not manifest.video:
        name = (videos or arguments)[0]
        raise InputError(f"this bundle has no room to decode {name}; compile it with --preprocess and --video 1280x720")
    if videos and len(arguments) > 1:
        raise InputError(f"{len(arguments)} inputs with a video among them; run videos one by one")
    if videos:
        from hyps.runtime.video.clip import Clip

        return Clip(_existing(videos[0]), manifest.video)
    from hyps.runtime.video.picture_sequence import PictureSequence, picture_files

    name = arguments[0] if len(arguments) == 1 else f"{arguments[0]} and {len(arguments) - 1} more"
    return PictureSequence(name, picture_files(arguments), manifest.preprocess, manifest.video)


def _existing(address: str) -> str:
    """Return the address. Raises `InputError` for a file that does not exist."""
    if "://" not in address and not Path(address).exists():
        raise InputError(f"{address} does not exist; name a video, a camera or an address")
    return address
