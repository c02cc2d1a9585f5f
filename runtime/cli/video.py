"""Run a video through a bundle: ``hyps-run DIR clip.mp4``, window after window."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing

import msgspec

from hyps.runtime.cli.reporter import Reporter
from hyps.runtime.cli.run_options import RunOptions, VideoOptions
from hyps.runtime.errors import InputError
from hyps.runtime.execution.engine import Engine
from hyps.runtime.io.results import WindowRecord
from hyps.runtime.terminal.console import json_text, show
from hyps.runtime.video.frames import FrameAccount, FrameSource, FrameStamp
from hyps.runtime.video.source import open_video
from hyps.runtime.video.streams import EveryWindow, LatestWindow
from hyps.runtime.video.windows import Window, WindowRing


class VideoSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The last line of ``--json``: what became of every frame of a video."""

    video: str
    frames_read: int
    frames_used: int
    windows: int
    dropped: dict[str, int]


def run_video(options: RunOptions, engine: Engine) -> int:
    """Run the windows of a video, report each, and account for every frame; return the exit code. Raises `RuntimeFault`."""
    with closing(open_video(options.inputs, engine.manifest)) as source:
        return _run(options, engine, source)


def _run(options: RunOptions, engine: Engine, source: FrameSource) -> int:
    video, recipe = options.video, engine.manifest.preprocess
    assert recipe is not None
    length = recipe.frames or 1
    if video.window is not None and video.window != length:
        raise InputError(f"--window {video.window}: this bundle's windows have {length} frames; leave --window out")
    account = FrameAccount()
    ring = WindowRing(source.name, recipe, account, stride=video.stride, hop=video.hop or length)
    sent: deque[tuple[FrameStamp, FrameStamp]] = deque()

    def windows() -> Iterator[Window]:
        for window in _stream(source, ring, video):
            sent.append(window.stamps)
            yield window

    status, count = 0, _expected(source.count, length, video.stride, video.hop or length)
    if source.count is not None and not count:
        needed = (length - 1) * video.stride + 1
        raise InputError(f"{source.name} has {source.count} frames, and a window takes {needed}; give a longer one")
    with Reporter(options, engine.manifest, count, None) as reporter:
        for result in engine.run(windows(), reporter):
            status = max(status, reporter.report(result, window=_record(*sent.popleft())))
            del result
    if not options.report.quiet:
        show([_summary(account, source.name, as_json=options.report.json)])
    return status


def _stream(source: FrameSource, ring: WindowRing, video: VideoOptions) -> EveryWindow | LatestWindow:
    """Return the stream of windows that ``--live`` asks for; a file without it comes as fast as it is computed."""
    live = video.live or ("latest" if source.is_live else "every")
    is_paced = video.live is not None and not source.is_live
    if live == "latest":
        return LatestWindow(source, ring, is_paced=is_paced)
    return EveryWindow(source=source, ring=ring, is_paced=is_paced, max_latency_s=video.max_latency_s)


def _expected(frames: int | None, length: int, stride: int, hop: int) -> int:
    """Return about how many windows so many frames make."""
    taken = -(-(frames or 0) // stride)
    return max(0, (taken - length) // hop + 1) if taken >= length else 0


def _record(first: FrameStamp, last: FrameStamp) -> WindowRecord:
    """Return what a result says of its window, whose answer has just come."""
    return WindowRecord(
        first_frame=first.number,
        last_frame=last.number,
        begin_s=round(first.time_s, 6),
        end_s=round(last.time_s, 6),
        age_s=round(time.monotonic() - last.arrived_s, 6),
    )


def _summary(account: FrameAccount, name: str, *, as_json: bool) -> str:
    if not as_json:
        return account.line(name)
    summary = VideoSummary(
        video=name,
        frames_read=account.read,
        frames_used=account.used,
        windows=account.windows,
        dropped=dict(account.dropped),
    )
    return json_text(msgspec.json.encode(summary))
