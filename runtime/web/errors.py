"""Define the refusals of the web interface, each with its HTTP status."""

from __future__ import annotations

from hyps.runtime.errors import RuntimeFault


class WebFault(RuntimeFault):
    """A request that is wrong; the base of the other refusals."""

    status = 400


class Missing(WebFault):
    """A request that names something that does not exist."""

    status = 404


class Conflict(WebFault):
    """A request that does not fit the present state."""

    status = 409


class TooLarge(WebFault):
    """An upload that is larger than the limit."""

    status = 413


class Busy(WebFault):
    """A request that may succeed later."""

    status = 503
