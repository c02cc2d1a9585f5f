"""Test how sub-bundles reach a worker: only its own, resumed, checked, and none twice."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hyps.runtime.bundle.integrity import check_files, read_manifest
from hyps.runtime.bundle.manifest import Manifest, encode_manifest
from hyps.runtime.cluster.protocol.messages import Orders, SubBundleOrder
from hyps.runtime.cluster.transfer.file_cache import FileCache
from hyps.runtime.cluster.transfer.file_server import FileServer
from hyps.runtime.errors import BundleError


@pytest.fixture(params=[False, True], ids=["http", "https"])
def server(request: pytest.FixtureRequest) -> Iterator[FileServer]:
    made = FileServer("127.0.0.1", tls=request.param)
    yield made
    made.close()


def ordered(server: FileServer, bundle: Path, manifest: Manifest, worker: str = "w1") -> Orders:
    document = encode_manifest(manifest)
    sha256 = hashlib.sha256(document).hexdigest()
    shelf: dict[str, Path | bytes] = {file.sha256: bundle / file.path for file in manifest.files}
    token = server.grant(worker, {**shelf, sha256: document})
    order = SubBundleOrder(number=0, sha256=sha256, size_bytes=len(document))
    return Orders(epoch=1, url=server.url, token=token, authority=server.authority, sub_bundles=(order,))


def test_a_sub_bundle_is_fetched_once(server: FileServer, bundle: Path, manifest: Manifest, tmp_path: Path) -> None:
    orders = ordered(server, bundle, manifest)
    cache = FileCache(tmp_path / "cache")
    folder = cache.fetch(orders, orders.sub_bundles[0])
    assert read_manifest(folder) == manifest
    check_files(folder, manifest)
    size = sum(file.size_bytes for file in manifest.files) + orders.sub_bundles[0].size_bytes
    assert cache.fetched_bytes == size
    assert cache.fetch(orders, orders.sub_bundles[0]) == folder
    again = FileCache(tmp_path / "cache")
    again.fetch(orders, orders.sub_bundles[0])
    assert (cache.fetched_bytes, again.fetched_bytes) == (size, 0)


def test_a_download_resumes_where_it_broke_off(server: FileServer, bundle: Path, manifest: Manifest, tmp_path: Path) -> None:
    orders = ordered(server, bundle, manifest)
    cache = FileCache(tmp_path / "cache")
    for file in manifest.files:
        (tmp_path / "cache" / "files" / f"{file.sha256}.part").write_bytes((bundle / file.path).read_bytes()[:10])
    cache.fetch(orders, orders.sub_bundles[0])
    size = sum(file.size_bytes for file in manifest.files) + orders.sub_bundles[0].size_bytes
    assert cache.fetched_bytes == size - 10 * len(manifest.files)


@pytest.mark.parametrize("rubbish", [b"rubbish", b"rubbish" * 100])
def test_a_part_of_another_file_is_downloaded_again(
    server: FileServer, bundle: Path, manifest: Manifest, tmp_path: Path, rubbish: bytes
) -> None:
    orders = ordered(server, bundle, manifest)
    cache = FileCache(tmp_path / "cache")
    (tmp_path / "cache" / "files" / f"{manifest.files[0].sha256}.part").write_bytes(rubbish)
    check_files(cache.fetch(orders, orders.sub_bundles[0]), manifest)


def test_the_longest_unused_go_first(server: FileServer, bundle: Path, manifest: Manifest, tmp_path: Path) -> None:
    """An ordered sub-bundle stays, also beyond the limit, with the files that it shares with deleted ones."""
    cache = FileCache(tmp_path / "cache")
    first, last = (msgspec.structs.replace(manifest, steps=steps) for steps in (manifest.steps[:1], manifest.steps[1:]))
    orders = [ordered(server, bundle, each, f"w{number}") for number, each in enumerate((manifest, first, last))]
    folders = [cache.fetch(each, each.sub_bundles[0]) for each in orders]
    for age, folder in enumerate(folders):
        os.utime(folder, (1000 - age, 1000 - age))
    files = tmp_path / "cache" / "files"
    kept = {orders[1].sub_bundles[0].sha256}
    total = sum(file.stat().st_size for file in files.iterdir())
    cache.prune(kept, total)
    assert all(folder.exists() for folder in folders)
    cache.prune(kept, total - 1)
    assert [folder.exists() for folder in folders] == [True, True, False]
    cache.prune(kept, 0)
    assert [folder.exists() for folder in folders] == [False, True, False]
    check_files(folders[1], first)
    assert {file.name for file in files.iterdir()} == kept | {file.sha256 for file in first.files}


def test_a_worker_gets_nothing_of_others(server: FileServer, bundle: Path, manifest: Manifest, tmp_path: Path) -> None:
    own = ordered(server, bundle, manifest)
    other = ordered(server, bundle, msgspec.structs.replace(manifest, steps=manifest.steps[:1]), "w2")
    assert own.token != other.token
    with pytest.raises(BundleError, match="the manager answers 404"):
        FileCache(tmp_path / "a").fetch(msgspec.structs.replace(own, token=other.token), own.sub_bundles[0])
    for token in ("", "x", "wrong"):
        with pytest.raises(BundleError, match="the manager answers 404"):
            FileCache(tmp_path / "b").fetch(msgspec.structs.replace(own, token=token), own.sub_bundles[0])


def test_a_file_that_was_changed_is_refused(server: FileServer, bundle: Path, manifest: Manifest, tmp_path: Path) -> None:
    orders = ordered(server, bundle, manifest)
    path = bundle / manifest.files[0].path
    path.write_bytes(b"x" * manifest.files[0].size_bytes)
    with pytest.raises(BundleError, match="its sha256 is another"):
        FileCache(tmp_path / "cache").fetch(orders, orders.sub_bundles[0])
    path.write_bytes(b"short")
    with pytest.raises(BundleError, match="it ends after 5 bytes"):
        FileCache(tmp_path / "cache").fetch(orders, orders.sub_bundles[0])


def test_a_server_of_another_authority_is_refused(bundle: Path, manifest: Manifest, tmp_path: Path) -> None:
    server, other = (FileServer("127.0.0.1", tls=True) for _ in range(2))
    orders = msgspec.structs.replace(ordered(server, bundle, manifest), authority=other.authority)
    with pytest.raises(BundleError, match="certificate verify failed"):
        FileCache(tmp_path / "cache").fetch(orders, orders.sub_bundles[0])
    server.close()
    other.close()


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:1", "file:///etc/passwd", "http://[", "https://127.0.0.1:1"])
def test_an_invalid_address(bundle: Path, manifest: Manifest, tmp_path: Path, url: str) -> None:
    order = SubBundleOrder(number=0, sha256="0" * 64, size_bytes=10)
    with pytest.raises(BundleError, match=r"is not an address of a manager|refused"):
        FileCache(tmp_path).fetch(Orders(epoch=1, url=url, token="t", sub_bundles=(order,)), order)


def test_a_sub_bundle_that_leads_out_of_its_folder_is_refused(
    server: FileServer, bundle: Path, manifest: Manifest, tmp_path: Path
) -> None:
    document = encode_manifest(manifest).replace(b"partitions/00-first.onnx", b"../../../00-firs.onnx1234")
    sha256 = hashlib.sha256(document).hexdigest()
    order = SubBundleOrder(number=0, sha256=sha256, size_bytes=len(document))
    orders = Orders(
        epoch=1,
        url=server.url,
        token=server.grant("w1", {sha256: document}),
        authority=server.authority,
        sub_bundles=(order,),
    )
    with pytest.raises(BundleError, match=r"sub-bundle 0: .*regex"):
        FileCache(tmp_path / "cache").fetch(orders, order)
