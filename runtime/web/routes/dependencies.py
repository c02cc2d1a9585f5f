"""Give the routes what they share: the manager's services, the token check, and the types of path parameters."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, cast

from fastapi import Depends, HTTPException, Path, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from hyps.runtime.web import schemas
from hyps.runtime.web.protocol import ADMIT
from hyps.runtime.web.services import WebServices

_SCHEME = HTTPBearer(auto_error=False, description="The token that `hyps-manager` printed when it started.")

ModelNamePath = Annotated[
    str, Path(min_length=1, max_length=100, pattern=schemas.NAME_PATTERN, description="The model's name.")
]
FileNamePath = Annotated[
    str, Path(min_length=1, max_length=100, pattern=schemas.NAME_PATTERN, description="The file's name.")
]
BundleNamePath = Annotated[
    str, Path(min_length=1, max_length=100, pattern=schemas.NAME_PATTERN, description="The bundle's name.")
]
WorkerNamePath = Annotated[
    str, Path(min_length=1, max_length=100, pattern=schemas.NAME_PATTERN, description="The worker's name.")
]
BuildIdPath = Annotated[
    str, Path(min_length=1, max_length=32, pattern="^[0-9a-f]+$", description="The compilation's identifier.")
]
JobIdPath = Annotated[str, Path(min_length=1, max_length=32, pattern="^[0-9a-f]+$", description="The job's identifier.")]

#: The OpenAPI description of a request whose body is a file's bytes.
FILE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The file's bytes.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary", "minLength": 1}}},
    }
}
#: The refusals of every request that needs the token.
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Problem, "description": meaning}
    for status, meaning in {
        400: "The request is wrong.",
        401: "The token is wrong or missing.",
        404: "The thing named does not exist.",
        409: "The request does not fit the present state.",
        413: "The file or the request is too large.",
        422: "A value is out of its range.",
        503: "The manager is busy or not ready; try again.",
    }.items()
}


def file_response(kind: str, description: str) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of a response that is a file of the media type `kind`."""
    schema = {"type": "string", "format": "binary"}
    return {200: {"description": description, "content": {kind: {"schema": schema}}}}


async def _services(request: Request) -> WebServices:
    return cast(WebServices, request.app.state.services)


#: The manager's services, as the parameter of a route.
Services = Annotated[WebServices, Depends(_services)]


async def check_token(request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_SCHEME)]) -> None:
    """Raise `HTTPException` unless the request carries the manager's token; its connection may then take its time."""
    token: str = request.app.state.token
    if given is None or not secrets.compare_digest(given.credentials.encode(), token.encode()):
        raise HTTPException(
            401,
            "the token is wrong or missing; use the link that hyps-manager printed",
            {"www-authenticate": "Bearer"},
        )
    if admit := request.scope.get(ADMIT):
        admit()
