"""Give a device damaged pictures, tensors and manifests."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME, encode_manifest
from hyps.runtime.errors import RuntimeFault
from hyps.runtime.io.inputs import InputSource, read_tensors
from tests.fuzz.compiler_targets import small_bundle
from tests.fuzz.mutation import damaged_json
from tests.fuzz.target import Read, Target
from tests.runtime.io.pictures import PHOTOGRAPH, encoded

#: The memory that one input may take, and what `hyps.runtime.execution.engine.ROOM_MARGIN_BYTES` keeps free next to it.
ROOM_BYTES, _MARGIN_BYTES = 10_000_000, 3_000_000
_IMAGE = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)


def _picture_seeds(scratch: Path) -> Sequence[bytes]:
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = 6, "camera"
    picture = PHOTOGRAPH.resize((40, 30))
    kinds = [encoded(picture, kind, exif=exif) for kind in ("JPEG", "PNG", "WEBP", "TIFF")]
    kinds += [encoded(picture.convert("P"), kind) for kind in ("GIF", "BMP", "PNG", "TIFF")]
    kinds += [encoded(picture, "JPEG", progressive=True, comment=b"c", icc_profile=bytes(9)), encoded(picture, "PPM")]
    kinds += [encoded(picture, "TIFF", compression=kind) for kind in ("tiff_lzw", "tiff_adobe_deflate", "packbits")]
    return [*kinds, encoded(picture, "WEBP", save_all=True, append_images=[picture.rotate(90)])]


def _tensor_seeds(scratch: Path) -> Sequence[bytes]:
    plain, archive, packed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(plain, _IMAGE)
    np.savez(archive, image=_IMAGE)
    np.savez_compressed(packed, image=_IMAGE)
    return [plain.getvalue(), archive.getvalue(), packed.getvalue()]


def _manifest_seeds(scratch: Path) -> Sequence[bytes]:
    """Return the manifest of a bundle whose weights stay in memory, and that of one which reads them each time."""
    manifest = read_manifest(small_bundle(scratch))
    replace = msgspec.structs.replace
    steps = tuple(replace(step, pinned_bytes=0, ahead_bytes=step.weights_file_bytes) for step in manifest.steps)
    return [encode_manifest(manifest), encode_manifest(replace(manifest, steps=steps))]


def _tensors_reader(scratch: Path) -> Read:
    manifest = read_manifest(small_bundle(scratch))
    path = scratch / "input"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        read_tensors(InputSource(name="x", content=path), manifest, ROOM_BYTES)

    return read


def _bundle_reader(scratch: Path) -> Read:
    """Return a function that opens a bundle with a damaged manifest, and runs it on a picture and in batches."""
    from hyps.runtime.execution.local_engine import LocalEngine

    bundle = scratch / "damaged"
    shutil.rmtree(bundle, ignore_errors=True)
    shutil.copytree(small_bundle(scratch), bundle)
    picture = encoded(PHOTOGRAPH.resize((40, 30)))

    def read(content: bytes) -> None:
        (bundle / MANIFEST_NAME).write_bytes(content)
        for batch in (1, 2):
            options: dict[str, Any] = {"threads": None, "verify": True, "custom_ops": None, "repeat": 1, "profile": False}
            engine = LocalEngine.load(bundle, batch=batch, **options)
            sources = [InputSource(name=f"{number}", content=picture) for number in range(3)]
            for result in engine.run(sources):
                if result.error:
                    raise result.error

    return read


TARGETS: Mapping[str, Target] = {
    "picture": Target(
        seeds=_picture_seeds, reader=_tensors_reader, mendable=(RuntimeFault,), grown_bytes=ROOM_BYTES + _MARGIN_BYTES
    ),
    "tensor": Target(
        seeds=_tensor_seeds, reader=_tensors_reader, mendable=(RuntimeFault,), grown_bytes=ROOM_BYTES + _MARGIN_BYTES
    ),
    "manifest": Target(
        seeds=_manifest_seeds, reader=_bundle_reader, mendable=(RuntimeFault,), damaged=damaged_json, seconds=30.0
    ),
}
