"""The receiver of MLflow's webhooks: what it takes, what it does not, and what comes of it on a real Prefect server."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.client.schemas.objects import StateType

from flows.watch import watch
from infra.mlflow.webhook import MAX_AGE_S, MAX_BODY_BYTES, receiver
from packhouse.training.prefect_client import Orchestrator
from tests.servers.place import answers, free_ports, running, wait_until
from tests.support.cluster import ROOT, deploy, run

SECRET = "a-secret-of-the-tests"
BODY = b'{"entity": "model_version", "action": "created", "data": {"name": "churn"}}'
IDLE = "no-worker-here"


def signed(body: bytes = BODY, *, secret: str = SECRET, age_s: int = 0, delivery: str = "") -> dict[str, str]:
    """The headers that MLflow sends."""
    delivery, stamp = delivery or str(uuid4()), str(int(time.time()) - age_s)
    mac = hmac.new(secret.encode(), f"{delivery}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "X-MLflow-Signature": f"v1,{base64.b64encode(mac).decode()}",
        "X-MLflow-Timestamp": stamp,
        "X-MLflow-Delivery-Id": delivery,
    }


def post(prefect: str, headers: Any, body: Any = BODY) -> httpx.Response:
    """A request to the app, which starts runs on the server at `prefect`."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(receiver(SECRET, Orchestrator(prefect)))
        async with httpx.AsyncClient(transport=transport, base_url="http://receiver", timeout=60) as sender:
            return await sender.post("/mlflow", headers=headers, content=body)

    return asyncio.run(ask())


@pytest.fixture
def nowhere() -> str:
    """A Prefect API that does not answer. Whoever gets as far as asking it gets 503."""
    (port,) = free_ports(1)
    return f"http://127.0.0.1:{port}/api"


def with_other(name: str, value: str) -> dict[str, str]:
    return signed() | {name: value}


@pytest.mark.parametrize(
    "forged",
    [
        lambda: {},
        lambda: signed(secret="another secret"),
        lambda: signed(b"another body"),
        lambda: signed() | {"X-MLflow-Delivery-Id": "another-delivery"},
        lambda: signed() | {"X-MLflow-Timestamp": str(int(time.time()) + 1)},
        lambda: signed() | {"X-MLflow-Signature": "v1,"},
        lambda: signed() | {"X-MLflow-Signature": "v1,\xe9"},
        lambda: {name: value for name, value in signed().items() if name != "X-MLflow-Signature"},
    ],
)
def test_what_is_not_signed_with_the_secret_is_refused(nowhere, forged):
    answer = post(nowhere, {name: value.encode("latin-1") for name, value in forged().items()})
    assert (answer.status_code, answer.json()["detail"]) == (401, "wrong signature")


@pytest.mark.parametrize("age_s", [MAX_AGE_S + 60, -MAX_AGE_S - 60])
def test_what_was_signed_at_another_time_is_refused(nowhere, age_s):
    answer = post(nowhere, signed(age_s=age_s))
    assert (answer.status_code, "timestamp" in answer.json()["detail"]) == (401, True)


def test_a_delivery_without_a_usable_id_is_refused(nowhere):
    assert post(nowhere, signed(delivery="../../else where")).status_code == 400


def test_a_body_that_is_too_large_is_refused_whatever_its_sender_says_of_its_length(nowhere):
    large = b"x" * (MAX_BODY_BYTES + 1)
    assert post(nowhere, signed(large), large).status_code == 413

    async def unending() -> Any:
        while True:
            yield b"x" * 65536

    assert post(nowhere, signed(), unending()).status_code == 413


def test_where_prefect_is_away_the_sender_is_asked_to_try_again(nowhere):
    answer = post(nowhere, signed())
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert SECRET not in answer.text


@pytest.mark.flow
def test_a_signed_delivery_starts_one_watch_however_often_it_arrives(api):
    deploy(watch, IDLE)
    headers = signed()
    first, again = post(api, headers), post(api, headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert run(first.json()["watch"]).state.type is StateType.SCHEDULED
    other = post(api, signed())
    assert other.json() != first.json()


@pytest.fixture
def listening(api, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The program itself: its URL and its log."""
    (port,) = free_ports(1)
    log, url = tmp_path / "webhook.log", f"http://127.0.0.1:{port}"
    command = ["env", f"PACKHOUSE_WEBHOOK_SECRET={SECRET}", f"PREFECT_API_URL={api}", f"PYTHONPATH={ROOT}"]
    command += [sys.executable, "-m", "infra.mlflow.webhook", "--port", str(port)]
    with running(command, log=log) as server:
        wait_until(lambda: answers(f"{url}/health"), what="the receiver", server=server, timeout_s=120)
        yield url, log


@pytest.mark.flow
@pytest.mark.server
def test_what_a_real_mlflow_sends_starts_a_watch_and_with_another_secret_does_not(listening, mlflow_server):
    from mlflow import MlflowClient

    deploy(watch, IDLE)
    url, log = listening
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}
    mlflow = MlflowClient(mlflow_server)
    events = ["model_version.created"]
    ours = mlflow.create_webhook("ours", f"{url}/mlflow", events, secret=SECRET)
    sent = mlflow.test_webhook(ours.webhook_id)
    assert (sent.success, sent.response_status) == (True, 202), sent
    identity = httpx.Response(202, text=sent.response_body).json()["watch"]
    assert run(identity).state.type is StateType.SCHEDULED

    theirs = mlflow.create_webhook("theirs", f"{url}/mlflow", events, secret="a secret of somebody else")
    assert mlflow.test_webhook(theirs.webhook_id).response_status == 401
    said = log.read_text()
    assert identity in said
    assert "401 wrong signature" in said
    assert SECRET not in said


@pytest.mark.parametrize("secret", ["", "short"])
def test_without_a_secret_it_does_not_start(secret):
    environment = os.environ | {"PACKHOUSE_WEBHOOK_SECRET": secret, "PREFECT_API_URL": "http://127.0.0.1:1/api"}
    command = [sys.executable, "-m", "infra.mlflow.webhook", "--port", "0"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("refused: PACKHOUSE_WEBHOOK_SECRET: ")
