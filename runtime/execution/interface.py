"""The seam between the executor and onnxruntime: sessions, their settings, and what is said of onnxruntime's errors.

Two modules open sessions: `hyps.runtime.execution.session` through onnxruntime's Python module, with numpy, and
`hyps.runtime.execution.c_api` through its C library alone, which takes less memory.

No prepacking: it copies every weight. No arena and no memory pattern: they hold blocks as large as the peak. Graph
optimisation at most EXTENDED: ALL rewrites convolution weights into the layout of this processor. No spinning: a session's
threads would compete for a while with the next session's and with the thread that reads weights. On two cores a bundle of
VGG16 took 1.0 s with spinning and takes 0.16 s without; the whole model takes up to 5 % longer without.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from hyps.runtime.bundle.manifest import OBSERVED, SHAPE_CHECK
from hyps.runtime.errors import BundleError, InputError

if TYPE_CHECKING:
    from hyps.runtime.execution.tensor import TensorValue

#: onnxruntime's ``GraphOptimizationLevel``.
DISABLE_ALL: Final = 0
ENABLE_EXTENDED: Final = 2
#: Log nothing: errors are raised as well.
FATAL_SEVERITY: Final = 4
#: Entries of every session's configuration.
CONFIGURATION: Mapping[str, str] = {"session.disable_prepacking": "1", "session.intra_op.allow_spinning": "0"}
#: A model of one Identity, in ONNX's format. The first session of a process needs 4.5 MB more code than any other: a caller
#: that opens one of this model, and gives those pages back before the weights come, has a peak that is smaller by as much.
IDENTITY: Final = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01b\x0f\n\x01y'
    b"\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
#: Part of onnxruntime's message about an operator that it does not know.
_UNREGISTERED = "is not a registered"
#: The name of a tensor in onnxruntime's message about its shape, which an operator checks or a step that begins there.
_CHECKED = re.compile(rf"Name:'(.*){re.escape(SHAPE_CHECK)}/|dimensions for input: (.*){re.escape(OBSERVED)} for")


class Session(Protocol):
    """A partition that is ready to run."""

    def run(self, outputs: Sequence[str], inputs: Mapping[str, TensorValue]) -> dict[str, TensorValue]:
        """Compute the named ``outputs`` from named ``inputs``."""
        ...


class SessionOpener(Protocol):
    """A function that opens sessions."""

    def __call__(
        self, path: Path, threads: int, weights: Mapping[str, TensorValue], *, reuse_memory: bool, optimize: bool
    ) -> Session:
        """Open the partition at ``path``, whose ``weights`` are in memory already.

        ``reuse_memory`` and ``optimize`` are what `hyps.runtime.bundle.manifest.SessionRecord` says of the step.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OrtInterface:
    """An interface to onnxruntime of some ``version``.

    ``start`` opens and drops a session of `IDENTITY`, ``to_output`` returns a step's result as the caller gets it.
    """

    kind: Literal["python", "c"]
    version: str
    open_session: SessionOpener
    start: Callable[[], None]
    to_output: Callable[[TensorValue], Any]


def unopened(path: Path, error: object) -> BundleError:
    """Return what is said of a partition that onnxruntime cannot open."""
    remedy = "name the library of its operators with --custom-ops" if _UNREGISTERED in str(error) else ""
    return BundleError(f"onnxruntime cannot open {path}: {first_line(error)}", remedy)


def refused_input(path: Path, error: object) -> InputError:
    """Return what is said of an input that an operator refuses, such as an index beyond a table's end."""
    if checked := _CHECKED.search(str(error)):
        name = checked[1] or checked[2]
        return InputError(
            f"tensor {name!r} has another shape for this input than in the runs that the plan is based on",
            "its shape depends on the input's values: export the model with that shape fixed, and compile it again",
        )
    return InputError(f"onnxruntime cannot run {path} on this input: {first_line(error)}")


def first_line(error: object) -> str:
    """Return the first line of an error's message."""
    return next(iter(str(error).splitlines()), type(error).__name__)
