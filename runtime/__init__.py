"""Run a bundle on a device, and describe bundles by their manifests.

import hyps.runtime
hyps.runtime.lean()  # first of all, where memory is short
with hyps.runtime.load("bundle") as network:
    outputs = network.run({"image": pixels})
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hyps.runtime.api import Bundle as Bundle
    from hyps.runtime.api import load as load
    from hyps.runtime.device.process_memory import lean as lean

__all__ = ["Bundle", "lean", "load"]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that the commands start without numpy."""
    if name == "lean":  # numpy is imported after it
        from hyps.runtime.device.process_memory import lean

        return lean
    if name in __all__:
        from hyps.runtime import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
