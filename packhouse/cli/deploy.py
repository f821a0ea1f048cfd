"""`packhouse deploy`: pools, deployments and automations of a Prefect server."""

from __future__ import annotations

from typing import Annotated

import typer

from packhouse.cli.worker import worker, worker_root

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""The options, also --help, are those of infra.deploy.apply: they are told once."""


def deploy(
    context: typer.Context,
    folder: Annotated[
        bool,
        typer.Option("--folder", help="Only print where the worker's code lies here: PACKHOUSE_WORKER of workers."),
    ] = False,
) -> None:
    """Put packhouse onto the Prefect server of PREFECT_API_URL: pools, deployments, automations. Run again, it changes
    nothing. `packhouse deploy --help` lists its options. Needs the extra `worker`."""
    if folder:
        print(worker_root())
        return
    worker(["-m", "infra.deploy.apply", *context.args])
