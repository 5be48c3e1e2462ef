"""The service over HTTP."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

import recbole_hllm
from recbole_hllm.errors import UserError, did_you_mean
from recbole_hllm.serving.requests import Request as Asked
from recbole_hllm.serving.service import bodies, page
from recbole_hllm.serving.service.guard import Guard
from recbole_hllm.serving.service.reference import reference
from recbole_hllm.serving.service.refusal import Refusal, body_of, failed, refusal_of
from recbole_hllm.serving.service.service import Service
from recbole_hllm.serving.service.within import check_items, check_wanted

_LOG = logging.getLogger(__name__)
_UNPROCESSABLE = 422
_DESCRIPTION = (
    "Recommendations from an exported model. With a token, each request but those of /, /docs, /openapi.json and "
    "/health has the header `Authorization: Bearer TOKEN`. An answer that says no has `errors`, each with `field` and "
    "`message`."
)
_WRONG: dict[int | str, dict[str, Any]] = {
    status: {"model": bodies.Mistakes, "description": why}
    for status, why in {
        400: "the body cannot be read", 401: "the token is missing or wrong", 403: "another site or host",
        413: "the body is too large", 422: "a value is wrong", 503: "too many requests wait, or a file cannot be used",
    }.items()
}  # fmt: skip
_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": bodies.Mistakes, "description": "there is no such item"}}
_CONFLICT: dict[int | str, dict[str, Any]] = {409: {"model": bodies.Mistakes, "description": "not now, or not here"}}


def create_app(service: Service, token: str | None = None, local: bool = False) -> FastAPI:
    """The application, ASGI; it ends the service when it ends.

    Args:
        service: answers.
        token: that clients send; None: everybody is answered.
        local: it listens for its own machine alone; then, without a token, requests by other names are refused.
    """

    @asynccontextmanager
    async def living(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="recbole-hllm", version=recbole_hllm.__version__, description=_DESCRIPTION, lifespan=living,
        docs_url=None, redoc_url=None, responses=_WRONG,
    )  # fmt: skip
    _add_recommendations(app, service)
    _add_items(app, service)
    _add_operation(app, service)
    _add_pages(app)
    _add_errors(app)
    paths = ("/", "/docs", "/openapi.json", "/recommend", "/items", "/health", "/metrics", "/reload")
    app.add_middleware(Guard, service.metrics, service.limits.max_body, token, paths, local)
    return app


def _add_recommendations(app: FastAPI, service: Service) -> None:
    @app.post("/recommend", response_model=bodies.Recommendations, response_model_exclude_none=True)
    async def recommend(wanted: bodies.Wanted) -> dict[str, Any]:
        """What next, after a history of ids, of texts, or of a known user?"""
        check_wanted(wanted, service.limits)
        asked = wanted.model_dump(exclude={"explain"})
        return await service.recommend(Asked(**asked), wanted.explain)


def _add_items(app: FastAPI, service: Service) -> None:
    @app.get("/items", response_model=bodies.Found)
    def search(
        search: Annotated[str, Query(max_length=256, description="the beginning of an id or of a word")] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> dict[str, Any]:
        """Items by the beginning of their id or title; the first ones without `search`."""
        return service.search(search, limit)

    @app.post("/items", response_model=bodies.Added, responses=_CONFLICT)
    async def add(items: bodies.NewItems) -> dict[str, Any]:
        """Adds items, `{"id": {"title": "..."}}`, or changes their fields. Once answered, they outlive the service."""
        check_items(items, service.limits)
        return await service.add(items)

    @app.delete("/items/{item:path}", response_model=bodies.Removed, responses=_NOT_FOUND | _CONFLICT)
    async def remove(item: Annotated[str, Path(description="its id")]) -> dict[str, Any]:
        """Takes an item off the list. It stays readable in histories."""
        return await service.remove(item)


def _add_operation(app: FastAPI, service: Service) -> None:
    @app.get("/health", response_model=bodies.Health)
    async def health() -> dict[str, Any]:
        """What is served."""
        return service.health()

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Numbers for Prometheus."""
        return Response(service.metrics.text(), media_type=service.metrics.CONTENT_TYPE)

    @app.post("/reload", response_model=bodies.Health, responses=_CONFLICT)
    async def reload() -> dict[str, Any]:
        """Serves the export that is in the folder now; a damaged one is refused, and the old one stays."""
        return await service.reload()


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def to_try() -> HTMLResponse:
        return HTMLResponse(page.html(), headers=page.headers())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(reference(app.openapi()), headers=page.headers())


def _add_errors(app: FastAPI) -> None:
    async def refuse(_: Request, error: Exception) -> JSONResponse:
        refusal = refusal_of(error)
        if refusal is None or refusal.status >= 500:
            _LOG.error(f"{type(error).__name__}: {error}", exc_info=None if isinstance(error, UserError) else error)
        refusal = refusal or failed()
        return JSONResponse(refusal.body, refusal.status, refusal.headers)

    async def wrong(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError), "it is registered for these"
        return JSONResponse(body_of([_mistake(one) for one in error.errors()]), _UNPROCESSABLE)

    async def unknown(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException), "it is registered for these"
        message = {404: "there is no such address; /docs lists them", 405: "this address has other methods; see /docs"}
        return JSONResponse(
            body_of([(None, message.get(error.status_code, str(error.detail)))]), error.status_code, error.headers
        )

    for kind in (Refusal, UserError, Exception):
        app.add_exception_handler(kind, refuse)
    app.add_exception_handler(RequestValidationError, wrong)
    app.add_exception_handler(HTTPException, unknown)


def _mistake(error: dict[str, Any]) -> tuple[str | None, str]:
    """Field and message of what pydantic says."""
    where = [str(part) for part in error["loc"] if part not in ("body", "query", "path")]
    kind, field = error["type"], ".".join(where) or None
    if kind == "json_invalid":
        return None, f"the body is no JSON: {error.get('ctx', {}).get('error', '')}"
    if kind == "missing" and field is None:
        return None, "the body is missing: send JSON"
    if kind == "model_attributes_type":
        return None, "the body is no JSON object: send {...} with the header 'Content-Type: application/json'"
    if kind == "string_unicode":
        return field, f"{field}: {bodies.HALF}"
    if kind == "extra_forbidden":
        return field, f"{field}: there is no such field{did_you_mean(where[-1], bodies.Wanted.model_fields)}"
    return field, f"{field or 'the body'}: {error['msg'].removeprefix('Value error, ')}"
