"""The REST interface: one router for each subject, and the dependencies that they share."""

from hyps.runtime.web.routes import board_routes, bundle_routes, event_routes, job_routes, model_routes, public_routes

#: Routers whose requests need the token, in the order in which ``/docs`` lists them.
PROTECTED = tuple(module.router for module in (model_routes, bundle_routes, board_routes, job_routes, event_routes))
#: The router whose requests need no token.
PUBLIC = public_routes.router

__all__ = ["PROTECTED", "PUBLIC"]
