"""The embedded worker: runs a release in this process, with a Prefect server of its own. `packhouse release`."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infra.worker.local_prefect import IN_BATCHES, PrefectApi
from packhouse import exit_status as exits
from packhouse.cli.worker_arguments import ReleaseArguments, parsed
from packhouse.errors import squeezed

if TYPE_CHECKING:
    from flows.run_result import End


def main(options: ReleaseArguments) -> int:
    api = _prepare(verbose=options.verbose)
    from flows.run_logging import talk
    from flows.run_result import exit_status

    with talk(len(options.sources), everything=options.verbose):
        ends = _release(options.sources, options.channel, api)
    for end in ends:
        print(end.model_dump_json() if options.json else end.line())  # noqa: T201
    sys.stdout.flush()
    return exit_status(ends)


def guarded_main() -> int:
    """Every end has a status and one line: also wrong settings, and an orchestrator that does not answer."""
    options = parsed(ReleaseArguments, sys.argv[1:], prog="packhouse release")
    exits.end_in_order()
    try:
        return main(options)
    except BaseException as error:  # Prefect's and pydantic's ends have no common class
        name, words = type(error).__name__, squeezed(error, 500)
        if name == "ValidationError" and "Settings" in words:
            sys.stderr.write(f"wrong setting: {words}\n")
            return exits.USAGE
        if name in ("ConnectError", "ConnectTimeout", "PrefectHTTPStatusError") or "Failed to reach API" in words:
            sys.stderr.write(f"unavailable: Prefect's API at {os.environ.get('PREFECT_API_URL', '?')}: {words}\n")
            return exits.UNAVAILABLE
        return exits.said(error, verbose=options.verbose)


def _release(sources: Sequence[str], channel: str, api: PrefectApi | None = None) -> list[End]:
    """Planning needs no server: where nothing changed, none is started."""
    from flows.release import released
    from flows.run_logging import ENDS
    from infra.worker.context import worker_context

    ends = {source: _without_work(source, channel) for source in dict.fromkeys(sources)}
    for end in filter(None, ends.values()):
        ENDS.info(end.line())
    if to_do := [source for source, end in ends.items() if end is None]:
        try:
            worker_context().sandbox.start()
            if api:
                _started(api)
            ends |= dict(zip(to_do, released(to_do, channel), strict=True))
        finally:
            worker_context().close()
    return [end for end in ends.values() if end]


def _started(api: PrefectApi) -> None:
    """Until the process exits: Prefect's own threads speak to the server to the last."""
    atexit.register(api.close)
    api.start()
    api.wait()


def _without_work(source: str, channel: str) -> End | None:
    """The end of a source that is unchanged, or that can not even be planned; None where there is work."""
    from flows.run_result import end_of
    from infra.settings import settings
    from packhouse.errors import PackhouseError
    from tasks.commit_and_promote import promote_again
    from tasks.plan import plan
    from tasks.register_mlflow import register_mlflow
    from tasks.signing.sign_channel import settled

    try:
        planned = plan.fn(source)
        if planned.record is None:
            return None
        if settings().signs and not settled(planned.model, channel, planned.release):
            return None
        released = promote_again.fn(planned.record, planned.spec, channel, source)
        if settings().mlflow_uri:
            register_mlflow.fn(released, source)
        return end_of(source, released)
    except PackhouseError as error:
        return end_of(source, error)


def _prepare(*, verbose: bool) -> PrefectApi | None:
    """Settings that Prefect reads when it is imported, which is why nothing above imports it.

    A server that is already set up is used as it is; else the one to start, where there turns out to be work."""
    defaults = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        **IN_BATCHES,
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "PREFECT_LOGGING_LEVEL": "INFO" if verbose else "CRITICAL",
    }
    api = None
    if not os.environ.get("PREFECT_API_URL"):
        os.environ.pop("PREFECT_API_URL", None)
        folder = Path(os.environ.get("PACKHOUSE_HOME", "~/.packhouse")).expanduser() / "prefect"
        folder.mkdir(parents=True, exist_ok=True)
        api = PrefectApi(folder)
        defaults |= {"PREFECT_HOME": str(folder), "PREFECT_API_URL": api.url}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    return api


if __name__ == "__main__":
    sys.exit(guarded_main())
