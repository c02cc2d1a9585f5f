"""Reserve memory in a plan for decoding a video while the network runs (``--video``)."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from hyps.compiler.errors import OptionError
from hyps.compiler.jobs import Compilation
from hyps.compiler.preprocessing import resolve_preprocess
from hyps.passes.graph import type_name
from hyps.passes.weights import Model
from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.bundle.records.video import VideoRecord
from hyps.runtime.bundle.video_memory import decoding_bytes, window_bytes

#: The largest frame of a bundle that takes several frames, where the user names none.
DEFAULT_VIDEO: Final = (1280, 720)
#: The axes of an input of several pictures.
_CLIP_AXES: Final = 5
_LARGEST_SIDE: Final = 16_384


def asked_video(text: str | None) -> tuple[int, int] | None:
    """Parse ``WIDTHxHEIGHT``. Raises `OptionError`."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    size = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(0 < side <= _LARGEST_SIDE for side in size):
        raise OptionError(f"--video {text!r} is not of the form WIDTHxHEIGHT in pixels; write e.g. --video 1280x720")
    return size


def with_video_memory(job: Compilation, model: Model) -> Compilation:
    """Return the job with memory for decoding, where ``--video`` or an input of several frames asks for it.

    Raises `OptionError` where nothing makes a tensor of a frame.
    """
    inputs = [value for value in model.proto.graph.input if value.name not in model.weights]
    shapes = [tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in inputs]
    if job.preprocess is None or len(inputs) != 1:
        if job.video:
            raise OptionError("--video is for models of one input, a picture or several; give --preprocess too")
        return job
    if job.video is None and len(shapes[0]) != _CLIP_AXES:
        return job
    width, height = job.video or DEFAULT_VIDEO
    record = TensorRecord(dtype=type_name(inputs[0].type.tensor_type.elem_type), shape=shapes[0])
    recipe = resolve_preprocess(job.preprocess, inputs[0].name, record, takes_clips=True)
    memory_bytes = decoding_bytes(width, height) + window_bytes(recipe)
    return replace(job, video=(width, height), request=replace(job.request, video_bytes=memory_bytes))


def video_record(job: Compilation) -> VideoRecord | None:
    """Return what the manifest says of video; None for a bundle that takes none."""
    if job.video is None:
        return None
    width, height = job.video
    return VideoRecord(width=width, height=height, memory_bytes=job.request.video_bytes)
