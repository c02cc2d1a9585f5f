"""Define the errors of this package; each message is one line that says what to do."""

from __future__ import annotations

from collections.abc import Iterable

from hyps.runtime.errors import HypsError
from hyps.runtime.suggestions import did_you_mean


class ModelError(HypsError):
    """A network cannot be built; the message says what to do about it."""


class UnknownNetwork(ModelError, ValueError):
    """The catalogue has no network of this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        networks = [*known]
        super().__init__(f"unknown network {name!r}: {did_you_mean(name, networks)}choose one of {', '.join(networks)}")


class MissingWeights(ModelError):
    """The trained file of a network is not in the installed package."""

    def __init__(self, file_name: str) -> None:
        super().__init__(f"{file_name} is not in the hyps.models package: reinstall it, or train the network again")
