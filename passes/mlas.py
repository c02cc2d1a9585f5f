"""Facts about onnxruntime's kernels for the CPU, above all MLAS: when they keep every bit, and what memory they need.

All of it was measured on onnxruntime 1.31, x86-64, with the session options of `hyps.runtime.execution.session`; tests
check it against onnxruntime itself. Names such as MLAS_SGEMM_STRIDEK are those of onnxruntime's sources.

**Order of additions.** Products and convolutions run in the single-precision GEMM (MlasSgemmOperation). A
convolution's GEMM has one row for each filter of a group and one column for each output position. A sum of more than
`BLOCK_DEPTH` products is added up block by block. The blocks are longer where a thread has `NARROW_COLUMNS` columns or
fewer: then the bits differ. Threads share the columns, or the rows if there are more of them. A single row or column goes
to another kernel. Whether the im2col matrix is made at once or in segments changes no bit. Integers are exact in any order.
"""

from __future__ import annotations

import math

from hyps.passes.calibration import calibrated_bytes
from hyps.passes.onnx_ops import ACTIVATIONS, RESHAPES, Shape

#: Longer sums are added up in blocks of this length (MLAS_SGEMM_STRIDEK).
BLOCK_DEPTH = 128
#: With this many columns or fewer the blocks are longer: half of MLAS_SGEMM_STRIDEN, which MlasSgemmOperation halves then.
NARROW_COLUMNS = 64
#: Threads take multiples of this many columns, the last one the rest (MLAS_SGEMM_STRIDEN_THREAD_ALIGN).
COLUMN_STEP = 16
#: With this many columns for each thread, every thread has blocks of the usual length.
WIDE_COLUMNS = NARROW_COLUMNS + COLUMN_STEP
#: Shards as wide as a multiple of this keep every bit. Odd widths without prepacking differ by 5e-8 of the largest output.
WIDTH_STEP = 8

#: Operators whose kernel gives an element the same bits wherever it stands in the tensor (tests/passes/tiling).
#: Elu, Selu, Softplus, Mish, Celu, Log, Sin and LRN do not: they compute the last few elements of a tensor in another way, a
#: unit in the last place apart, and a tile ends elsewhere than the whole.
POSITION_INDEPENDENT = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "ThresholdedRelu", "Abs", "Neg"}
    | {"Sqrt", "Exp", "Erf", "Floor", "Ceil", "Reciprocal", "Identity", "Dropout", "Where"}
    | {"Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Pow"}
)
#: Operators whose kernel computes the same bits from a weight that is an input as from a constant.
INPUT_WEIGHTS = frozenset({"Conv", "Gemm", "MatMul", "Relu"})

#: One thread's expansion buffer in a segmented convolution, with what its GEMM packs (floats of 4 bytes).
THREAD_BUFFER_BYTES = calibrated_bytes("thread_buffer_bytes")
#: Operators whose output takes the buffer of an input of the same size that nothing reads later.
IN_PLACE = ACTIVATIONS | RESHAPES | {"Dropout", "Add", "Mul", "Sub", "Div", "Sum", "Exp", "Sqrt", "Neg", "Abs"}
#: Operators that were measured to need no workspace (``test_workspace.py``).
NO_WORKSPACE = IN_PLACE | frozenset(
    {"Gemm", "MatMul", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Concat", "Split", "Slice"}
    | {"Transpose", "Pad", "BatchNormalization", "Softmax", "LogSoftmax", "Gather", "Constant", "Cast", "Shape"}
)
#: The gates of a recurrent operator, and how many of its states onnxruntime keeps while it runs.
RECURRENT_GATES = {"LSTM": (4, 11), "GRU": (3, 6), "RNN": (1, 0)}


def has_wide_segments(columns: int, threads: int) -> bool:
    """Return whether all threads have columns for blocks of the usual length, however many of them share the work.

    A convolution's threads take multiples of `COLUMN_STEP` columns (MlasConvExpandThenGemmSegmentedThreaded).
    """
    segments = [-(-columns // (COLUMN_STEP * number)) * COLUMN_STEP for number in range(1, threads + 1)]
    rests = [columns % segment or segment for segment in segments]
    return columns >= WIDE_COLUMNS * threads and min(rests) > NARROW_COLUMNS


def least_columns(depth: int, threads: int) -> int:
    """Return the fewest columns of a part of a convolution, with sums of ``depth`` products, that keep the whole's bits.

    A single column goes to another kernel. Long sums need more than `NARROW_COLUMNS` for every thread (65 for one thread).
    """
    return 2 if depth <= BLOCK_DEPTH else threads * (NARROW_COLUMNS + 1 + COLUMN_STEP * (threads - 1))


def convolution_bytes(kind: str, kernel: Shape, source: Shape, result: Shape, threads: int) -> int:
    """Return the workspace of a float convolution (``kind``: Conv or ConvTranspose) of these shapes.

    MLAS (MlasConvPrepare) makes the whole im2col matrix where a group has more filters than there are output positions,
    else it has a small buffer for each thread.
    """
    if kind == "ConvTranspose":
        return 4 * math.prod(kernel[1:]) * math.prod(source[2:])
    positions, taps = math.prod(result[2:]), math.prod(kernel[1:])
    if math.prod(kernel[2:]) == 1 and source[2:] == result[2:]:
        return THREAD_BUFFER_BYTES  # pointwise: a GEMM on the input itself
    group_filters = kernel[0] * kernel[1] // source[1]
    if group_filters > positions:
        return 4 * positions * taps + THREAD_BUFFER_BYTES
    return threads * THREAD_BUFFER_BYTES


def recurrent_bytes(kind: str, source: Shape, result: Shape) -> int:
    """Return the workspace of an LSTM, GRU or RNN, from the shapes [..., features] and [..., directions, batch, hidden].

    It holds the gates of all positions, some states, and for the reverse direction the input and the output once more.
    Measured on LSTM, GRU and RNN of one and two directions; for batches it is an upper bound (``test_workspace.py``).
    """
    *_, directions, batch, hidden = result
    positions, width = math.prod(source[:-1]), source[-1]
    gates, states = RECURRENT_GATES[kind]
    one = positions * gates * hidden + batch * (states * hidden + 1)
    return 4 * (directions * one + positions * (width + hidden))
