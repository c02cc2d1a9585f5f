"""Write bundles that are whole or absent: whatever fails, an older bundle stays until the new one is in place."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hyps.compiler import pipeline
from hyps.compiler.bundle_writer import copy as copying
from hyps.compiler.bundle_writer.bundle import check_bundle_path, check_space, staging_folder
from hyps.compiler.errors import WriteError
from hyps.runtime.bundle.integrity import check_files, read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME, REPORT_NAME
from hyps.runtime.errors import RuntimeFault
from tests.compiler.conftest import Bundle, Command, Compile, listing
from tests.compiler.onnxes import classifier, linear, saved

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def message_of(path: Path, *, force: bool = False) -> str:
    """Return the message with which `check_bundle_path` refuses."""
    with pytest.raises(WriteError) as caught:
        check_bundle_path(path, force=force)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def existing(classifier_bundle: Bundle, tmp_path: Path) -> Path:
    """Copy a bundle to the place of the next one."""
    path = tmp_path / "bundle"
    shutil.copytree(classifier_bundle.folder, path)
    return path


class TestDestination:
    """The checks of a bundle's path."""

    def test_new(self, tmp_path: Path) -> None:
        check_bundle_path(tmp_path / "new", force=False)

    def test_name_without_a_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        check_bundle_path(Path("new"), force=False)

    def test_no_parent(self, tmp_path: Path) -> None:
        path = tmp_path / "none" / "bundle"
        assert message_of(path) == f"the folder {path.parent} does not exist; create it, or name another with -o"

    def test_parent_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert "does not exist; create it, or name another with -o" in message_of(tmp_path / "file" / "bundle")

    def test_existing_bundle(self, existing: Path) -> None:
        assert message_of(existing) == f"{existing} exists; replace it with --force, or name another folder with -o"
        check_bundle_path(existing, force=True)

    def test_damaged_bundle_may_be_replaced(self, existing: Path) -> None:
        (existing / MANIFEST_NAME).write_text("no manifest")
        shutil.rmtree(existing / "partitions")
        (existing / "partitions").mkdir()
        check_bundle_path(existing, force=True)

    def test_empty_folder(self, tmp_path: Path) -> None:
        assert "replace it with --force" in message_of(tmp_path)
        check_bundle_path(tmp_path, force=True)

    @pytest.mark.parametrize("force", [False, True])
    @pytest.mark.parametrize("content", ["notes.txt", "manifest.json", "partitions/00.onnx", ".hidden"])
    def test_other_folder(self, content: str, force: bool, tmp_path: Path) -> None:
        """A folder with a ``manifest.json`` alone, such as a web application's, is not a bundle."""
        path = tmp_path / "precious"
        (path / content).parent.mkdir(parents=True)
        (path / content).write_text("{}")
        assert message_of(path, force=force) == f"{path} exists and is not a bundle; name another folder with -o"

    @pytest.mark.parametrize("force", [False, True])
    def test_file(self, force: bool, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.touch()
        assert "is not a bundle; name another folder with -o" in message_of(path, force=force)

    def test_name_too_long(self, tmp_path: Path) -> None:
        assert "File name too long; name another folder with -o" in message_of(tmp_path / ("x" * 300))

    def test_too_little_space(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Usage(NamedTuple):
            free: int

        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(999_999))
        check_space(tmp_path / "b", 999_999)
        with pytest.raises(WriteError, match=r"needs 1\.0 MB, its disk has 1\.000 MB free|free some, or name another disk"):
            check_space(tmp_path / "b", 1_000_000)


class TestStaged:
    """The temporary folder that becomes the bundle."""

    def test_success(self, tmp_path: Path) -> None:
        with staging_folder(tmp_path / "b") as folder:
            assert folder.parent == tmp_path
            assert not (tmp_path / "b").exists()
            (folder / "file").write_text("content")
        assert listing(tmp_path) == {"b": None, "b/partitions": None, "b/file": b"content"}
        assert (tmp_path / "b").stat().st_mode & 0o777 == 0o755

    def test_replaces_all_of_the_older(self, existing: Path) -> None:
        with staging_folder(existing) as folder:
            (folder / "file").write_text("content")
        assert listing(existing.parent) == {"bundle": None, "bundle/partitions": None, "bundle/file": b"content"}

    def test_replaces_a_link_not_its_target(self, existing: Path) -> None:
        link = existing.with_name("link")
        link.symlink_to(existing)
        before = listing(existing)
        with staging_folder(link) as folder:
            (folder / "file").write_text("content")
        assert listing(existing) == before
        assert not link.is_symlink()
        assert (link / "file").read_text() == "content"

    @pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt(), SystemExit(143)], ids=repr)
    def test_failure_inside(self, error: BaseException, existing: Path) -> None:
        before = listing(existing.parent)
        with pytest.raises(type(error)), staging_folder(existing) as folder:
            (folder / "file").write_text("content")
            raise error
        assert listing(existing.parent) == before

    @pytest.mark.parametrize(
        ("code", "problem"),
        [
            (errno.ENOSPC, "no space left to write {}; free some, or name another disk with -o"),
            (errno.EDQUOT, "no space left"),
            (errno.EFBIG, "no space left"),
            (errno.EACCES, "cannot write {}: Permission denied"),
            (errno.EIO, "cannot write {}: Input/output error"),
        ],
        ids=["ENOSPC", "EDQUOT", "EFBIG", "EACCES", "EIO"],
    )
    def test_system_error_inside(self, code: int, problem: str, existing: Path) -> None:
        before = listing(existing.parent)
        with pytest.raises(WriteError) as caught, staging_folder(existing) as folder:
            (folder / "file").write_text("content")
            raise OSError(code, os.strerror(code))
        assert problem.format(existing) in str(caught.value)
        assert listing(existing.parent) == before

    @pytest.mark.parametrize("done", [0, 1, 2], ids=["before the renames", "between them", "after them"])
    def test_interrupted_while_replacing(self, done: int, existing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ctrl-C while the folders are swapped leaves the older bundle or the new one, whole."""
        before = listing(existing.parent)
        rename, calls = Path.rename, iter(range(9))

        def interrupted(path: Path, target: Path) -> Path:
            call = next(calls)
            if call == done == 0:
                raise KeyboardInterrupt
            result = rename(path, target)
            if call == done - 1:
                raise KeyboardInterrupt
            return result

        monkeypatch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt), staging_folder(existing) as folder:
            (folder / "file").write_text("content")
        after = listing(existing.parent)
        assert after == (before if done < 2 else {"bundle": None, "bundle/partitions": None, "bundle/file": b"content"})

    def test_never_deletes_the_only_copy(self, existing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The older bundle is kept in its temporary folder if neither rename succeeds."""
        before = listing(existing)
        rename, calls = Path.rename, iter(range(9))

        def failing(path: Path, target: Path) -> Path:
            if next(calls):
                raise FULL
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", failing)
        with pytest.raises(WriteError), staging_folder(existing):
            pass
        (kept,) = existing.parent.iterdir()
        assert listing(kept / "bundle") == before

    def test_destination_that_appeared_meanwhile(self, tmp_path: Path) -> None:
        """A bundle that another process wrote meanwhile is not replaced without --force."""
        with pytest.raises(WriteError, match="Directory not empty"), staging_folder(tmp_path / "b") as folder:
            (folder / "file").touch()
            (tmp_path / "b").mkdir()
            (tmp_path / "b" / "other").touch()
        assert listing(tmp_path) == {"b": None, "b/other": b""}


Fail = Callable[[pytest.MonkeyPatch, BaseException], None]


def in_weights(block: int) -> Fail:
    """Make the n-th block of weights fail."""

    def arrange(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        write, calls = copying._write_all, iter(range(999))

        def failing(target: Any, data: memoryview) -> None:
            if next(calls) == block:
                raise error
            write(target, data)

        monkeypatch.setattr(copying, "_write_all", failing)

    return arrange


def in_file(suffix: str) -> Fail:
    """Make writing fail after half of a file with this suffix."""

    def arrange(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        write = Path.write_bytes

        def failing(path: Path, data: bytes) -> int:
            if path.name.endswith(suffix):
                write(path, data[: len(data) // 2])
                raise error
            return write(path, data)

        monkeypatch.setattr(Path, "write_bytes", failing)

    return arrange


def in_call(module: Any, name: str) -> Fail:
    """Make a function fail."""

    def arrange(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        def failing(*arguments: Any, **options: Any) -> None:
            raise error

        monkeypatch.setattr(module, name, failing)

    return arrange


@pytest.mark.parametrize("there", [False, True], ids=["new", "--force"])
@pytest.mark.parametrize(
    ("error", "raised"),
    [
        pytest.param(FULL, WriteError, id="full disk"),
        pytest.param(KeyboardInterrupt(), KeyboardInterrupt, id="ctrl-C"),
        pytest.param(SystemExit(143), SystemExit, id="SIGTERM"),
        pytest.param(ZeroDivisionError("a bug"), ZeroDivisionError, id="bug"),
    ],
)
@pytest.mark.parametrize(
    "fail",
    [
        pytest.param(in_weights(0), id="first weights"),
        pytest.param(in_weights(1), id="later weights"),
        pytest.param(in_file(".onnx"), id="partition"),
        pytest.param(in_file(MANIFEST_NAME), id="manifest"),
        pytest.param(in_call(pipeline, "encode_manifest"), id="encoding"),
        pytest.param(in_call(Path, "rename"), id="renaming"),
    ],
)
def test_failure_while_writing(
    fail: Fail,
    error: BaseException,
    raised: type[BaseException],
    there: bool,
    request: pytest.FixtureRequest,
    compiled: Compile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if there:
        request.getfixturevalue("existing")
    model = saved(tmp_path / "m.onnx", classifier())
    before = listing(tmp_path)
    with monkeypatch.context() as patched:
        fail(patched, error)
        with pytest.raises(raised):
            compiled(model, split="pooling", force=there)
    assert listing(tmp_path) == before
    made = compiled(model, split="pooling", force=there)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "m.onnx"]
    check_files(made.folder, read_manifest(made.folder))


def test_refused_model_leaves_nothing(compiled: Compile, existing: Path) -> None:
    before = listing(existing.parent)
    with pytest.raises(WriteError, match="replace it with --force"):
        compiled(linear())
    after = listing(existing.parent)
    assert after.pop("model.onnx")
    assert after == before


def test_force_replaces(compiled: Compile, existing: Path) -> None:
    (existing / "stale").touch()
    made = compiled(linear(), force=True)
    assert read_manifest(made.folder) == made.compiled.manifest
    assert sorted(str(path.relative_to(existing)) for path in existing.rglob("*") if path.is_file()) == [
        "manifest.json",
        "partitions/00-fc.onnx",
        "partitions/00-fc.weights",
        "report.json",
    ]


def test_same_model_same_bundle(compiled: Compile) -> None:
    """Compiling twice gives the same bytes, so that bundles can be compared and cached."""
    first = listing(compiled(classifier(), split="layers").folder)
    assert listing(compiled(classifier(), split="layers", force=True).folder) == first


def test_bundle_is_whole(classifier_bundle: Bundle) -> None:
    manifest = read_manifest(classifier_bundle.folder)
    check_files(classifier_bundle.folder, manifest)
    assert manifest == classifier_bundle.compiled.manifest
    named = {file.path for file in manifest.files} | {MANIFEST_NAME, REPORT_NAME, "partitions"}
    assert {str(path.relative_to(classifier_bundle.folder)) for path in classifier_bundle.folder.rglob("*")} == named


def test_changed_file_is_noticed(classifier_bundle: Bundle, existing: Path) -> None:
    manifest = read_manifest(existing)
    for file in manifest.files:
        path = existing / file.path
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(RuntimeFault, match="was changed"):
            check_files(existing, manifest)
        path.write_bytes(content)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount a small file system; skip the test if mounting is not permitted."""
    mounted: list[Path] = []

    def mount(size_bytes: int) -> Path:
        path = tmp_path / f"disk{len(mounted)}"
        path.mkdir()
        command: list[str | Path] = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", path]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True)
        except OSError as error:
            pytest.skip(f"no mount command: {error}")
        if done.returncode:
            pytest.skip(f"mounting a small disk is not permitted here: {done.stderr.strip()}")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", path], check=True)


def test_disk_too_small_is_told_before_writing(small_disk: Callable[[int], Path], hypsc: Command, tmp_path: Path) -> None:
    disk, model = small_disk(1_000_000), saved(tmp_path / "m.onnx", classifier())
    result = hypsc("compile", model, "--memory", "1GB", "-o", disk / "bundle")
    assert result.returncode == 2
    assert result.stderr == (
        f"hypsc: {disk / 'bundle'} needs 1.4 MB, its disk has 1.0 MB free; free some, or name another disk with -o\n"
    )
    assert not list(disk.iterdir())


@pytest.mark.parametrize("size_bytes", [400_000, 1_330_000], ids=["in the weights", "at the end"])
def test_disk_full_while_writing(size_bytes: int, small_disk: Callable[[int], Path], tmp_path: Path) -> None:
    """The kernel reports ENOSPC; the early check is disabled."""
    disk, model = small_disk(size_bytes), saved(tmp_path / "m.onnx", classifier())
    code = (
        "import sys; from hyps.compiler import pipeline; from hyps.compiler.cli import main as cli; "
        "pipeline.check_space = lambda *_: None; "
        "cli.main(['compile', sys.argv[1], '--memory', '1GB', '--split', 'layers', '-o', sys.argv[2]])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, model, disk / "bundle"], check=False, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr == f"hypsc: no space left to write {disk / 'bundle'}; free some, or name another disk with -o\n"
    assert not list(disk.iterdir())


def test_file_size_limit(hypsc: Command, tmp_path: Path) -> None:
    """The kernel limits the size of a file (``ulimit -f``)."""
    model = saved(tmp_path / "m.onnx", classifier())

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))

    result = hypsc("compile", model, "--memory", "1GB", "-o", tmp_path / "bundle", preexec_fn=limit)
    assert result.returncode == 2
    assert result.stderr == f"hypsc: no space left to write {tmp_path / 'bundle'}; free some, or name another disk with -o\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx"]
