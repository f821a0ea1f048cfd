"""MLflow's tracking server: which finished training runs wait for a release, and what became of them.

By MLflow's own client, since every way to log in (MLFLOW_TRACKING_USERNAME, _PASSWORD, _TOKEN, client certificates) is
its business; importing it takes two seconds, and so it is imported where it is used.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from packhouse.errors import NotFound, SpecInvalid, Unavailable

if TYPE_CHECKING:
    from mlflow import MlflowClient

SOURCE, RELEASE_RUN, REFUSED = "packhouse.source", "packhouse.release-run", "packhouse.refused"
"""Tags of a training run: set by the training script; set here once the run of `release` is there; or why there is
none. Whoever deletes one of the last two has the source looked at again."""

WAITING = (
    f"attributes.status = 'FINISHED' and tags.`{SOURCE}` IS NOT NULL"
    f" and tags.`{RELEASE_RUN}` IS NULL and tags.`{REFUSED}` IS NULL"
)
EXPERIMENTS = 500
"""Of one search; their ids stand in its request."""
PAGE = 1000
MAX_TAG = 1000
"""Characters of a tag's value that are written; MLflow takes 8,000."""
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
QUIET = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_LOGGING_LEVEL": "WARNING"}
"""MLflow's own defaults keep a worker busy for minutes where a server is down; the next watch comes soon enough."""


@dataclass(frozen=True)
class TrainingRun:
    """source: as the tag says it, unchecked. started: milliseconds since 1970 on the training machine's clock."""

    started: int
    id: str
    name: str
    experiment: str
    source: str


class Tracking:
    """uri: http:// or https://. Raises SpecInvalid: it is not, or holds credentials, which are not repeated."""

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            next = "credentials are MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            want = "http://host:5000 or https://host"
            raise SpecInvalid(
                "PH-0397 is no URL of an MLflow server", where="PACKHOUSE_MLFLOW_URI", want=want, next=next
            )
        self._uri = uri
        self._client = _client(uri)

    def waiting(self, experiments: Sequence[str], *, most: int) -> list[TrainingRun]:
        """The finished runs with a source and without an end, those first that began first. experiments: names; none
        means every one.

        Raises NotFound: there is no experiment of this name. Unavailable: MLflow does not answer, or not to us."""
        with self._errors("search its runs"):
            names = dict(self._experiments(experiments))
            ids = sorted(names)
            searches = [self._search(ids[n : n + EXPERIMENTS], names, most) for n in range(0, len(ids), EXPERIMENTS)]
            return list(islice(heapq.merge(*searches, key=lambda run: (run.started, run.id)), most))

    def tag(self, run: str, name: str, value: str) -> None:
        """Raises Unavailable: MLflow does not answer, or we may not change this run."""
        with self._errors(f"tag its run {run}"):
            self._client.set_tag(run, name, value[:MAX_TAG], synchronous=True)

    def _experiments(self, wanted: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Ids and names."""
        for name in wanted:
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise NotFound(f"PH-0396 there is no experiment {name!r}", where=self._uri)
            yield found.experiment_id, found.name
        token = None
        while not wanted:
            page = self._client.search_experiments(max_results=PAGE, page_token=token)
            yield from ((each.experiment_id, each.name) for each in page)
            token = page.token
            if not token:
                return

    def _search(self, ids: list[str], names: dict[str, str], most: int) -> Iterator[TrainingRun]:
        token, order = None, ["attributes.start_time ASC", "attributes.run_id ASC"]
        while True:
            page = self._client.search_runs(ids, WAITING, order_by=order, max_results=min(PAGE, most), page_token=token)
            for each in page:
                info = each.info
                name, source = info.run_name or info.run_id, each.data.tags[SOURCE]
                yield TrainingRun(info.start_time or 0, info.run_id, name, names[info.experiment_id], source)
            token = page.token
            if not token:
                return

    def _errors(self, what: str) -> AbstractContextManager[None]:
        return _errors(self._uri, what)


def _client(uri: str) -> MlflowClient:
    for name, value in (PATIENCE | QUIET).items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    return MlflowClient(uri)


@contextmanager
def _errors(uri: str, what: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        next = "the next run asks again"
        if error.error_code in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
            next = "MLFLOW_TRACKING_USERNAME needs EDIT on the experiment and the registered model; then run it again"
        got = f"{error.error_code}: {' '.join(str(error).split())[:300]}"
        raise Unavailable(f"PH-0398 MLflow does not let us {what}", where=uri, got=got, next=next) from error
