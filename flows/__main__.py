"""The embedded worker: runs a release in this process, with Prefect's own temporary server. `packhouse release`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pydantic import TypeAdapter

from packhouse.manifest import ChannelName

if TYPE_CHECKING:
    from flows.ends import End


def main() -> int:
    options = _options()
    _prepare(verbose=options.verbose)
    from flows.ends import exit_status
    from flows.talk import talk

    with talk(len(options.sources), everything=options.verbose):
        ends = _release(options.sources, options.channel)
    for end in ends:
        print(end.model_dump_json() if options.json else end.line())  # noqa: T201
    return exit_status(ends)


def guarded_main() -> int:
    """Settings that are wrong, and an orchestrator that does not answer, end in one line too."""
    try:
        return main()
    except Exception as error:  # Prefect's and pydantic's ends have no common class; all others go on
        name, words = type(error).__name__, " ".join(str(error).split())[:500]
        if name == "ValidationError" and "Settings" in words:
            sys.stderr.write(f"wrong setting: {words}\n")
            return 64
        if "API" in words or name in ("ConnectError", "ConnectTimeout", "PrefectHTTPStatusError"):
            sys.stderr.write(f"unavailable: Prefect's API at {os.environ.get('PREFECT_API_URL', '?')}: {words}\n")
            return 2
        raise


def _release(sources: list[str], channel: str) -> list[End]:
    """Planning needs no server: where nothing changed, none is started."""
    from flows.release import release
    from flows.talk import ENDS
    from infra.workshop import workshop

    ends = {source: _without_work(source, channel) for source in dict.fromkeys(sources)}
    for end in filter(None, ends.values()):
        ENDS.info(end.line())
    if to_do := [source for source, end in ends.items() if end is None]:
        workshop().sandbox.start()
        try:
            ends |= dict(zip(to_do, release(to_do, channel), strict=True))
        finally:
            workshop().close()
    return [end for end in ends.values() if end]


def _without_work(source: str, channel: str) -> End | None:
    """The end of a source that is unchanged, or that can not even be planned; None where there is work."""
    from flows.ends import end_of
    from packhouse.errors import PackhouseError
    from tasks.commit import promote
    from tasks.plan import plan

    try:
        planned = plan.fn(source)
        if planned.record is None:
            return None
        return end_of(source, promote.fn(planned.record, channel, again=True))
    except PackhouseError as error:
        return end_of(source, error)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(64, f"{message}\n")


def _options() -> argparse.Namespace:
    parser = _Parser(prog="packhouse release")
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--channel", default="latest", type=_channel)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    return parser.parse_args()


def _channel(name: str) -> str:
    try:
        return TypeAdapter(ChannelName).validate_python(name)
    except ValueError as error:
        words = f"{name!r} is no channel: lower-case letters, digits and -, at most 63"
        raise argparse.ArgumentTypeError(words) from error


def _prepare(*, verbose: bool) -> None:
    """Settings that Prefect reads when it is imported, which is why nothing above imports it.

    A server that is already set up is used as it is."""
    home = Path(os.environ.get("PACKHOUSE_HOME", "~/.packhouse")).expanduser()
    defaults = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_LOGGING_LEVEL": "INFO" if verbose else "CRITICAL",
    }
    if "PREFECT_API_URL" not in os.environ:
        defaults["PREFECT_HOME"] = str(home / "prefect")
        (home / "prefect").mkdir(parents=True, exist_ok=True)
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


if __name__ == "__main__":
    sys.exit(guarded_main())
