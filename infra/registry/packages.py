"""What an image's bill of materials names: the image, and Debian's and Python's packages, read out of its layers.

A layer is hashed as a whole on its way to a file before anything of it is parsed; nothing is unpacked.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from email.parser import HeaderParser
from typing import IO, cast
from urllib.parse import quote

import zstandard

from infra.registry.append import Base
from infra.registry.client import Client
from packhouse.digest import chunks
from packhouse.errors import ImageInvalid
from packhouse.release.sbom import Component, hashed, library, python_package

STATUS = re.compile(r"var/lib/dpkg/(?:status|status\.d/[^/]+)")
"""The second is where images without a package manager keep one file a package."""
RELEASE = re.compile(r"(?:usr/lib|etc)/os-release")
METADATA = re.compile(r"(?:.*/)?[^/]+\.dist-info/METADATA")
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
MAX_FILE_BYTES, MAX_FILES = 16 * 1024 * 1024, 10_000
MAX_KEPT_BYTES = 256 * 1024 * 1024
"""Of all that is kept of an image: a layer of a few kilobytes can unpack to gigabytes."""
MAX_READ_BYTES = 64 * 1024
"""Of one piece, which is how tarfile takes the header of a long name: whole, and of any size that it says."""
MAX_WINDOW_BYTES = 128 * 1024 * 1024
"""What zstd may ask us to remember; the most that its own command gives out without being asked to."""


def installed(client: Client, base: Base) -> list[Component]:
    """Raises ImageInvalid: a layer is no tar, is packed in another way than gzip or zstd, or holds more than a list of
    packages does; and the registry's errors."""
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
            package = fields["Package"], fields["Version"], fields["Architecture"] or "all"
            found.append(debian_package(*package, release))
    return found


def debian_package(name: str, version: str, architecture: str, release: str) -> Component:
    """release: such as `debian-12`; scanners look a package up by the first part of it, who made the distribution."""
    vendor = release.partition("-")[0]
    purl = f"pkg:deb/{quote(vendor)}/{quote(name)}@{quote(version)}?arch={architecture}&distro={release}"
    return library(purl, name, version)


def image_component(repository: str, digest: str) -> Component:
    """The image itself, by digest."""
    name = repository.rpartition("/")[2]
    purl = f"pkg:oci/{quote(name)}@{quote(digest)}?repository_url={quote(repository, safe='')}"
    described = {"type": "container", "bom-ref": purl, "name": repository, "version": digest}
    return {**described, "purl": purl, "hashes": [hashed(digest)]}


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
    kept = sum(map(len, files.values()))
    try:
        # tarfile needs less of a file than its stub says: to read on, and to say where it is
        with tarfile.open(fileobj=_Unpacked(layer), mode="r:") as archive:  # type: ignore[call-overload]
            for name, data in _interesting(archive):
                folder, _, last = name.rpartition("/")
                if last == OPAQUE:
                    _drop(files, folder)
                elif last.startswith(WHITEOUT):
                    _drop(files, f"{folder}/{last.removeprefix(WHITEOUT)}".lstrip("/"))
                else:
                    held[name] = data
                    kept += len(data)
                    if kept > MAX_KEPT_BYTES or len(files) + len(held) > MAX_FILES:
                        want = f"at most {MAX_FILES:,} files of {MAX_KEPT_BYTES:,} bytes"
                        raise ImageInvalid("PH-0446 holds more than lists of packages do", where=where, want=want)
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, zstandard.ZstdError) as error:
        raise ImageInvalid(
            "PH-0445 is no layer that can be read here", where=where, got=type(error).__name__
        ) from error
    files |= held


class _Unpacked:
    """A layer's tar, read from its beginning to its end in pieces of a bounded size, however it is packed."""

    def __init__(self, layer: IO[bytes]) -> None:
        magic = layer.read(4)
        layer.seek(0)
        self._at, self._stream = 0, layer
        if magic[:2] == b"\x1f\x8b":
            self._stream = cast(IO[bytes], gzip.GzipFile(fileobj=layer))
        elif magic == b"\x28\xb5\x2f\xfd":
            unpacker = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
            self._stream = cast(IO[bytes], unpacker.stream_reader(layer, read_across_frames=True))

    def read(self, size: int) -> bytes:
        """All of `size`, unless the tar ends. Raises tarfile.ReadError: it is more than any header needs."""
        if not 0 <= size <= MAX_READ_BYTES:
            raise tarfile.ReadError(f"a piece of {size:,} bytes")
        data = bytearray()
        while len(data) < size and (more := self._stream.read(size - len(data))):
            data += more
        self._at += len(data)
        return bytes(data)

    def tell(self) -> int:
        return self._at

    def seek(self, to: int) -> None:
        if to < self._at:
            raise tarfile.ReadError("a tar that goes backwards")
        while self._at < to and self.read(min(to - self._at, MAX_READ_BYTES)):
            pass


def _interesting(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for member in archive:
        name = member.name.removeprefix("./").lstrip("/")
        gone = name.rpartition("/")[2].startswith(WHITEOUT)
        if not gone and not (STATUS.fullmatch(name) or RELEASE.fullmatch(name) or METADATA.fullmatch(name)):
            continue
        if not member.isfile() or member.size > MAX_FILE_BYTES:
            continue
        file = archive.extractfile(member)
        yield name, b"".join(chunks(file, MAX_READ_BYTES)) if file else b""  # type: ignore[arg-type]  # IO[bytes] by its stub


def _drop(files: dict[str, bytes], path: str) -> None:
    """All of it where the path is the image's root."""
    for name in [name for name in files if not path or name == path or name.startswith(f"{path}/")]:
        del files[name]
