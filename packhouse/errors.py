"""The one tree of errors: `Refused` (the input is bad, never retry) and `Unavailable` (the world is bad, retry).

A message says what, where, got, want, next, in one line, and never a secret. It ends with its code, which stays the
same for good and which docs/errors.md lists:
`weights.pt: sha256 differs; got 3f9a…, want 9a01…; upload the file again or correct package.toml (PH-0123)`.
"""

from __future__ import annotations

import re
from typing import ClassVar

ErrorDocument = dict[str, str]

_CODE = re.compile(r"^(PH-[0-9]{4})(?: |$)| \((PH-[0-9]{4})\)")
"""In front of a message as it is written in the code, or in brackets, as in the text of another error."""


class PackhouseError(Exception):
    """The base of all errors of packhouse. `str(error)` is one line of plain text.

    Attributes:
        exit_status (int): Exit status of a command that ends with this error: 1 refused, 2 unavailable.
        class_code (str): Code of the messages of this class that bring none.
        code (str): The message's code, such as `PH-0123` (docs/errors.md).
        what (str): The finding, a short clause.
        where (str): The file, key or place.
        got (str): The value that was found.
        want (str): The value that was expected.
        next (str): What to do about it.
    """

    exit_status: ClassVar[int] = 1
    class_code: ClassVar[str] = "PH-0001"

    def __init__(self, what: str, *, where: str = "", got: str = "", want: str = "", next: str = "") -> None:
        """Makes an error.

        Args:
            what: The finding, a short clause, with its code in front: `PH-0123 sha256 differs`. Without a code, the
                code of another message that it quotes counts, else that of the class.
            where: The file, key or place.
            got: The value that was found.
            want: The value that was expected.
            next: What to do about it.
        """
        self.what, self.where, self.got, self.want, self.next = (
            printable(part) for part in (what, where, got, want, next)
        )
        self.code, self.what = coded(self.what)
        self.code = self.code or self.class_code
        super().__init__(self.what)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        values = ", ".join(part for part in (self.got and f"got {self.got}", self.want and f"want {self.want}") if part)
        return f"{'; '.join(part for part in (head, values, self.next) if part)} ({self.code})"

    @property
    def coded(self) -> str:
        """`what` with its code in front, for an error of another class about the same."""
        return f"{self.code} {self.what}"

    def document(self) -> ErrorDocument:
        """Writes the error as plain JSON, to cross a process boundary.

        Returns:
            The document `d`, for which `from_document(d)` equals the error.
        """
        parts = {"what": self.what, "where": self.where, "got": self.got, "want": self.want, "next": self.next}
        said = {name: part for name, part in parts.items() if part}
        return {"error": type(self).__name__, "code": self.code, **said}


class Refused(PackhouseError):
    """The input is bad. Another attempt fails in the same way."""

    class_code = "PH-0002"


class SpecInvalid(Refused):
    """package.toml does not say what a spec must say."""

    class_code = "PH-0003"


class DigestMismatch(Refused):
    """Other bytes arrived than were named. Nothing has parsed them."""

    class_code = "PH-0004"


class UnsafeWeights(Refused):
    """The weights file could run code, or is not what it claims to be."""

    class_code = "PH-0005"


class WeightsInvalid(Refused):
    """The weights are readable but do not fit the model, or hold NaN or infinity."""

    class_code = "PH-0006"


class SamplesInvalid(Refused):
    """The samples are unreadable or do not fit the declared inputs."""

    class_code = "PH-0007"


class ArchitectureUnknown(Refused):
    """No installed package registers the architecture, or it can not be built from the arguments."""

    class_code = "PH-0008"


class FormatUnknown(Refused):
    """No installed package adds the format, or what the package says of it can not be used."""

    class_code = "PH-0670"


class ExportFailed(Refused):
    """A format could not be made from the model."""

    class_code = "PH-0009"


class ParityRefused(Refused):
    """A format does not compute what the trained model computes."""

    class_code = "PH-0010"


class LimitExceeded(Refused):
    """A stage took more time, memory or bytes than its limit."""

    class_code = "PH-0011"


class StageCrashed(Refused):
    """A stage's child process died without a result."""

    class_code = "PH-0012"


class SourceNotAllowed(Refused):
    """The source lies outside the prefixes that the operator allows, or is no URL of a source."""

    class_code = "PH-0013"


class NotApproved(Refused):
    """A person refused the approval."""

    class_code = "PH-0014"


class ReleaseConflict(Refused):
    """The release's folder holds other bytes than these inputs make."""

    class_code = "PH-0015"


class ReleaseInvalid(Refused):
    """A release is not complete, or is not what its record says."""

    class_code = "PH-0016"


class SignatureInvalid(Refused):
    """No signer that the reader trusts signed the release, or the reader's policy is not met."""

    class_code = "PH-0017"


class ImageInvalid(Refused):
    """An image, its manifest or its name is not valid, or a registry does not accept it."""

    class_code = "PH-0018"


class ImageLost(Refused):
    """A registry lost all or a part of an image that a record names, and the same bytes can not be pushed again."""

    class_code = "PH-0019"


class NotFound(Refused):
    """The named object, source, release or channel does not exist."""

    class_code = "PH-0020"


class NotInstalled(Refused):
    """A command or function needs packages that are not installed here: one of packhouse's extras."""

    class_code = "PH-0680"

    exit_status: ClassVar[int] = 64


class Unavailable(PackhouseError):
    """A server, a disk or the network fails. Trying again may help."""

    class_code = "PH-0021"

    exit_status: ClassVar[int] = 2


class StoreUnavailable(Unavailable):
    """The store did not answer, broke off or denied access."""

    class_code = "PH-0022"


class StoreRefusal(StoreUnavailable):
    """The store denies access, or does not accept a request. Only a person can help."""

    class_code = "PH-0023"


class RegistryUnavailable(Unavailable):
    """The registry did not answer, is busy, or broke off."""

    class_code = "PH-0024"


class RegistryRefusal(RegistryUnavailable):
    """The registry denies access, or its certificate is not trusted. Only a person can help."""

    class_code = "PH-0025"


class EngineUnavailable(Unavailable):
    """The Docker engine did not answer, or broke off."""

    class_code = "PH-0026"


class SignerUnavailable(Unavailable):
    """Nothing was signed: the identity provider or the signing worker failed."""

    class_code = "PH-0027"


class KeyAbsent(SignerUnavailable):
    """There is no key to sign with, or it can not be read. Only a person can help."""

    class_code = "PH-0028"


class StoreFull(Unavailable):
    """No space is left where bytes were to be written."""

    class_code = "PH-0029"


class RunLost(Unavailable):
    """A run on another worker crashed, was cancelled or took too long, and left no result."""

    class_code = "PH-0030"


class Stopping(Unavailable):
    """This worker ends the run: it was cancelled, or another part of it failed."""

    class_code = "PH-0031"


class Contention(Unavailable):
    """Other writers changed the same object at the same time, on each of several attempts."""

    class_code = "PH-0032"


class GpuUnavailable(Unavailable):
    """The spec requires a check on a GPU, and no worker could make it. A later run may find one."""

    class_code = "PH-0033"


def from_document(document: ErrorDocument) -> PackhouseError:
    """Reads an error that `PackhouseError.document` wrote.

    Args:
        document: The document.

    Returns:
        An equal error.

    Raises:
        KeyError: The class is not of this tree, or not imported here.
    """
    parts = {name: document.get(name, "") for name in ("what", "where", "got", "want", "next")}
    what = parts.pop("what")
    return _leaves()[document["error"]](f"{document['code']} {what}" if "code" in document else what, **parts)


def _leaves(root: type[PackhouseError] = PackhouseError) -> dict[str, type[PackhouseError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found |= _leaves(child)
    return found


def without_paths(text: str) -> str:
    """Absolute paths become their last part: what is digested must not say where it was made."""
    return re.sub(r"(?:/[^\s/:;,'\"]+)+/([^\s/:;,'\"]+)", r"\1", text)


def coded(text: str) -> tuple[str, str]:
    """The first code in a message, or nothing, and the message without any."""
    codes = [first or other for first, other in _CODE.findall(text)]
    return (codes[0] if codes else ""), _CODE.sub("", text).strip()


def squeezed(words: object, most: int = 300) -> str:
    """The text in one line, cut to so many characters: other programs' errors span pages."""
    return " ".join(str(words).split())[:most]


def printable(text: str) -> str:
    """One printable line: control characters would let a file name write into a log."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(text).replace("\n", " ")).strip()
