"""Define the base of all errors that a user can mend, and those of the runtime.

Each is told in one line, and ends a command with exit code 2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """A problem, and how to mend it where that is known."""

    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}" if self.remedy else self.problem


class HypsError(Exception):
    """Base of every error that a user of HyPS can mend; any other exception is a bug."""


class RuntimeFault(HypsError):
    """Base of every error of the runtime that a user can mend.

    Control characters, which may come from files and paths, are replaced by spaces, and other characters that cannot be
    shown are spelt out: the message is one line.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.fault = Fault(_one_line(problem), _one_line(remedy))
        super().__init__(str(self.fault))


class BundleError(RuntimeFault):
    """The bundle is damaged, changed, of another version, or no bundle."""


class LibraryError(RuntimeFault):
    """A library cannot be loaded: one of custom operators, or one that this bundle needs."""


class InputError(RuntimeFault):
    """An input is no image or tensor that the bundle's network takes."""


class RoomError(InputError):
    """Reading an input needs more memory than is left of the budget."""


class BudgetError(RuntimeFault):
    """The request would exceed the memory budget."""


class OutputError(RuntimeFault):
    """The outputs cannot be written to the given place."""


class BoardsError(RuntimeFault):
    """The file that describes a cluster's boards cannot be read, or describes no possible cluster."""


class DeviceError(RuntimeFault):
    """The device, or the given folder, cannot be measured."""


class ProfileError(RuntimeFault):
    """A step profile or the database of profiles cannot be read, or says nothing about the steps or boards in question."""


class HubError(RuntimeFault):
    """The hub cannot be reached, refuses the connection, or is another hub; or its files cannot be made."""


class EngineError(RuntimeFault):
    """The chosen engine cannot be reached, lacks a library, or cannot compute."""


def _one_line(text: str) -> str:
    return plain(re.sub(r"[\x00-\x1f\x7f]+", " ", text))


def plain(text: str) -> str:
    """Return the text as one line: line ends, terminal codes and marks that turn its direction are spelt out.

    Names in models, files and messages may hold them.
    """
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
