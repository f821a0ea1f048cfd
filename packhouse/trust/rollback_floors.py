"""Floors: the highest serial of each channel that was seen here. What remembers it can not be shown an older one."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from packhouse import atomic_write
from packhouse.digest import digest_bytes
from packhouse.errors import ReleaseInvalid


class Floors:
    """One small file a channel of a store, in a folder that may not be there yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, store: str, channel: str) -> Path:
        """store: its URL. channel: `model@channel`."""
        return self._folder / f"{channel}-{digest_bytes(store.encode())[7:19]}.json"

    def least(self, store: str, channel: str) -> int:
        """0 where none was seen. Raises ReleaseInvalid: the file holds something else."""
        return _read(self.path(store, channel))

    def remember(self, store: str, channel: str, serial: int) -> None:
        """The highest, whoever remembers at the same time."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            path = self.path(store, channel)
            if serial > _read(path):
                atomic_write.write(path, [json.dumps({"serial": serial}).encode() + b"\n"])
        finally:
            os.close(descriptor)


def _read(path: Path) -> int:
    try:
        return int(json.loads(path.read_bytes())["serial"])
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError) as error:
        raise ReleaseInvalid("PH-0146 is not a remembered serial", where=str(path), next="remove it") from error
