"""Takes MLflow's registry webhooks, and starts `watch` at once: a hint, never the trigger of record.

MLflow drops a webhook after a few tries and has none for runs, so what counts is what `watch` finds when it next looks.
Nothing of a delivery's body is used; that it is signed says that the sender is ours.

    PACKHOUSE_WEBHOOK_SECRET=... PREFECT_API_URL=... python -m infra.mlflow.webhook --host 127.0.0.1 --port 8085

Answers: 202 a watch is started, or was by this delivery before; 400, 401, 408, 413 not taken; 503 Prefect is away: try
again.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import logging
import os
import re
import sys
import time
from collections.abc import Mapping

from fastapi import FastAPI, HTTPException, Request
from starlette.concurrency import run_in_threadpool

from infra.settings import settings
from packhouse.errors import PackhouseError, SpecInvalid, printable
from packhouse.training.prefect_client import Orchestrator

WATCH = "watch/watch"
MAX_BODY_BYTES = 256 * 1024
BODY_S = 10.0
MAX_AGE_S = 300
"""Between the clock of MLflow's machine and ours, either way."""
MIN_SECRET = 16
DELIVERY = re.compile(r"[A-Za-z0-9._-]{1,100}")
SIGNATURE, TIMESTAMP, DELIVERY_ID = "x-mlflow-signature", "x-mlflow-timestamp", "x-mlflow-delivery-id"

log = logging.getLogger("packhouse.webhook")


def receiver(secret: str, prefect: Orchestrator) -> FastAPI:
    """The app. secret: the one that was given to MLflow when the webhook was created."""
    app = FastAPI(title="packhouse webhook", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/mlflow", status_code=202)
    async def mlflow(request: Request) -> dict[str, str]:
        delivery = printable(request.headers.get(DELIVERY_ID, ""))[:100]
        try:
            _check(request.headers, await _body(request), secret.encode())
            run = await run_in_threadpool(_start_watch, prefect, delivery)
        except HTTPException as error:
            log.warning("delivery %r: %d %s", delivery, error.status_code, error.detail)
            raise
        log.info("delivery %r: watch run %s", delivery, run)
        return {"watch": run}

    return app


async def _body(request: Request) -> bytes:
    """Never more than MAX_BODY_BYTES, whatever the sender says of its length, nor longer than BODY_S."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise HTTPException(413, f"a body of more than {MAX_BODY_BYTES:,} bytes")
    except TimeoutError as error:
        raise HTTPException(408, f"no whole body in {BODY_S:.0f} s") from error
    return bytes(body)


def _check(headers: Mapping[str, str], body: bytes, secret: bytes) -> None:
    """The signature first: what it does not cover is not believed. It covers delivery, time and body."""
    delivery, stamp = headers.get(DELIVERY_ID, ""), headers.get(TIMESTAMP, "")
    signed = hmac.new(secret, f"{delivery}.{stamp}.".encode() + body, hashlib.sha256).digest()
    expected = f"v1,{base64.b64encode(signed).decode()}"
    if not hmac.compare_digest(expected.encode(), headers.get(SIGNATURE, "").encode()):
        raise HTTPException(401, "wrong signature")
    if not stamp.isascii() or not stamp.isdigit() or abs(time.time() - int(stamp[:20])) > MAX_AGE_S:
        raise HTTPException(401, f"a timestamp more than {MAX_AGE_S} s from this machine's")
    if not DELIVERY.fullmatch(delivery):
        raise HTTPException(400, "no delivery id")


def _start_watch(prefect: Orchestrator, delivery: str) -> str:
    """The id of the flow run. The same delivery again meets the same one."""
    try:
        deployment = prefect.ask(f"/deployments/name/{WATCH}")["id"]
        run = prefect.ask(f"/deployments/{deployment}/create_flow_run", {"idempotency_key": f"mlflow-{delivery}"})
    except PackhouseError as error:  # MLflow tries again soon; if that does not help, the schedule of `watch` does
        raise HTTPException(503, str(error), {"Retry-After": "30"}) from error
    return str(run["id"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.mlflow.webhook")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default=8085, type=int)
    options = parser.parse_args()
    try:
        app = receiver(_secret(), Orchestrator(os.environ.get("PREFECT_API_URL", "")))
    except PackhouseError as error:
        sys.stderr.write(f"refused: {error}\n")
        return error.exit_status
    import uvicorn

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", access_log=False)
    return 0


def _secret() -> str:
    secret = settings().webhook_secret.get_secret_value()
    if len(secret) < MIN_SECRET:
        want = f"{MIN_SECRET} characters or more, the same as MLflow's webhook has"
        raise SpecInvalid("PH-0533 no secret to check signatures with", where="PACKHOUSE_WEBHOOK_SECRET", want=want)
    return secret


if __name__ == "__main__":
    sys.exit(main())
