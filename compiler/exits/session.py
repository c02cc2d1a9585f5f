"""Run a whole classifier in onnxruntime, with further outputs if needed, on one input at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto

from hyps.compiler.errors import ModelFileError, OptionError
from hyps.compiler.exits.samples import LabelledInputs
from hyps.compiler.progress import Advance
from hyps.runtime.units import megabytes

_FOLDER_KEY = "session.model_external_initializers_file_folder_path"


@dataclass(frozen=True, slots=True)
class ClassifierSession:
    """An open session of a model with one input."""

    session: ort.InferenceSession

    def outputs(
        self, samples: LabelledInputs, names: Sequence[str], advance: Advance = lambda count: None
    ) -> Iterator[list[NDArray[Any]]]:
        """Yield the outputs ``names`` of each input. Raises `OptionError` for an input that the model refuses."""
        source = self.session.get_inputs()[0].name
        for sample in samples:
            try:
                yield self.session.run(list(names), {source: sample})
            except Exception as error:  # onnxruntime's exception classes have no common public base
                raise OptionError(f"--data: the model refuses an input of {samples.path}: {_first_line(error)}") from None
            advance(1)


def open_classifier_session(path: Path, proto: ModelProto | None = None, threads: int = 1) -> ClassifierSession:
    """Open the model at ``path``, or ``proto`` in its place, whose external weights lie where those of ``path`` do."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    source: str | bytes = str(path)
    if proto is not None:
        options.add_session_config_entry(_FOLDER_KEY, str(path.parent.resolve()))
        source = proto.SerializeToString()
    try:
        return ClassifierSession(ort.InferenceSession(source, options, providers=["CPUExecutionProvider"]))
    except Exception as error:  # as above
        raise ModelFileError(f"onnxruntime cannot open {path}: {_first_line(error)}; export or copy it again") from None


def check_room(count: int, values: int, limit_bytes: int, copies: int = 1) -> None:
    """Raise `OptionError` if ``copies`` of ``values`` float32 numbers for each input exceed ``limit_bytes``."""
    needed = 4 * count * values * copies
    if needed > limit_bytes:
        raise OptionError(
            f"{count:,} inputs with {values:,} numbers each take {megabytes(needed)} of memory, more than --memory "
            f"{megabytes(limit_bytes)}; give fewer inputs, or more memory"
        )


def softmax(scores: NDArray[Any]) -> NDArray[np.float32]:
    """Return the probabilities of scores [..., C], computed in float64."""
    wide = scores.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
