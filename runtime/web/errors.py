"""What the web interface answers a request that it cannot serve: a status and one line."""

from __future__ import annotations

from hyps.runtime.errors import RuntimeFault


class WebFault(RuntimeFault):
    """Base: the request is wrong."""

    status = 400


class Missing(WebFault):
    """There is no such thing."""

    status = 404


class Conflict(WebFault):
    """Not as things are now."""

    status = 409


class TooLarge(WebFault):
    """An upload is larger than the limit."""

    status = 413


class Busy(WebFault):
    """Later, perhaps."""

    status = 503
