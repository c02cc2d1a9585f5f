"""Build what an emulated board boots from: a kernel, an initramfs, and a root file system with the project's wheel.

Everything is made for arm64 on this machine, nothing of it is run here: Debian packages are unpacked, not configured, and
pip unpacks aarch64 wheels. The mirror is the one of this machine's own apt. What does not change is kept in ``build/arm``.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.repository import ROOT

CACHE = ROOT / "build" / "arm"
TOOLS = ("qemu-system-aarch64", "mmdebstrap", "cpio", "mkfs.ext4", "apt-get")

_ROOT_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6", "libgomp1", "busybox-static")
_KERNEL_PACKAGES = ("linux-image-cloud-arm64",)
#: In the order in which they must be inserted.
_MODULES = ("virtio_ring", "virtio", "virtio_mmio", "virtio_blk")
#: pip takes each tag literally and does not go on to the older ones.
_PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
#: What runs on the board, apart from the wheel.
_BOARD_SCRIPTS = ("job.py", "whole.py", "several.py", "levels.py")

_INIT = """#!/bin/busybox sh
for module in {modules}; do /bin/busybox insmod /$module.ko; done
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t ext4 -o rw,noatime /dev/vda /mnt
/bin/busybox mount -t ext4 -o ro,noatime /dev/vdb /mnt/data
/bin/busybox mount -t devtmpfs dev /mnt/dev
/bin/busybox mount -t proc proc /mnt/proc
/bin/busybox mount -t sysfs sys /mnt/sys
/bin/busybox mount -t tmpfs tmp /mnt/tmp
exec /bin/busybox switch_root /mnt /usr/bin/python3 /opt/board/job.py
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The files that every board boots from, and the versions of the libraries on them."""

    kernel: Path
    initramfs: Path
    root_image: Path
    versions: dict[str, str]


def missing_tools() -> list[str]:
    """The programs that boards need and this machine lacks."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def make_parts() -> Parts:
    """Make what is not in the cache; the project's wheel and the root image are made anew every time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    kernel_tree, base = _debian("kernel", _KERNEL_PACKAGES), _debian("base", _ROOT_PACKAGES)
    kernel = next((kernel_tree / "boot").glob("vmlinuz-*"))
    root = CACHE / "root"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(
        base, root, symlinks=True, ignore=lambda folder, names: names if Path(folder) == base / "dev" else []
    )  # /dev/full is endless
    libraries = _install(root)
    versions = {path.name.split("-")[0]: path.name.split("-")[1] for path in libraries.glob("*.dist-info")}
    return Parts(
        kernel=kernel,
        initramfs=_initramfs(kernel_tree, base),
        root_image=disk_image(root, CACHE / "root.img"),
        versions={name: version.removesuffix(".dist") for name, version in versions.items()}
        | {"python": libraries.parent.name.removeprefix("python"), "linux": kernel.name.removeprefix("vmlinuz-")},
    )


def disk_image(folder: Path, image: Path) -> Path:
    """An ext4 image of a folder, with no journal, so that a read-only mount writes nothing."""
    content_bytes = sum(path.lstat().st_size + 4096 for path in folder.rglob("*"))
    size_mb = content_bytes * 21 // 20 // 10**6 + 32
    image.unlink(missing_ok=True)
    run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-E", "root_owner=0:0", "-d", folder, image, f"{size_mb * 1000}k")
    return image


def run(*command: object, cwd: Path = ROOT) -> str:
    """Run a command; what it prints. A failure shows what the command said."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def _debian(name: str, packages: Sequence[str]) -> Path:
    """Debian packages of this machine's release for arm64, with what they depend on, unpacked into a folder."""
    tree, partial = CACHE / name, CACHE / f"{name}.part"
    if not tree.exists():
        release = platform.freedesktop_os_release()["VERSION_CODENAME"]
        shutil.rmtree(partial, ignore_errors=True)
        include = f"--include={','.join(packages)}"
        source = f"deb {_mirror(release)} {release} main"
        run("mmdebstrap", "--quiet", "--architectures=arm64", "--variant=extract", include, release, partial, source)
        shutil.rmtree(partial / "dev")  # devices, which must not be read as files are
        partial.rename(tree)
    return tree


def _mirror(release: str) -> str:
    """Where this machine's apt gets Debian's ``release`` from."""
    lines = run("apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages")
    for line in lines.splitlines():
        codename, component, uri = line.split()
        if (codename, component) == (release, "main"):
            return uri
    raise RuntimeError(
        f"apt knows no source of Debian's '{release} main': the boards need a Debian machine and 'apt-get update'"
    )


def _install(root: Path) -> Path:
    """Build the project's wheel and install it with the aarch64 wheels of what the runtime needs; the libraries' folder."""
    wheels = CACHE / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", wheels, ROOT)
    wheel = next(wheels.glob("*.whl"))
    version = next(path.name for path in sorted((root / "usr/lib").glob("python3.*")))
    libraries = root / "usr/local/lib" / version / "dist-packages"
    tags = [word for name in _PLATFORMS for word in ("--platform", f"{name}_aarch64")]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", libraries]
    wanted = ["--python-version", version.removeprefix("python"), "--implementation", "cp", "--only-binary=:all:"]
    run(*pip, *wanted, *tags, f"{wheel}[compress]")
    command = (libraries / "bin" / "hyps-run").read_text().split("\n", 1)[1]  # less the first line, which names our Python
    _script(root / "usr/local/bin/hyps-run", f"#!/usr/bin/python3\n{command}")
    for name in _BOARD_SCRIPTS:
        _script(root / "opt/board" / name, (Path(__file__).parent / name).read_text())
    for folder in ("data", "proc", "sys", "dev", "tmp"):
        (root / folder).mkdir(exist_ok=True)
    return libraries


def _initramfs(kernel_tree: Path, base: Path) -> Path:
    """What the kernel starts: insert the disk's modules, mount, go on with the job as process 1."""
    tree, image = CACHE / "initramfs", CACHE / "initramfs.cpio"
    shutil.rmtree(tree, ignore_errors=True)
    for folder in ("bin", "mnt", "dev"):
        (tree / folder).mkdir(parents=True)
    shutil.copy(base / "bin/busybox", tree / "bin/busybox")
    for name in _MODULES:
        shutil.copy(next((kernel_tree / "lib/modules").rglob(f"{name}.ko")), tree)
    _script(tree / "init", _INIT.format(modules=" ".join(_MODULES)))
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    archive = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=tree, input=names.encode(), stdout=-1, check=True)
    image.write_bytes(archive.stdout)
    return image


def _script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
