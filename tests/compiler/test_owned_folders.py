"""The next run removes a killed run's folders; a living run's, and the user's, stay."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hyps.runtime.bundle.owned_folders import REPLACED, SUFFIX, owned_folder, remove_abandoned
from tests.compiler.conftest import Compile, listing
from tests.compiler.onnxes import linear

HOLD = """
import sys, time
from pathlib import Path
from hyps.runtime.bundle.owned_folders import owned_folder
with owned_folder(Path(sys.argv[1]), ".b-", *sys.argv[2:]) as folder:
    (folder / "b").mkdir()
    (folder / "b" / "weights").write_bytes(bytes(99))
    print(folder, flush=True)
    time.sleep(600)
"""


def holder(parent: Path, *suffix: str) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that holds a folder in ``parent``; return it and the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, parent, *suffix], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def killed(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_killed_owner(tmp_path: Path) -> None:
    process, folder = holder(tmp_path)
    remove_abandoned(tmp_path)
    assert folder.is_dir(), "its owner lives"
    killed(process)
    remove_abandoned(tmp_path)
    assert not listing(tmp_path)


@pytest.mark.parametrize("has_successor", [True, False])
def test_killed_while_a_bundle_is_replaced(has_successor: bool, tmp_path: Path) -> None:
    """The older bundle comes back only where no new one took its place."""
    process, _ = holder(tmp_path, REPLACED)
    killed(process)
    if has_successor:
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "new").write_bytes(b"")
    remove_abandoned(tmp_path)
    assert listing(tmp_path) == {"b": None, "b/new" if has_successor else "b/weights": b"" if has_successor else bytes(99)}


def test_failure_while_a_bundle_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(OSError, match="nowhere"), owned_folder(tmp_path, ".b-", REPLACED) as older:
        (tmp_path / "b").rename(older / "b")
        (tmp_path / "nowhere").rename(tmp_path / "b")
    assert listing(tmp_path) == {"b": None}


def test_folders_of_others_stay(tmp_path: Path) -> None:
    for name in (".b-abc", ".bundle-old-1", "hyps-x"):
        (tmp_path / name).mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / f".link{SUFFIX}").symlink_to(tmp_path / "target")
    (tmp_path / f".file{SUFFIX}").write_bytes(b"text")
    before = listing(tmp_path)
    remove_abandoned(tmp_path)
    remove_abandoned(tmp_path / "none")
    assert listing(tmp_path) == before


def test_a_compile_cleans_up(tmp_path: Path, compiled: Compile, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the bundle and the one of temporary files are both cleaned."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    for parent in (tmp_path, temporary):
        killed(holder(parent)[0])
    compiled(linear())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "model.onnx", "temporary"]
    assert not listing(temporary)


def test_many_at_once(tmp_path: Path) -> None:
    """Runs that clean up while others start take none of their folders."""
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from hyps.runtime.bundle.owned_folders import owned_folder, remove_abandoned\n"
        "parent = Path(sys.argv[1])\n"
        "for _ in range(100):\n"
        "    remove_abandoned(parent)\n"
        "    with owned_folder(parent, '.b-') as folder:\n"
        "        (folder / 'file').write_bytes(b'x')\n"
        "        assert (folder / 'file').read_bytes() == b'x'\n"
    )
    runs = [subprocess.Popen([sys.executable, "-c", script, tmp_path]) for _ in range(3)]
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert not listing(tmp_path)
