"""The routes. docs/serving.md describes each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from packhouse.digest import short
from packhouse.serving import openapi
from packhouse.serving.bodies import Bodies
from packhouse.serving.dynamic_batching import runner
from packhouse.serving.errors import NotTaken, RequestRefused
from packhouse.serving.logs import event
from packhouse.serving.metrics import Metrics
from packhouse.serving.middleware import Observed
from packhouse.serving.model import Model
from packhouse.serving.predict import predict
from packhouse.serving.protocol import EXTENSIONS, HEADER, check_model, infer, metadata
from packhouse.serving.readiness import Phase, Readiness
from packhouse.serving.request_queue import Desk
from packhouse.serving.responses import JSON, Answer, dump
from packhouse.serving.settings import ServingSettings

METRICS = "text/plain; version=0.0.4; charset=utf-8"


class Serving:
    """The app and what it is made of. desk: tells how many requests are under way."""

    def __init__(self, model: Model, settings: ServingSettings, readiness: Readiness) -> None:
        self._model, self._settings, self.readiness = model, settings, readiness
        self._metrics = Metrics()
        self._run = runner(model, settings, self._metrics)
        self.desk = Desk(readiness, threads=self._run.callers, queue=settings.queue)
        self._bodies = Bodies(limit=settings.max_body_bytes, seconds=settings.body_s)
        self._about = about(model)
        self._metrics.model(**self._about)
        self._metrics.watch(waiting=lambda: self.desk.waiting, ready=lambda: readiness.phase is Phase.READY)
        self.app = FastAPI(
            title=f"{self._about['model']} {self._about['release']}",
            version=self._about["release"],
            docs_url=None,
            redoc_url=None,
            lifespan=self._lifespan,
        )
        self.app.add_middleware(Observed, metrics=self._metrics)
        self.app.add_exception_handler(RequestRefused, _refused)
        self.app.add_exception_handler(HTTPException, _not_found)
        self._plain_routes()
        self._protocol_routes()

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        proving = asyncio.create_task(asyncio.to_thread(self._prove))
        yield
        self.desk.close()
        proving.cancel()

    def _prove(self) -> None:
        """Ready only when the golden cases are answered as the trained model answered them."""
        try:
            refusal = self._run.refusal() or (self._model.refusal() if self._settings.golden else "")
        except Exception as error:  # a thread's exception would be lost, and the server starting for good
            event("fault", {}, level=logging.ERROR, error=error)
            refusal = "the golden cases can not be replayed; the log says why"
        if refusal:
            event("refused", {"reason": refusal}, level=logging.ERROR)
            self.readiness.move(Phase.REFUSED, refusal)
        else:
            event("ready", {"golden": self._settings.golden, **self._about})
            self.readiness.move(Phase.READY)

    def _plain_routes(self) -> None:
        app, contract = self.app, self._model.contract

        @app.get("/health", summary="The process answers")
        async def health() -> Response:
            return _json({"status": "ok", **self._about})

        @app.get("/ready", summary="The model was verified, and requests are answered")
        async def ready() -> Response:
            phase = self.readiness.phase
            reason = {"reason": self.readiness.reason} if self.readiness.reason else {}
            return _json({"status": phase.value, **reason, **self._about}, 200 if phase is Phase.READY else 503)

        @app.get("/metrics", summary="For Prometheus")
        async def metrics() -> Response:
            return Response(self._metrics.text(), media_type=METRICS)

        @app.post("/predict", summary="Rows or named tensors, as plain JSON", openapi_extra=openapi.predict(contract))
        async def plain(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != JSON:
                raise NotTaken("PH-0459 this route reads JSON", where="header Content-Type", got=kind[:80], want=JSON)
            return await self._answered(request, lambda body: predict(contract, self._run, body, self._most))

    def _protocol_routes(self) -> None:
        app, contract = self.app, self._model.contract

        @app.get("/v2", summary="About the server")
        async def server() -> Response:
            return _json({"name": "packhouse", "version": self._about["packhouse"], "extensions": EXTENSIONS})

        @app.get("/v2/health/live", summary="The process answers")
        async def live() -> Response:
            return _json({"live": True})

        @app.get("/v2/health/ready", summary="Requests are answered")
        async def ready() -> Response:
            yes = self.readiness.phase is Phase.READY
            return _json({"ready": yes}, 200 if yes else 503)

        for under in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):

            @app.get(under, summary="Inputs and outputs")
            async def about_model(model: str, version: str | None = None) -> Response:
                check_model(contract, model, version)
                return _json(metadata(contract))

            @app.get(f"{under}/ready", summary="Requests to this model are answered")
            async def model_ready(model: str, version: str | None = None) -> Response:
                check_model(contract, model, version)
                yes = self.readiness.phase is Phase.READY
                return _json({"name": contract.model, "ready": yes}, 200 if yes else 503)

            @app.post(f"{under}/infer", summary="Inference", openapi_extra=openapi.infer(contract))
            async def answer(request: Request, model: str, version: str | None = None) -> Response:
                check_model(contract, model, version)
                header = request.headers.get(HEADER)
                return await self._answered(request, lambda body: infer(contract, self._run, body, header, self._most))

    @property
    def _most(self) -> int:
        return self._settings.max_json_bytes

    async def _answered(self, request: Request, work: Callable[[bytes], Answer]) -> Response:
        self.readiness.check()
        async with self._bodies.read(request) as body:
            found = await self.desk.ask(partial(work, body))
        return Response(found.body, media_type=found.media_type, headers=dict(found.headers))


def about(model: Model) -> dict[str, str]:
    from packhouse import __version__

    served = model.served
    return {
        "model": served.manifest.model,
        "release": served.manifest.release,
        "manifest": short(served.digest),
        "format": served.made.name,
        "provider": model.providers[0],
        "packhouse": __version__,
    }


def _json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(dump(document), status, media_type=JSON, headers=headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestRefused)
    request.scope["refused"] = error.what
    return _json({"error": str(error)}, error.status, error.headers)


async def _not_found(_: Request, error: Exception) -> Response:
    """Routes that there are not, and methods."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    return _json({"error": str(error.detail).lower()}, error.status_code, headers)
