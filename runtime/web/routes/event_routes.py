"""Serve the events of the manager as they happen."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from hyps.runtime.web.errors import Busy
from hyps.runtime.web.routes.dependencies import Services

event_router = APIRouter(prefix="/api", tags=["events"])
_STREAM = "text/event-stream"


@event_router.get(
    "/events",
    summary="Follow the events",
    response_class=StreamingResponse,
    responses={200: {"description": "A stream of server-sent events that does not end.", "content": {_STREAM: {}}}},
)
async def follow_events(services: Services) -> StreamingResponse:
    """Return a stream of server-sent events: first `status`, `jobs`, `builds` and `library`, then each change.

    The data of an event is JSON, as the GET request of the same subject returns it. `job` and `build` carry one item.
    """
    if services.events.full:
        raise Busy("too many pages are open; close one and reload")
    headers = {"x-accel-buffering": "no"}
    return StreamingResponse(services.events.read(services.first_events), media_type=_STREAM, headers=headers)
