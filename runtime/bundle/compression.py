"""Compress and decompress the frames of a weights file with zstd (`hyps.runtime.bundle.records.files.FrameRecord`).

Trained weights differ in all bits but those of sign and exponent: only these shrink, and only apart from the others. So a
frame is the *planes* of its items, one after the other, and a block of zstd, which has one code for all its bytes, ends with
each plane. Weights repeat no sequences, so the search for those is as good as switched off: it finds chance matches, which
cost more than they save (MobileNet 0.849 of the bytes at zstd's level 1, 0.839 so).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hyps.runtime.bundle.records.files import FRAME_BYTES
from hyps.runtime.errors import LibraryError

if TYPE_CHECKING:
    from zstandard import ZstdCompressor, ZstdDecompressor


class FrameError(Exception):
    """A frame is not what it should be."""


def zstandard_module() -> Any:
    """Return the library zstandard, which compressed weights alone need. Raises `LibraryError` where it is missing."""
    try:
        import zstandard
    except ImportError:
        problem = "weights are compressed with zstandard, which is not installed"
        raise LibraryError(problem, "pip install 'hyps[compress]'") from None
    return zstandard


def frame_compressor() -> ZstdCompressor:
    """Return a compressor for frames, for one thread."""
    zstandard = zstandard_module()
    parameters = zstandard.ZstdCompressionParameters(
        strategy=zstandard.STRATEGY_FAST,
        window_log=FRAME_BYTES.bit_length() - 1,
        min_match=7,
        hash_log=6,
        chain_log=6,
        search_log=1,
        write_content_size=1,
    )
    compressor: ZstdCompressor = zstandard.ZstdCompressor(compression_params=parameters)
    return compressor


def compressed_frame(compressor: ZstdCompressor, plain: bytes, item_bytes: int) -> bytes:
    """Return the planes of items of ``item_bytes``, compressed."""
    end_block = zstandard_module().COMPRESSOBJ_FLUSH_BLOCK
    stream = compressor.compressobj(size=len(plain))
    parts = []
    for index in range(item_bytes):
        parts += [stream.compress(plain[index::item_bytes]), stream.flush(end_block)]
    return b"".join([*parts, stream.flush()])


def frame_decompressor() -> ZstdDecompressor:
    """Return a decompressor for frames, for one thread."""
    decompressor: ZstdDecompressor = zstandard_module().ZstdDecompressor(max_window_size=FRAME_BYTES)
    return decompressor


def decompress_frame(decompressor: ZstdDecompressor, stored: memoryview, planes: memoryview) -> None:
    """Write the planes of a frame to ``planes``, which they fill.

    Raises `FrameError` for a damaged frame, and for one of another size before any of it is decompressed.
    """
    zstandard = zstandard_module()
    try:
        size = zstandard.get_frame_parameters(stored).content_size
        if size != len(planes) or decompressor.stream_reader(stored).readinto(planes) != size:
            raise FrameError("it has another size")
    except zstandard.ZstdError as error:
        raise FrameError(str(error)) from None
