"""List the versions that ``--version`` prints: ours, and those of the packages that decide about results and memory."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

from hyps.runtime.bundle.manifest import FORMAT_VERSION

RUNTIME = ("onnxruntime", "numpy", "pillow", "msgspec")


def version_lines(program: str, packages: Sequence[str] = RUNTIME) -> Iterator[str]:
    """Yield a line for the program, for each package, for Python and the machine, and for the bundle format it reads."""
    yield f"{program} {version('hyps')}"
    for package in packages:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            yield f"{package} is not installed"
    yield f"Python {platform.python_version()} on {platform.machine()}, {platform.system()} {platform.release()}"
    yield f"bundle format {FORMAT_VERSION}"
