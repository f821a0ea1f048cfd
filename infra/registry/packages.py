"""What is installed in an image: Debian's and Python's packages, read out of its layers.

A layer is hashed as a whole on its way to a file before anything of it is parsed; nothing is unpacked.
"""

from __future__ import annotations

import re
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from email.parser import HeaderParser
from typing import IO

from infra.registry.append import Base
from infra.registry.client import Client
from packhouse.errors import ImageInvalid
from packhouse.sbom import Component, debian_package, python_package

STATUS = re.compile(r"var/lib/dpkg/(?:status|status\.d/[^/]+)")
"""The second is where images without a package manager keep one file a package."""
RELEASE = re.compile(r"(?:usr/lib|etc)/os-release")
METADATA = re.compile(r"(?:.*/)?[^/]+\.dist-info/METADATA")
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
MAX_FILE_BYTES, MAX_FILES = 16 * 1024 * 1024, 10_000


def installed(client: Client, base: Base) -> list[Component]:
    """Raises ImageInvalid: a layer is no tar, or is packed in another way than gzip; and the registry's errors."""
    files: dict[str, bytes] = {}
    for entry in base.layers:
        with tempfile.TemporaryFile() as file:
            for chunk in client.blob(base.where.repository, entry):
                file.write(chunk)
            file.seek(0)
            _apply(files, file, f"{base.where}: {entry.digest}")
    return components(files)


def components(files: dict[str, bytes]) -> list[Component]:
    release = _release(files)
    found = [python_package(*each) for name, data in files.items() if METADATA.fullmatch(name) for each in _named(data)]
    for paragraph in (text for name, data in files.items() if STATUS.fullmatch(name) for text in _paragraphs(data)):
        fields = HeaderParser().parsestr(paragraph)
        if fields.get("Status", " installed").endswith(" installed") and fields["Package"] and fields["Version"]:
            found.append(debian_package(fields["Package"], fields["Version"], fields["Architecture"] or "all", release))
    return found


def _paragraphs(status: bytes) -> list[str]:
    return status.decode(errors="replace").split("\n\n")


def _named(metadata: bytes) -> Sequence[tuple[str, str]]:
    fields = HeaderParser().parsestr(metadata.decode(errors="replace"))
    return [(fields["Name"], fields["Version"])] if fields["Name"] and fields["Version"] else []


def _release(files: dict[str, bytes]) -> str:
    """Such as `debian-12`."""
    for name, data in files.items():
        if RELEASE.fullmatch(name):
            said = dict(re.findall(r'^([A-Z_]+)="?([^"\n]*)"?$', data.decode(errors="replace"), re.MULTILINE))
            return f"{said.get('ID', 'debian')}-{said.get('VERSION_ID', '')}".rstrip("-")
    return "debian"


def _apply(files: dict[str, bytes], layer: IO[bytes], where: str) -> None:
    """One layer on those below it: what it marks as gone goes from them, in any order; then what it holds comes."""
    held: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=layer, mode="r|*") as archive:
            for name, data in _interesting(archive):
                folder, _, last = name.rpartition("/")
                if last == OPAQUE:
                    _drop(files, folder)
                elif last.startswith(WHITEOUT):
                    _drop(files, f"{folder}/{last.removeprefix(WHITEOUT)}".lstrip("/"))
                elif len(held) < MAX_FILES:
                    held[name] = data
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise ImageInvalid("is no layer that can be read here", where=where, got=type(error).__name__) from error
    files |= held


def _interesting(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for member in archive:
        name = member.name.removeprefix("./").lstrip("/")
        gone = name.rpartition("/")[2].startswith(WHITEOUT)
        if not gone and not (STATUS.fullmatch(name) or RELEASE.fullmatch(name) or METADATA.fullmatch(name)):
            continue
        if not member.isfile() or member.size > MAX_FILE_BYTES:
            continue
        file = archive.extractfile(member)
        yield name, file.read() if file else b""


def _drop(files: dict[str, bytes], path: str) -> None:
    """All of it where the path is the image's root."""
    for name in [name for name in files if not path or name == path or name.startswith(f"{path}/")]:
        del files[name]
