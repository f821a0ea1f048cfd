"""How a command ends that does not end well: one line on stderr and an exit status, whatever happened."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import traceback
from typing import NoReturn

from packhouse.errors import PackhouseError, Unavailable, printable

UNAVAILABLE = 2
USAGE = 64
FAULT = 70
VERBOSE = frozenset({"-v", "--verbose"})


class Parser(argparse.ArgumentParser):
    """For programs that are started by themselves: wrong usage is one line, and has the status of wrong usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}\n")


class Ended(BaseException):
    """A signal asked this process to end. An exception, so that what was begun is ended in order: children too."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number
        self.word = "interrupted" if number == signal.SIGINT else "terminated"


def end_in_order() -> None:
    """From here on Ctrl-C and SIGTERM raise Ended in the main thread."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)


def _end(number: int, _: object) -> None:
    raise Ended(number)


def said(error: BaseException, *, verbose: bool) -> int:
    """Says how it ended; gives the status. What packhouse has no name for is a fault of its own, whose traceback is
    for those who asked for it."""
    if isinstance(error, PackhouseError):
        return _say(f"{'unavailable' if isinstance(error, Unavailable) else 'refused'}: {error}", error.exit_status)
    if isinstance(error, Ended):
        return _say(f"{error.word}: what is not committed is not visible; run it again", error.status)
    if isinstance(error, OSError):
        return _say(f"unavailable: {_os_words(error)}", UNAVAILABLE)
    if verbose:
        traceback.print_exception(error)
    return _say(f"fault of packhouse: {type(error).__name__}: {' '.join(str(error).split())[:500]}", FAULT)


def _os_words(error: OSError) -> str:
    """What is wrong, and with which file."""
    what = os.strerror(error.errno) if error.errno and error.errno in errno.errorcode else str(error)
    return f"{error.filename}: {what}" if isinstance(error.filename, str) else what


def _say(line: str, status: int) -> int:
    sys.stderr.write(f"{printable(line)}\n")
    return status
