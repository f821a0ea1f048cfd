"""Logs: one JSON line an event on stderr. Never what a client sent, but for the id that it gave its request."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from collections.abc import Mapping
from logging import INFO
from typing import Any

_OWN = "fields"
log = logging.getLogger("packhouse.serving")


class Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {"time": f"{stamp}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        line["event"] = record.getMessage()
        line |= getattr(record, _OWN, {})
        if record.exc_info:
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, ensure_ascii=True)


def event(name: str, fields: Mapping[str, Any], *, level: int = INFO, error: BaseException | None = None) -> None:
    if log.isEnabledFor(level):
        log.log(level, name, extra={_OWN: dict(fields)}, exc_info=error)


def to_stderr(level: str) -> None:
    """uvicorn's own words too, those of trouble."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    for name, least in (("packhouse.serving", level.upper()), ("uvicorn", "WARNING")):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(least)
