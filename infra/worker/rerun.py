"""Runs a step that failed once more, on the same bytes: `python -m infra.worker.rerun FOLDER`.

FOLDER is one of `failures/` in the worker's cache. Its request.json names the job and its inputs by digest.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from infra.worker.cache import REQUEST
from infra.worker.context import worker_context
from packhouse.artifact import Artifact, Beside
from packhouse.errors import PackhouseError


def again(folder: Path) -> dict[str, Any]:
    """The job's answer. Raises what the job raises, and NotFound where the cache has lost an input."""
    request = json.loads((folder / REQUEST).read_text())
    arguments = {name: _revived(value) for name, value in request["arguments"].items()}
    answer, _ = worker_context().run(request["job"], arguments)
    return answer.document


def _revived(value: Any) -> Any:
    if isinstance(value, dict):
        kind = next((kind for kind in (Artifact, Beside) if value.keys() == kind.model_fields.keys()), None)
        return kind(**value) if kind else {k: _revived(v) for k, v in value.items()}
    return value


if __name__ == "__main__":
    try:
        sys.stdout.write(json.dumps(again(Path(sys.argv[1])), indent=2) + "\n")
    except PackhouseError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_status)
    finally:
        worker_context().close()
