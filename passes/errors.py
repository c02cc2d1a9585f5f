"""What a pass says of a model that it cannot serve: one line, what is wrong and how to mend it."""

from __future__ import annotations


class PassError(Exception):
    """Base of every error that a pass raises for a user's mistake or an impossible request."""


class UnsupportedModel(PassError):
    """The model holds something that HyPS cannot carry through without risking wrong numbers."""


class DoesNotFit(PassError):
    """No plan keeps within the budget: says which operator, what it needs and the smallest budget that would work.

    The operator is None where the runtime itself needs more.
    """

    def __init__(self, message: str, *, operator: str | None, needed_bytes: int, smallest_budget_bytes: int | None) -> None:
        super().__init__(message)
        self.operator = operator
        self.needed_bytes = needed_bytes
        self.smallest_budget_bytes = smallest_budget_bytes


class PassFailed(Exception):
    """A bug: a rewrite broke the model. Not a user's mistake, so it is not a `PassError`."""
