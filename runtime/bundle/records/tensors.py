"""The manifest's records of tensors that cross a cut, and of the model's outputs."""

from __future__ import annotations

import math

from hyps.runtime.bundle.records.element_types import PACKED_TYPES, STORAGE_TYPES, STRING_TYPE, string_bytes
from hyps.runtime.bundle.records.fields import Extents, Name, Record

#: The end of the name of a tensor whose shape the compiler observed and did not prove, before it is checked.
OBSERVED = "/observed"
#: A part of the names of the operators that check such a shape.
SHAPE_CHECK = "/shape check"


class TensorRecord(Record, frozen=True, kw_only=True):
    """A tensor that crosses a cut, or an input or output of the model: numpy dtype name and fixed shape."""

    dtype: str
    shape: Extents

    @property
    def nbytes(self) -> int:
        """The tensor's bytes; an upper bound for strings and for a rare type, such as a complex one."""
        if self.dtype == STRING_TYPE:
            return string_bytes(math.prod(self.shape))
        if packed := PACKED_TYPES.get(self.dtype):
            return -(-math.prod(self.shape) * packed.bits // 8)
        known = STORAGE_TYPES.get(self.dtype)
        return math.prod(self.shape) * (known.item_bytes if known else 16)


class OutputRecord(Record, frozen=True, kw_only=True):
    """An output of the model. ``probabilities`` is true when the network itself ends in a softmax.

    ``classes``: where the model's own output is a sequence of maps from class to score (ZipMap), the classes in the order of
    the last dimension. The bundle's output is the tensor of scores.
    """

    name: Name
    probabilities: bool
    classes: tuple[str, ...] = ()
