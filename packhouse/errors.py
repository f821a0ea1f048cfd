"""The one tree of errors: `Refused` (the input is bad, never retry) and `Unavailable` (the world is bad, retry).

A message says what, where, got, want, next, in one line, and never a secret:
`weights.pt: sha256 differs; got 3f9a…, want 9a01…; upload the file again or correct package.toml`.
"""

from __future__ import annotations

import re
from typing import ClassVar

ErrorDocument = dict[str, str]


class PackhouseError(Exception):
    """An end that packhouse can name.

    what: the finding, a short clause. where: the file, key or place. got, want: the two values that
    differ. next: what to do about it. All are plain text; `str(error)` is one line.
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", got: str = "", want: str = "", next: str = "") -> None:
        self.what, self.where, self.got, self.want, self.next = (
            printable(part) for part in (what, where, got, want, next)
        )
        super().__init__(self.what)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        values = ", ".join(part for part in (self.got and f"got {self.got}", self.want and f"want {self.want}") if part)
        return "; ".join(part for part in (head, values, self.next) if part)

    def document(self) -> ErrorDocument:
        """The error as plain JSON, to cross a process boundary. Law: from_document(e.document()) equals e."""
        parts = {"what": self.what, "where": self.where, "got": self.got, "want": self.want, "next": self.next}
        return {"error": type(self).__name__, **{name: part for name, part in parts.items() if part}}


class Refused(PackhouseError):
    """The input is bad. Trying again gives the same answer."""


class SpecInvalid(Refused):
    """package.toml does not say what a spec must say."""


class DigestMismatch(Refused):
    """Other bytes arrived than were named. Nothing has parsed them."""


class UnsafeWeights(Refused):
    """The weights file could run code, or is not what it claims to be."""


class WeightsInvalid(Refused):
    """The weights are readable but do not fit the model, or hold NaN or infinity."""


class SamplesInvalid(Refused):
    """The samples are unreadable or do not fit the declared inputs."""


class ArchitectureUnknown(Refused):
    """No installed package registers the architecture, or it can not be built from the arguments."""


class ExportFailed(Refused):
    """A format could not be made from the model."""


class ParityRefused(Refused):
    """A format does not compute what the trained model computes."""


class LimitExceeded(Refused):
    """A stage took more time, memory or bytes than its limit."""


class StageCrashed(Refused):
    """A stage's child process died without an answer."""


class SourceNotAllowed(Refused):
    """The source lies outside the prefixes that the operator allows, or is no URL of a source."""


class NotApproved(Refused):
    """A person was asked, and said no."""


class ReleaseConflict(Refused):
    """The release's folder holds other bytes than these inputs make."""


class ReleaseInvalid(Refused):
    """A release is not whole, or is not what its record says."""


class SignatureInvalid(Refused):
    """A release is not signed by anybody whom the reader trusts, or not as the reader's policy wants it."""


class ImageInvalid(Refused):
    """An image, its manifest or its name is not what it must be, or a registry does not take it."""


class ImageLost(Refused):
    """A registry lost all or a part of an image that a record names, and the same bytes can not be pushed again."""


class NotFound(Refused):
    """The named object, source, release or channel does not exist."""


class Unavailable(PackhouseError):
    """The world is bad: a server, a disk, the network. Trying again may help."""

    exit_status: ClassVar[int] = 2


class StoreUnavailable(Unavailable):
    """The store did not answer, refused us, or broke off."""


class StoreRefusal(StoreUnavailable):
    """The store refuses us: credentials, permissions, or a request that it does not take. Only a person can help."""


class RegistryUnavailable(Unavailable):
    """The registry did not answer, is busy, or broke off."""


class RegistryRefusal(RegistryUnavailable):
    """The registry does not let us in, or can not be trusted. Only a person can help."""


class EngineUnavailable(Unavailable):
    """The Docker engine did not answer, or broke off."""


class SignerUnavailable(Unavailable):
    """Nothing was signed: whoever vouches for an identity does not, or a signer elsewhere did not do it."""


class KeyAbsent(SignerUnavailable):
    """There is no key to sign with, or it can not be read. Only a person can help."""


class StoreFull(Unavailable):
    """No space is left where bytes were to be written."""


class RunLost(Unavailable):
    """A run on another worker crashed, was cancelled or took too long, and left no word of this."""


class Stopping(Unavailable):
    """This worker ends the run: it was cancelled, or another part of it failed."""


class Contention(Unavailable):
    """Another writer moved the same thing at the same time, more often than we tried."""


class GpuUnavailable(Unavailable):
    """The spec requires a check on a GPU, and no worker could make it. A later run may find one."""


def from_document(document: ErrorDocument) -> PackhouseError:
    """The error that `document()` wrote. Raises KeyError where the class is not of this tree, or not imported here."""
    parts = {name: document.get(name, "") for name in ("what", "where", "got", "want", "next")}
    return _leaves()[document["error"]](parts.pop("what"), **parts)


def _leaves(root: type[PackhouseError] = PackhouseError) -> dict[str, type[PackhouseError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found |= _leaves(child)
    return found


def without_paths(text: str) -> str:
    """Absolute paths become their last part: what is digested must not say where it was made."""
    return re.sub(r"(?:/[^\s/:;,'\"]+)+/([^\s/:;,'\"]+)", r"\1", text)


def squeezed(words: object, most: int = 300) -> str:
    """The text in one line, cut to so many characters: other programs' errors span pages."""
    return " ".join(str(words).split())[:most]


def printable(text: str) -> str:
    """One printable line: control characters would let a file name write into a log."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(text).replace("\n", " ")).strip()
