"""The executor that runs a bundle on a device, and the manifest that describes one.

import hyps.runtime
with hyps.runtime.load("bundle") as network:
    outputs = network.run({"image": pixels})
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hyps.runtime.api import Bundle as Bundle
    from hyps.runtime.api import load as load

__all__ = ["Bundle", "load"]


def __getattr__(name: str) -> object:
    """What is public here is imported when it is asked for: the commands start without numpy."""
    if name in __all__:
        from hyps.runtime import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
