"""The REST interface: a router for each subject, and the dependencies that they share."""

from hyps.runtime.web.routes.board_routes import board_router
from hyps.runtime.web.routes.bundle_routes import bundle_router
from hyps.runtime.web.routes.event_routes import event_router
from hyps.runtime.web.routes.job_routes import job_router
from hyps.runtime.web.routes.model_routes import model_router
from hyps.runtime.web.routes.public_routes import public_router

#: Routers whose requests need the token, in the order in which ``/docs`` lists them.
PROTECTED_ROUTERS = (model_router, bundle_router, board_router, job_router, event_router)

__all__ = ["PROTECTED_ROUTERS", "public_router"]
