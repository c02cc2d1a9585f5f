"""HyPS: compile an ONNX model into a bundle that runs within a device's memory, and run it.

`hyps.compiler` and `hyps.runtime` hold what programs use. This module has the version, and the base of every error that a
user can mend. The folder's links stand for the four packages, for editable installs and for type checkers; a wheel has the
packages themselves.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hyps.runtime.errors import HypsError as HypsError

    __version__: str

__all__ = ["HypsError", "__version__"]


def __getattr__(name: str) -> object:
    """Import a public name on its first use, so that commands on a device start without it."""
    if name == "HypsError":
        from hyps.runtime.errors import HypsError

        return HypsError
    if name == "__version__":
        from importlib.metadata import version

        return version("hyps")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
