"""Compile an ONNX model into a bundle: load, plan, extract, write, report, validate.

import hyps.compiler
plan = hyps.compiler.compile_model("model.onnx", "bundle", memory_bytes=128_000_000)
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hyps.compiler.api import compile_model as compile_model

__all__ = ["compile_model"]


def __getattr__(name: str) -> object:
    """Import a public name on its first use, so that importing the package stays cheap."""
    if name in __all__:
        from hyps.compiler import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
