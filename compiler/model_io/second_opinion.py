"""Ask onnxruntime whether it opens a model file, in a process of its own: a damaged file may crash it or never end."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

#: How long onnxruntime may take to open a file, and the memory that it may take beyond the file's size.
_MOST_SECONDS = 60
_MOST_BYTES = 4_000_000_000
_MOST_CHARACTERS = 300
#: What a message of onnxruntime has before the reason: the error's kind, the file's name, a place in its source.
_CONTEXT = re.compile(r".*\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .* failed:|^/onnxruntime_src/\S+ ")
_SCRIPT = """
import os, resource, sys
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
import onnxruntime as ort
options = ort.SessionOptions()
options.log_severity_level = 4
options.intra_op_num_threads = 1
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
try:
    ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
except Exception as error:
    print(" ".join(str(error).split()))
"""


def opening_error(path: Path) -> str | None:
    """Return why onnxruntime does not open the model at ``path``; None where it does, or lacks one of its operators."""
    command = [sys.executable, "-c", _SCRIPT, str(path), str(_MOST_BYTES + 3 * path.stat().st_size)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_MOST_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"it does not end within {_MOST_SECONDS} s"
    if done.returncode:
        return "it crashes" if done.returncode < 0 else None
    reason = _CONTEXT.sub("", done.stdout.decode(errors="replace").strip())[:_MOST_CHARACTERS]
    return None if not reason or "is not a registered" in reason or "No Op registered" in reason else reason
