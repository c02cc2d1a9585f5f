"""Decode a video file, a network stream or a camera, one frame after the other, by PyAV (extra ``hyps[video]``).

One thread decodes: more would hold more frames. FFmpeg may open no further file or address than the one that is named, and
only formats of videos: a list of other files is no video.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, cast

from PIL import Image

from hyps.runtime.bundle.records.video import VideoRecord
from hyps.runtime.bundle.video_memory import decoding_bytes
from hyps.runtime.errors import InputError
from hyps.runtime.video.frames import DecodedFrame

try:
    import av
except ImportError:
    raise InputError("reading a video needs PyAV: pip install 'hyps[video]', or give a folder of pictures") from None

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_FORMATS: Final = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,ogg,flv,asf,mjpeg,gif,ivf,rtsp,rtp"
)
#: The protocols that an address of each scheme may use.
_PROTOCOLS: Final = {
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsp,rtp,udp,tcp,tls",
    "http": "http,tcp",
    "https": "https,http,tls,tcp",
    "tcp": "tcp",
    "udp": "udp",
}
_TURNS: Final = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
#: The seconds that a stream may be silent, and those between two attempts to open it again.
SILENCE_S, RETRY_S = 10.0, 1.0
#: The least time that a stream was away.
_LEAST_GAP_S: Final = 0.001
#: The attempts after which a stream that was lost is given up.
_ATTEMPTS: Final = 30


class Clip:
    """A video at an address or in a file: an `hyps.runtime.video.frames.FrameSource`.

    Opening it raises `InputError` where it is none, or where its frames are larger than ``room`` says.
    """

    def __init__(self, address: str, room: VideoRecord) -> None:
        self.name, self._room = address, room
        self._scheme = address.partition("://")[0] if "://" in address else ""
        self.is_live = bool(self._scheme) or address.startswith("/dev/")
        self._container = self._opened()
        stream = self._stream()
        self.count = None if self.is_live else _frame_count(self._container, stream)

    def frames(self) -> Iterator[DecodedFrame]:
        """Yield every frame; a stream that ends is opened again, and its next frame follows a gap."""
        number, follows_gap, begun, time_s = 0, False, time.monotonic(), 0.0
        while True:
            offset_s = max(time.monotonic() - begun, time_s + _LEAST_GAP_S) if number else 0.0
            first_s: float | None = None
            for frame in self._decoded():
                seconds = frame.time if frame and frame.time is not None else None
                first_s = seconds if first_s is None else first_s
                time_s = seconds - first_s + offset_s if seconds is not None and first_s is not None else offset_s
                yield DecodedFrame(
                    number=number,
                    time_s=time_s,
                    picture=self._picture(frame) if frame else None,
                    follows_gap=follows_gap,
                )
                number, follows_gap = number + 1, False
            if not self.is_live:
                return
            self._open_again()
            follows_gap = number > 0

    def close(self) -> None:
        """Close the file or stream."""
        self._container.close()

    def _decoded(self) -> Iterator[VideoFrame | None]:
        """Yield the frames of one connection, None for one that cannot be decoded."""
        packets = self._container.demux(self._stream())
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError:  # the file ends in the middle of a frame, or the stream is lost
                yield from () if self.is_live else (None,)
                return
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                yield None
                continue
            yield from (None if frame.is_corrupt else frame for frame in frames)

    def _picture(self, frame: VideoFrame) -> Image.Image:
        """Return a frame's picture, upright. Raises `InputError` for one that is larger than the first."""
        self._check_size(frame.width, frame.height, frame.format)
        picture = cast(Image.Image, frame.to_image())  # type: ignore[no-untyped-call]
        turn = _TURNS.get(round(frame.rotation) % 360)
        return picture.transpose(turn) if turn is not None else picture

    def _check_size(self, width: int, height: int, form: Any) -> None:
        """Raise `InputError` for frames that take more to decode than the bundle's peaks count for it."""
        pixel_bytes = form.padded_bits_per_pixel / 8 if form else 1.5
        room = self._room
        allowed = decoding_bytes(room.width, room.height)
        if width <= 0 or height <= 0 or decoding_bytes(width, height, pixel_bytes) > allowed:
            raise InputError(
                f"{self.name} has frames of {width} x {height} pixels ({form.name if form else 'unknown'}), and the bundle "
                f"has room for {room.width} x {room.height}; compile with --video {width}x{height}, or scale the video down"
            )

    def _opened(self) -> InputContainer:
        """Open the address. Raises `InputError`."""
        options = {"protocol_whitelist": _PROTOCOLS.get(self._scheme, "file"), "format_whitelist": _FORMATS}
        form = "v4l2" if self.name.startswith("/dev/") else None
        if self._scheme and self._scheme not in _PROTOCOLS:
            raise InputError(f"{self.name} is at an address that is not read; give {', '.join(_PROTOCOLS)}:// or a file")
        try:
            return av.open(
                self.name,
                format=form,
                options=options if form is None else {},
                timeout=(SILENCE_S, SILENCE_S) if self.is_live else None,
            )
        except av.error.FFmpegError as error:
            raise InputError(f"cannot read video {self.name}: {error.strerror}; is it a video, and whole?") from None

    def _stream(self) -> VideoStream:
        """Return the first video of the container. Raises `InputError` where there is none, or no decoder for it."""
        if not self._container.streams.video:
            raise InputError(f"{self.name} has no video in it, only sound or nothing; give a video")
        stream = self._container.streams.video[0]
        if stream.codec_context is None:
            raise InputError(f"{self.name} has a video of a codec that is not known; convert it to H.264")
        stream.thread_type = "SLICE"
        stream.codec_context.thread_count = 1
        self._check_size(stream.codec_context.width, stream.codec_context.height, stream.codec_context.format)
        return stream

    def _open_again(self) -> None:
        """Open a stream that ended. Raises `InputError` after many attempts in vain."""
        self._container.close()
        for attempt in range(_ATTEMPTS):
            try:
                self._container = self._opened()
            except InputError:
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(RETRY_S)
            else:
                return


def _frame_count(container: InputContainer, stream: VideoStream) -> int | None:
    """Return about how many frames a file has; None where it does not say."""
    if stream.frames:
        return stream.frames
    if container.duration and stream.average_rate:
        return round(container.duration / 1e6 * float(stream.average_rate))
    return None
