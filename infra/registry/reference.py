"""Names of images, as `docker pull` takes them: `registry.example:5000/team/churn:tag@sha256:...`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from packhouse.digest import DIGEST
from packhouse.errors import ImageInvalid

_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{{1,5}})?)/(?P<repository>{_PART}(?:/{_PART})*)"
    rf"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}}))?(?:@(?P<digest>{DIGEST.pattern}))?"
)


@dataclass(frozen=True)
class Reference:
    """One image, or with neither tag nor digest a repository. host: with its port."""

    host: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def name(self) -> str:
        return f"{self.host}/{self.repository}"

    @property
    def version(self) -> str:
        """What is asked for in the registry's paths."""
        return self.digest or self.tag or "latest"

    def at(self, digest: str) -> Reference:
        return replace(self, tag="", digest=digest)


def parse(text: str) -> Reference:
    """Raises ImageInvalid: it is none, or has no registry: nothing here is looked up on a public default."""
    found = _REFERENCE.fullmatch(text)
    if not found or not _is_host(found["host"]):
        raise ImageInvalid("PH-0447 names no image", where=text[:120], want="REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST]")
    return Reference(found["host"], found["repository"], found["tag"] or "", found["digest"] or "")


def _is_host(text: str) -> bool:
    """By Docker's own rule: the first part is a registry if it has a dot or a port, or is localhost."""
    return "." in text or ":" in text or text == "localhost"
