"""Define the errors of passes: each is one line that says what is wrong and how to fix it."""

from __future__ import annotations

from hyps.runtime.errors import HypsError


class PassError(HypsError):
    """The base of every error that a pass raises for a user's mistake or an impossible request."""


class UnsupportedModel(PassError):
    """A model with something that HyPS cannot handle without risking wrong numbers."""


class UnknownExit(PassError):
    """An exit that the model does not have, exits in a wrong order, or rates that do not belong to them."""


class UnknownShapes(UnsupportedModel):
    """A model with tensors, ``names``, whose shapes do not follow from those of the inputs."""

    def __init__(self, message: str, names: frozenset[str]) -> None:
        super().__init__(message)
        self.names = names


class DoesNotFit(PassError):
    """A budget that no plan fits, with the operator at fault, the bytes that it needs, and the smallest budget that works.

    ``operator`` is None where the runtime itself needs more than the budget.
    """

    def __init__(self, message: str, *, operator: str | None, needed_bytes: int, smallest_budget_bytes: int | None) -> None:
        super().__init__(message)
        self.operator = operator
        self.needed_bytes = needed_bytes
        self.smallest_budget_bytes = smallest_budget_bytes


class PassFailed(Exception):
    """A bug: a rewrite broke the model, or a plan is wrong. It is not the user's mistake, so it is not a `PassError`."""
