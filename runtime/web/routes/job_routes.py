"""Take inputs to compute, and serve their answers."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse

from hyps.runtime.web import schemas
from hyps.runtime.web.routes.dependencies import FILE_BODY, JobIdPath, Services, file_response

job_router = APIRouter(prefix="/api/jobs", tags=["jobs"])
_ZIP = "application/zip"
InputName = Annotated[str, Query(min_length=1, max_length=200, description="The input's name in the list of jobs.")]

IsExact = Annotated[bool, Query(description="Decode nothing: wait for each shard of a code, for an exact answer.")]


@job_router.post("", status_code=202, summary="Submit an input", openapi_extra=FILE_BODY)
async def submit_input(
    request: Request, services: Services, name: InputName = "image", *, exact: IsExact = False
) -> schemas.JobView:
    """Compute the body, which is a photograph, or a tensor as a .npy or .npz file, with the bundle that is served."""
    services.jobs.check_accepting()
    id, path = services.jobs.new()
    await services.library.receive(path, request.stream(), services.input_bytes)
    return await asyncio.to_thread(services.jobs.submit, id, name, exact=exact)


@job_router.get("", summary="List the jobs")
def list_jobs(services: Services) -> list[schemas.JobView]:
    """Return the last jobs, the newest first."""
    return services.jobs.all()


@job_router.get("/{id}", summary="Get a job")
def get_job(id: JobIdPath, services: Services) -> schemas.JobView:
    """Return the job's state and, once it is done, its five best classes and where its time went."""
    return services.jobs.get(id)


@job_router.delete("/{id}", status_code=204, summary="Cancel a job")
def cancel_job(id: JobIdPath, services: Services) -> None:
    """End the job if it waits or runs, for instance because no worker holds its next steps."""
    services.jobs.cancel(id)


@job_router.get(
    "/{id}/outputs",
    summary="Download a job's outputs",
    response_class=FileResponse,
    responses=file_response(_ZIP, "All outputs of the model as a .npz file."),
)
def download_outputs(id: JobIdPath, services: Services) -> FileResponse:
    """Return all outputs of a job that is done, as a .npz file."""
    return FileResponse(services.jobs.outputs(id), media_type=_ZIP, filename=f"{id}.npz")
