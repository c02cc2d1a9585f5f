"""What the runtime says of a bundle, an input or a device that it cannot serve: one line, exit code 2."""

from __future__ import annotations

import re


class RuntimeFault(Exception):
    """Base of every error of the runtime that its user can mend. What files and paths put into it stays on one line."""

    def __init__(self, message: str) -> None:
        super().__init__(re.sub(r"[\x00-\x1f\x7f]+", " ", message))


class BundleError(RuntimeFault):
    """The bundle is damaged, changed, of another version, or no bundle."""


class LibraryError(RuntimeFault):
    """A library of custom operators cannot be loaded."""


class InputError(RuntimeFault):
    """An input is no image or tensor that the bundle's network takes."""


class RoomError(InputError):
    """An input needs more memory to read than is left of the budget."""


class BudgetError(RuntimeFault):
    """What was asked for would exceed the memory budget."""


class OutputError(RuntimeFault):
    """The outputs cannot be written where they should be."""


class DeviceError(RuntimeFault):
    """The device, or the folder that was given, does not let itself be measured."""


class HubError(RuntimeFault):
    """The hub cannot be reached, refuses us, or is not the one it should be; or its files cannot be made."""


class EngineError(RuntimeFault):
    """An engine that was named cannot be reached, lacks what it takes, or cannot compute."""
