"""Every file of a bundle is checked: its kind, its size, its hash, and that no link leads out of the bundle."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from hyps.runtime.bundle.integrity import check_files
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.errors import BundleError

FIRST = "partitions/00-first.onnx"


def test_a_whole_bundle_passes(bundle: Path, manifest: Manifest) -> None:
    check_files(bundle, manifest)


def test_a_bundle_behind_a_link_passes(bundle: Path, manifest: Manifest, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(bundle)
    check_files(link, manifest)


def remove(bundle: Path) -> None:
    (bundle / FIRST).unlink()


def change_a_byte(bundle: Path) -> None:
    content = bytearray((bundle / FIRST).read_bytes())
    content[-1] ^= 1
    (bundle / FIRST).write_bytes(content)


def truncate(bundle: Path) -> None:
    os.truncate(bundle / FIRST, 17)


def lengthen(bundle: Path) -> None:
    os.truncate(bundle / FIRST, 19)


def swap(bundle: Path) -> None:
    first, second = bundle / FIRST, bundle / "partitions/01-second.onnx"
    other = second.read_bytes()
    first.rename(second)
    first.write_bytes(other)


def link(bundle: Path) -> None:
    """Put a link to a file outside, with the right content, in the file's place."""
    outside = bundle.parent / "outside"
    (bundle / FIRST).rename(outside)
    (bundle / FIRST).symlink_to(outside)


def link_inside(bundle: Path) -> None:
    (bundle / FIRST).rename(bundle / "partitions/model")
    (bundle / FIRST).symlink_to("model")


def link_to_nothing(bundle: Path) -> None:
    (bundle / FIRST).unlink()
    (bundle / FIRST).symlink_to("nothing")


def link_the_folder(bundle: Path) -> None:
    outside = bundle.parent / "outside"
    (bundle / "partitions").rename(outside)
    (bundle / "partitions").symlink_to(outside)


def make_a_folder(bundle: Path) -> None:
    (bundle / FIRST).unlink()
    (bundle / FIRST).mkdir()


def make_a_pipe(bundle: Path) -> None:
    (bundle / FIRST).unlink()
    os.mkfifo(bundle / FIRST)


LEADS_OUT = "F leads out of the bundle; copy the bundle again, without links"
IS_MISSING = "F is missing; copy the bundle again, or compile the model again"
NOT_PLAIN = "F is no plain file; copy the bundle again, or compile the model again"
WAS_CHANGED = "F was changed: its sha256 is not the manifest's; copy the bundle again"
DAMAGE: list[tuple[Callable[[Path], None], str]] = [
    (remove, IS_MISSING),
    (change_a_byte, WAS_CHANGED),
    (truncate, "F holds 17 bytes, the manifest says 18; copy the bundle again"),
    (lengthen, "F holds 19 bytes, the manifest says 18; copy the bundle again"),
    (swap, WAS_CHANGED),
    (link, LEADS_OUT),
    (link_inside, NOT_PLAIN),
    (link_to_nothing, IS_MISSING),
    (link_the_folder, LEADS_OUT),
    (make_a_folder, NOT_PLAIN),
    (make_a_pipe, NOT_PLAIN),
]


@pytest.mark.parametrize(("damage", "expected"), DAMAGE, ids=[damage.__name__ for damage, _ in DAMAGE])
def test_a_damaged_bundle_is_refused(
    bundle: Path, manifest: Manifest, damage: Callable[[Path], None], expected: str
) -> None:
    damage(bundle)
    with pytest.raises(BundleError) as caught:
        check_files(bundle, manifest)
    assert str(caught.value) == expected.replace("F", str(bundle / FIRST), 1)


@pytest.mark.parametrize("file", ["00-first.weights", "01-second.onnx", "01-second.weights"])
def test_every_file_is_checked(bundle: Path, manifest: Manifest, file: str) -> None:
    path = bundle / "partitions" / file
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(BundleError) as caught:
        check_files(bundle, manifest)
    assert str(caught.value) == WAS_CHANGED.replace("F", str(path), 1)


def test_without_hashes_sizes_are_still_checked(bundle: Path, manifest: Manifest) -> None:
    change_a_byte(bundle)
    check_files(bundle, manifest, models=False, weights=False)
    truncate(bundle)
    with pytest.raises(BundleError, match="holds 17 bytes"):
        check_files(bundle, manifest, models=False, weights=False)


def test_links_in_a_circle_are_refused(bundle: Path, manifest: Manifest) -> None:
    (bundle / "partitions").rename(bundle / "gone")
    (bundle / "partitions").symlink_to("partitions")
    with pytest.raises(BundleError) as caught:
        check_files(bundle, manifest)
    assert str(caught.value) in (
        f"cannot read {bundle / FIRST}: links in a circle; copy the bundle again",
        IS_MISSING.replace("F", str(bundle / FIRST), 1),  # as pathlib says since Python 3.13
    )


def test_a_file_that_cannot_be_read_is_refused(bundle: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbid)
    with pytest.raises(BundleError) as caught:
        check_files(bundle, manifest)
    assert str(caught.value) == f"cannot read {bundle / FIRST}: Permission denied; copy the bundle again"


def test_hashing_is_sha256_of_the_whole_file(bundle: Path, manifest: Manifest) -> None:
    content = os.urandom(3_000_000)
    (bundle / FIRST).write_bytes(content)
    model = msgspec.structs.replace(
        manifest.steps[0].model, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
    steps = (msgspec.structs.replace(manifest.steps[0], model=model), manifest.steps[1])
    check_files(bundle, msgspec.structs.replace(manifest, steps=steps))
