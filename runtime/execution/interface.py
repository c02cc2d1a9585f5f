"""The seam between the executor and onnxruntime: sessions, their settings, and what is said of onnxruntime's errors.

Two modules open sessions: `hyps.runtime.execution.session` through onnxruntime's Python module, with numpy, and
`hyps.runtime.execution.c_api` through its C library alone, which takes less memory.

The lean options: no prepacking: it copies every weight. No arena of onnxruntime's own and no memory pattern: they hold
blocks as large as the peak, or larger; `hyps.runtime.execution.activation_arena` is bounded. A stock step has the memory
pattern: from its second run on, its activations are one block of that arena, which makes MobileNetV2 8 % faster. Graph
optimisation at most EXTENDED: ALL rewrites convolution weights into the layout of this processor. No spinning: a session's
threads would compete for a while with the next session's and with the thread that reads weights. On two cores a bundle of
VGG16 took 1.0 s with spinning and takes 0.16 s without; the whole model takes up to 5 % longer without.

`session_settings` is the one place that translates a tier of `hyps.runtime.bundle.records.steps.SessionRecord`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from hyps.runtime.bundle.records.tensors import OBSERVED, SHAPE_CHECK
from hyps.runtime.errors import BundleError, InputError

if TYPE_CHECKING:
    from hyps.runtime.bundle.manifest import Manifest
    from hyps.runtime.bundle.records.steps import ActivationsRecord
    from hyps.runtime.execution.tensor import TensorValue

#: onnxruntime's ``GraphOptimizationLevel``.
DISABLE_ALL: Final = 0
ENABLE_EXTENDED: Final = 2
#: Log nothing: errors are raised as well.
FATAL_SEVERITY: Final = 4
#: Entries of a lean session's configuration, and of one that uses the environment's arena.
_LEAN_ENTRIES: Mapping[str, str] = {"session.disable_prepacking": "1", "session.intra_op.allow_spinning": "0"}
_ARENA_ENTRIES: Mapping[str, str] = {"session.use_env_allocators": "1"}
#: Weights that a model holds itself are not in the arena then, so that free places of the arena can be given back.
_OUTSIDE_ENTRIES: Mapping[str, str] = {"session.use_device_allocator_for_initializers": "1"}
#: A model of one Identity, in ONNX's format. The first session of a process needs 4.5 MB more code than any other: a caller
#: that opens one of this model, and gives those pages back before the weights come, has a peak that is smaller by as much.
IDENTITY: Final = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01b\x0f\n\x01y'
    b"\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
#: Constants that onnxruntime folds while a session opens are taken from the arena without regard to its limit. Beyond the
#: limit there is none any more: what is left of it is an unsigned number. So it has room for small constants.
_RESERVED_BYTES = 65_536
#: Part of onnxruntime's message about an arena that may not grow.
_ARENA_FULL = "is smaller than requested bytes of"
#: Part of onnxruntime's message about an operator that it does not know.
_UNREGISTERED = "is not a registered"
#: The name of a tensor in onnxruntime's message about its shape, which an operator checks or a step that begins there.
_CHECKED = rf"Name:'(.*){re.escape(SHAPE_CHECK)}/|dimensions for input: (.*){re.escape(OBSERVED)} for"


class Session(Protocol):
    """A partition that is ready to run."""

    @property
    def run_s(self) -> float:
        """The seconds that the last run computed, without handing tensors over."""
        ...

    def run(self, outputs: Sequence[str], inputs: Mapping[str, TensorValue]) -> dict[str, TensorValue]:
        """Compute the named ``outputs`` from named ``inputs``."""
        ...


class SessionOpener(Protocol):
    """A function that opens sessions."""

    def __call__(
        self,
        path: Path,
        threads: int,
        weights: Mapping[str, TensorValue],
        *,
        reuse_memory: bool,
        optimize: bool,
        stock: bool,
        arena: bool,
    ) -> Session:
        """Open the partition at ``path``, whose ``weights`` are in memory already.

        ``reuse_memory``, ``optimize`` and ``stock``: see `hyps.runtime.bundle.records.steps.SessionRecord`.
        ``arena`` says that the process has the arena that it asks for.
        """
        ...


class RunsDirectly(Protocol):
    """A step that is open, and the only one of its bundle (`hyps.runtime.execution.direct_run`)."""

    def run(self, inputs: Mapping[str, TensorValue]) -> dict[str, TensorValue] | None:
        """Return the model's outputs by name; None for inputs that are unlike those of the run before."""
        ...


class ActivationArenaFull(Exception):
    """The arena of the activations is too small: the schedule has to run without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """The options of a session: graph optimisation (None: onnxruntime's default), configuration, and memory.

    No session has onnxruntime's own arena, which has no bound. ``has_pattern`` gives it the memory pattern: it then holds
    the activations of all later runs in one block. Neither changes a bit.
    """

    level: int | None
    entries: Mapping[str, str]
    reuses_memory: bool
    has_pattern: bool


def session_settings(
    *, reuse_memory: bool = True, optimize: bool = True, stock: bool = False, arena: bool = False
) -> SessionSettings:
    """Return the options of a session, as `SessionOpener` names them. Without optimisation opening takes half the time."""
    return SessionSettings(
        level=DISABLE_ALL if not optimize else None if stock else ENABLE_EXTENDED,
        entries={
            **({} if stock else _LEAN_ENTRIES),
            **(_ARENA_ENTRIES if arena else {}),
            **(_OUTSIDE_ENTRIES if arena and not stock else {}),
        },
        reuses_memory=reuse_memory and not arena,  # an arena reuses it in smaller pieces
        has_pattern=stock and arena,  # without an arena the block would be fresh pages in every run
    )


def arena_settings(record: ActivationsRecord) -> dict[str, int]:
    """Return onnxruntime's settings of an arena: one region, in which free memory is joined again."""
    return {
        "max_mem": record.region_bytes + record.packed_bytes + _RESERVED_BYTES,
        "arena_extend_strategy": 0,  # by powers of two, which the limit forbids
        "initial_chunk_size_bytes": record.region_bytes,
        "max_dead_bytes_per_chunk": 1,  # split a free block wherever it is larger than what is asked for
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class OrtInterface:
    """An interface to onnxruntime of some ``version``.

    ``start`` opens and drops a session of `IDENTITY`. ``register_arena`` makes an arena the one that sessions opened from
    then on share, has it take its region, and returns the region's address. ``place`` returns where in memory a value of a
    session begins and ends; 0 for one that is not onnxruntime's own. ``to_output`` returns a step's result as the caller
    gets it. ``direct_run``, where there is one, returns what repeats the run of a schedule of one step that stays open.
    """

    kind: Literal["python", "c"]
    version: str
    open_session: SessionOpener
    start: Callable[[], None]
    register_arena: Callable[[ActivationsRecord], int]
    place: Callable[[TensorValue], tuple[int, int]]
    to_output: Callable[[TensorValue], Any]
    direct_run: Callable[[Session, Manifest, Mapping[str, TensorValue]], RunsDirectly | None] | None = None


def default_interface() -> OrtInterface:
    """Return the interface by onnxruntime's Python module."""
    from hyps.runtime.execution.session import python_interface  # it imports numpy and onnxruntime

    return python_interface()


def unopened(path: Path, error: object, *, arena: bool) -> BundleError | ActivationArenaFull:
    """Return what is said of a partition that onnxruntime cannot open."""
    if arena and _ARENA_FULL in str(error):
        return ActivationArenaFull()
    remedy = "name the library of its operators with --custom-ops" if _UNREGISTERED in str(error) else ""
    return BundleError(f"onnxruntime cannot open {path}: {first_line(error)}", remedy)


def refused_input(path: Path, error: object) -> InputError | ActivationArenaFull:
    """Return what is said of an input that an operator refuses, such as an index beyond a table's end."""
    if checked := re.search(_CHECKED, str(error)):
        name = checked[1] or checked[2]
        return InputError(
            f"tensor {name!r} has another shape for this input than in the runs that the plan is based on",
            "its shape depends on the input's values: export the model with that shape fixed, and compile it again",
        )
    if _ARENA_FULL in str(error):
        return ActivationArenaFull()
    return InputError(f"onnxruntime cannot run {path} on this input: {first_line(error)}")


def first_line(error: object) -> str:
    """Return the first line of an error's message."""
    return next(iter(str(error).splitlines()), type(error).__name__)
