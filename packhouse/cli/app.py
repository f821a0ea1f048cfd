"""The `packhouse` command: data on stdout, talk on stderr.

Exit statuses: 0 done; 1 refused; 2 unavailable, try again; 3 nothing to do; 64 wrong usage; 70 a fault of packhouse;
130 interrupted; 143 terminated.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from packhouse import __version__, exit_status
from packhouse.cli.channels import channels_command, history, promote, rollback
from packhouse.cli.deploy import PASSED_ON, deploy
from packhouse.cli.doctor import doctor
from packhouse.cli.fetch import fetch_command
from packhouse.cli.release import demo, release
from packhouse.cli.serve import serve
from packhouse.cli.show import ls, show
from packhouse.cli.sign import keys, sign
from packhouse.cli.stage import stage
from packhouse.cli.verify import verify_command

TYPERS = {2: exit_status.USAGE, 1: exit_status.UNAVAILABLE}
"""What typer ends with: wrong usage, and output that nobody reads any more."""
app = typer.Typer(
    name="packhouse",
    help="From trained PyTorch weights to a verified release.",
    epilog="Exit statuses: 0 done, 1 refused, 2 unavailable (try again), 3 nothing to do, 64 wrong usage, "
    "70 a fault of packhouse (packhouse --verbose COMMAND shows the traceback), 130 interrupted, 143 terminated.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="For a fault of packhouse, its traceback.")] = False,
) -> None:
    """From trained PyTorch weights to a verified release."""


def version() -> None:
    """Print the version."""
    print(__version__)


app.command("stage")(stage)
app.command("release")(release)
app.command("verify")(verify_command)
app.command("sign")(sign)
app.command("keys")(keys)
app.command("show")(show)
app.command("ls")(ls)
app.command("promote")(promote)
app.command("rollback")(rollback)
app.command("history")(history)
app.command("channels")(channels_command)
app.command("fetch")(fetch_command)
app.command("serve")(serve)
app.command("doctor")(doctor)
app.command("deploy", context_settings=PASSED_ON)(deploy)
app.command("demo")(demo)
app.command("version")(version)


def main() -> None:
    """The entry point. Every end has a status and one line."""
    exit_status.end_in_order()
    try:
        app()
    except SystemExit as end:
        sys.exit(TYPERS.get(end.code, end.code) if isinstance(end.code, int) else end.code)
    except BaseException as error:  # whatever it is, it has a status
        sys.exit(exit_status.said(error, verbose=not exit_status.VERBOSE.isdisjoint(sys.argv[1:])))
