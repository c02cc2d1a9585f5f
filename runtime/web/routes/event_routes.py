"""Serve the events of the manager as they happen."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

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
    queue = services.events.join()
    events = services.events.read(queue, services.first_events)
    leave = BackgroundTask(services.events.leave, queue)  # a stream that is cut off before its first event is never read
    return StreamingResponse(events, media_type=_STREAM, headers={"x-accel-buffering": "no"}, background=leave)
