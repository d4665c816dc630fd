"""The application: what is asked at which address, and what is answered."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response

import cxrlab
from cxrlab.deploy.model import Model
from cxrlab.deploy.service import answers
from cxrlab.deploy.service.answering import Service
from cxrlab.deploy.service.guard import Guard
from cxrlab.deploy.service.settings import ServiceSettings
from cxrlab.deploy.service.uploads import read_uploads
from cxrlab.errors import ConfigError, UserError

_PAGE = Path(__file__).parent / "page"
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                }
            }
        },
    }
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": answers.ErrorAnswer, "description": "The token is missing or wrong."},
    408: {"model": answers.ErrorAnswer, "description": "The files did not arrive in time."},
    413: {"model": answers.ErrorAnswer, "description": "A file is too large, or there are too many."},
    422: {"model": answers.ErrorAnswer, "description": "There is no file, or no such label."},
    503: {"model": answers.ErrorAnswer, "description": "Too much is waiting, or it takes too long."},
}
Answer = TypeVar("Answer")


def build_app(
    model: Model, settings: ServiceSettings | None = None, *, token: str = "", is_local: bool = True
) -> FastAPI:
    """Return the application that answers for a model.

    Args:
        model: Of :func:`cxrlab.deploy.loading.load_model`.
        settings: Limits.
        token: That requests must bear; "" where none must.
        is_local: Whether it is for this computer only; see :class:`cxrlab.deploy.service.guard.Guard`.
    """
    service = Service(model, settings or ServiceSettings())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.working():
            yield

    # The pages of FastAPI for people fetch scripts from elsewhere; docs.html is our own.
    app = FastAPI(
        title="cxrlab",
        version=cxrlab.__version__,
        description=f"Findings of chest radiographs. {answers.RESEARCH_ONLY}",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Guard, counters=service.counters, token=token, is_local=is_local)
    app.add_exception_handler(UserError, _user_error)
    _add_predictions(app, service)
    _add_facts(app, service)
    _add_page(app)
    return app


async def _user_error(_: Request, error: Exception) -> Response:
    """Answer with what a person can mend: a request that asks for the impossible, or a want of memory."""
    return JSONResponse({"detail": str(error)}, 422 if isinstance(error, ConfigError) else 503)


def _add_predictions(app: FastAPI, service: Service) -> None:
    settings = service.settings

    @app.post("/predict", responses=_ERRORS, openapi_extra=_BODY)
    async def predict(request: Request) -> answers.PredictAnswer:
        """Findings of one or several files: PNG, JPEG, DICOM, TIFF, BMP, WebP or GIF, told by content."""
        with service.waiting.counted() as share:
            uploads = await read_uploads(request, settings, share)
            waited = asyncio.gather(*map(service.predict, uploads))
            return answers.PredictAnswer(model=service.name, files=await in_time(waited, settings))

    @app.post("/heatmaps", responses=_ERRORS, openapi_extra=_BODY)
    async def heatmaps(
        request: Request, label: Annotated[list[str] | None, Query()] = None
    ) -> answers.HeatmapAnswer:
        """Where the model looks in one file, for each label that is named; all of them where none is."""
        with service.waiting.counted() as share:
            uploads = await read_uploads(request, settings, share)
            if len(uploads) > 1:
                raise HTTPException(413, f"Heatmaps are of one file; these are {len(uploads)}.")
            return await in_time(service.explain(uploads[0], label or service.labels), settings)


async def in_time(
    answer: Coroutine[Any, Any, Answer] | asyncio.Future[Answer], settings: ServiceSettings
) -> Answer:
    """Wait for an answer, no longer than a request may take.

    Raises:
        HTTPException: 503 if it takes longer; it is given up.
    """
    try:
        async with asyncio.timeout(settings.request_seconds):
            return await answer
    except TimeoutError:
        late = f"This takes more than {settings.request_seconds:g} s. Send fewer files, or come again."
        raise HTTPException(503, late, {"Retry-After": "10"}) from None


def _add_facts(app: FastAPI, service: Service) -> None:
    record, settings = service.model.record, service.settings
    card = answers.CardAnswer(
        model=service.name,
        task=str(record.task),
        labels=service.labels,
        thresholds=dict(record.thresholds),
        threshold_rule=record.threshold_rule,
        calibration=record.calibration,
        image_size=record.image_size,
        channels=record.channels,
        resize=record.resize,
        views=list(record.views),
        trained_on=None if record.trained_on is None else dict(record.trained_on),
        initial_weights=None if record.initial_weights is None else dict(record.initial_weights),
        licence=record.licence,
        trained_with=record.version,
        caveats=list(record.caveats),
        has_heatmaps=service.has_heatmaps,
        limits=answers.Limits(
            max_file_mb=settings.max_file_mb,
            max_request_mb=settings.max_request_mb,
            max_files=settings.max_files,
            max_megapixels=settings.max_megapixels,
            decode_seconds=settings.decode_seconds,
        ),
    )

    @app.get("/card")
    async def get_card() -> answers.CardAnswer:
        """What is known of the model, and what a request may hold."""
        return card

    @app.get("/health", responses={503: _ERRORS[503]})
    async def health() -> answers.HealthAnswer:
        """Whether the service works."""
        if not service.batcher.is_working:
            raise HTTPException(503, "The model does not work any more: start the service again.")
        return answers.HealthAnswer(status="ok", version=cxrlab.__version__)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """What was done so far, in the text format of Prometheus."""
        text = service.counters.text(service.decoders.num_replaced, service.waiting.num_bytes)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


def _add_page(app: FastAPI) -> None:
    for path, name in {
        "/": "index.html", "/page.js": "page.js", "/page.css": "page.css", "/icon.svg": "icon.svg",
        "/docs": "docs.html", "/docs.js": "docs.js",
    }.items():  # fmt: skip
        app.add_api_route(path, _sender(_PAGE / name), include_in_schema=False, response_class=FileResponse)


def _sender(path: Path) -> Any:
    async def send() -> FileResponse:
        return FileResponse(path)

    return send
