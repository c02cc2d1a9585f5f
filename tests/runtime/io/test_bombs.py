"""A small file that would take much memory or time is read within the room, or refused in one line that says what to do.

Each is read in a separate process, whose peak the kernel measures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from hyps.runtime.bundle.manifest import Manifest, encode_manifest
from hyps.runtime.units import megabytes
from tests.runtime.io.bombs import long_header, picture_bombs, zip_entries

ROOM_BYTES = 10_000_000
#: What an engine keeps free in addition (`hyps.runtime.execution.engine.ROOM_MARGIN_BYTES`).
MARGIN_BYTES = 3_000_000
CHILD = """
import json, sys, msgspec
from pathlib import Path
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.device.process_memory import memory
from hyps.runtime.errors import InputError
from hyps.runtime.io.inputs import InputSource, read_tensors

room, folder, warm = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
found = {}
for path in [*map(Path, warm), *sorted(folder.glob("*.bomb"))]:
    before = memory().resident_bytes
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    try:
        read_tensors(InputSource(name="x", content=path), manifest, room)
        said = ""
    except InputError as error:
        said = str(error)
    found[path.stem] = [memory().peak_bytes - before, said]
print(json.dumps(found))
"""
TENSORS: Mapping[str, bytes] = {
    "npz of a long header": long_header(200 << 20),
    "npz of many members": zip_entries(60_000),
    "npy of a long header": b"\x93NUMPY\x02\x00" + (0xFFFFFFFF).to_bytes(4, "little") + b" " * 100,
    "npy of nested brackets": b"\x93NUMPY\x02\x00" + (9000).to_bytes(4, "little") + b"(" * 8999 + b"\n",
}
BOMBS = {**picture_bombs(), **TENSORS}
#: Those that hold a picture like any other once the rest is left out.
READ = {
    "jpeg of many segments",
    "jpeg of many profiles",
    "jpeg of much exif",
    "jpeg of overlapping exif",
    "png of texts",
    "png of texts after its pixels",
    "png of private chunks",
    "png of a profile",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, photograph: Path) -> dict[str, tuple[int, str]]:
    """Return by name how many bytes the process grew, and the refusal, empty for a picture that was read."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux tells the peak of a stretch of time")
    folder = tmp_path_factory.mktemp("bombs")
    for name, content in BOMBS.items():
        (folder / f"{name}.bomb").write_bytes(content)
    (folder / "manifest.json").write_bytes(encode_manifest(msgspec.json.decode(MANIFEST, type=Manifest)))
    tunables = "glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=131072:glibc.malloc.trim_threshold=131072"
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(ROOM_BYTES), folder, photograph, folder / "png of texts.bomb"],
        env=os.environ | {"GLIBC_TUNABLES": tunables},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stderr == ""
    measured: dict[str, tuple[int, str]] = json.loads(done.stdout)
    return measured


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_read_within_the_room_or_refused(found: dict[str, tuple[int, str]], name: str) -> None:
    grown_bytes, said = found[name]
    assert grown_bytes <= ROOM_BYTES + MARGIN_BYTES, megabytes(grown_bytes)
    assert (said == "") == (name in READ), said
    assert "\n" not in said


MANIFEST = b"""{"version": 3, "created_by": "", "model": {"name": "", "sha256": "%s", "parameters": 0, "weight_bytes": 0},
    "target": {"name": "", "threads": 1}, "budget_bytes": 1, "huge_pages": false, "exact": true,
    "inputs": ["image"], "outputs": [{"name": "image", "probabilities": false}],
    "tensors": {"image": {"dtype": "float32", "shape": [1, 3, 32, 32]}},
    "steps": [{"name": "s", "model": {"path": "partitions/s.onnx", "size_bytes": 0, "sha256": "%s"}, "weights": null,
    "inputs": [], "outputs": [], "live": ["image"], "operators": [],
    "multiply_adds": 0, "weight_bytes": 0, "activation_bytes": 0,
    "alone_bytes": 0, "peak_bytes": 0, "pinned_bytes": 0, "ahead_bytes": 0,
    "session": {"stays_open": false, "reuses_memory": true}}],
    "preprocess": {"size": [32, 32]}}""" % (b"0" * 64, b"0" * 64)
