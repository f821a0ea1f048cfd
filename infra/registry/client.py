"""One registry, spoken to over HTTP. Every byte that comes is hashed; every upload is answered for or an error.

One client belongs to one thread. Source: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter

from infra.registry import oci_manifests
from infra.registry.auth import authorization, is_loopback
from infra.registry.credentials import Credentials, credentials
from infra.registry.oci_manifests import Descriptor
from infra.registry.responses import expect, limited, received, said, same_digest
from infra.registry.upload import Body, Upload
from packhouse.digest import digest_bytes, short, verified
from packhouse.errors import (
    DigestMismatch,
    ImageInvalid,
    NotFound,
    RegistryRefusal,
    RegistryUnavailable,
    Unavailable,
    squeezed,
)
from packhouse.store.retrying import Patience

TIMEOUT_S = (10, 120)
"""To connect; between two bytes."""
BUSY = (429, 502, 503, 504)
MAX_WAIT_S = 60.0
"""A registry may ask for a pause of at most this."""
T = TypeVar("T")


class Busy(RegistryUnavailable):
    """It asks us to come back later. after_s: in how many seconds, where it says so."""

    after_s: float = 0.0


class Client:
    """A registry. sent: bytes of blobs that went over the wire, repeated ones too.

    verify: a file with certificates of authorities to trust besides the usual ones. insecure: hosts to speak
    plain HTTP to, besides this machine. Every method raises RegistryUnavailable (after `patience`), RegistryRefusal.
    """

    def __init__(
        self,
        host: str,
        *,
        known: Credentials | None = None,
        verify: str = "",
        insecure: Iterable[str] = (),
        patience: Patience | None = None,
    ) -> None:
        self.host = host
        self.sent = 0
        plain = is_loopback(host) or host in tuple(insecure)
        self._bases = (f"http://{host}", f"https://{host}") if plain else (f"https://{host}",)
        self._base = ""
        self._known = credentials(host) if known is None else known
        self._patience = patience or Patience()
        self._authorizations: dict[str, str] = {}
        self._session = requests.Session()
        self._session.trust_env = not is_loopback(host)
        self._session.auth = _nobody  # or requests looks into ~/.netrc
        if verify:
            self._session.mount("https://", _Trusting(verify))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._session.close()

    def manifest(self, repository: str, version: str) -> tuple[bytes, str]:
        """The bytes and their digest. Raises NotFound; DigestMismatch: it answers with another one."""
        where = f"{self.host}/{repository}:{version}"

        def ask() -> tuple[bytes, str]:
            headers = {"Accept": ", ".join(oci_manifests.ACCEPTED)}
            answer = self.ask("GET", f"{repository}/manifests/{version}", repository, headers=headers, stream=True)
            if answer.status_code == 404:
                raise NotFound("PH-0426 no such image", where=where)
            data = limited(answer, oci_manifests.MAX_BYTES, where)
            digest = digest_bytes(data)
            if version.startswith("sha256:") and digest != version:
                raise DigestMismatch("PH-0427 is another image", where=where, got=short(digest), want=short(version))
            return data, digest

        return self._again(ask)

    def has_manifest(self, repository: str, version: str) -> str:
        """Its digest, where it is there; else nothing."""
        headers = {"Accept": ", ".join(oci_manifests.ACCEPTED)}
        answer = self._again(lambda: self.ask("HEAD", f"{repository}/manifests/{version}", repository, headers=headers))
        if answer.status_code == 404:
            return ""
        expect(answer, 200, f"{self.host}/{repository}:{version}")
        return answer.headers.get("Docker-Content-Digest", "") or self.manifest(repository, version)[1]

    def put_manifest(self, repository: str, version: str, data: bytes, media_type: str) -> Mapping[str, str]:
        """The answer's headers. Raises ImageInvalid: the registry does not take it."""
        digest = digest_bytes(data)

        def put() -> Mapping[str, str]:
            answer = self.ask(
                "PUT",
                f"{repository}/manifests/{version}",
                repository,
                headers={"Content-Type": media_type},
                body=lambda: iter([data]),
                size=len(data),
            )
            expect(answer, 201, f"{self.host}/{repository}:{version}")
            same_digest(answer, digest, f"{self.host}/{repository}:{version}")
            return answer.headers

        return self._again(put)

    def referrers(self, repository: str, digest: str) -> bytes:
        """The index of what refers to the image; nothing where the registry has no such API."""
        where = f"{self.host}/{repository}@{short(digest)}"

        def ask() -> bytes:
            headers = {"Accept": oci_manifests.INDEX}
            answer = self.ask("GET", f"{repository}/referrers/{digest}", repository, headers=headers, stream=True)
            if answer.status_code != 200 or oci_manifests.INDEX not in answer.headers.get("Content-Type", ""):
                answer.close()
                return b""
            return limited(answer, oci_manifests.MAX_BYTES, where)

        return self._again(ask)

    def has_blob(self, repository: str, digest: str) -> bool:
        answer = self._again(lambda: self.ask("HEAD", f"{repository}/blobs/{digest}", repository))
        if answer.status_code != 404:
            expect(answer, 200, f"{self.host}/{repository}@{short(digest)}")
        return answer.status_code == 200

    def blob(self, repository: str, entry: Descriptor) -> Iterator[bytes]:
        """Its bytes, hashed on the way. Raises NotFound, DigestMismatch. Not asked again once bytes came."""
        where = f"{self.host}/{repository}@{short(entry.digest)}"
        answer = self._again(lambda: self.ask("GET", f"{repository}/blobs/{entry.digest}", repository, stream=True))
        if answer.status_code == 404:
            raise NotFound("PH-0437 no such blob", where=where)
        return verified(received(answer, where), digest=entry.digest, size=entry.size, where=where)

    def small_blob(self, repository: str, entry: Descriptor) -> bytes:
        """Raises ImageInvalid: it is no document of an image, since those are small."""
        if entry.size > oci_manifests.MAX_BYTES:
            raise ImageInvalid(
                "PH-0436 is too large for a config", where=f"{self.host}/{repository}", got=f"{entry.size:,} bytes"
            )
        return self._again(lambda: b"".join(self.blob(repository, entry)))

    def mount(self, repository: str, digest: str, source: str) -> bool:
        """Whether the registry has put the blob of another of its repositories into this one, without a byte sent."""

        def ask() -> bool:
            path = f"{repository}/blobs/uploads/?mount={digest}&from={source}"
            answer = self.ask("POST", path, repository, source)
            if answer.status_code == 201:
                return True
            expect(answer, 202, f"{self.host}/{repository}")
            with suppress(Unavailable):  # an upload that nobody will use; the registry forgets it by itself too
                self.ask("DELETE", self.place(answer), repository)
            return False

        return self._again(ask)

    def upload(self, repository: str, digest: str, size: int, body: Body) -> None:
        """Sends a blob. Where the line breaks, what the registry has is not sent again."""
        upload = Upload(self, repository, digest, size, body)
        while True:
            reached = upload.reached
            try:
                return self._again(upload.go_on)
            except RegistryRefusal:
                raise
            except RegistryUnavailable:
                if not upload.got_further_than(reached):
                    raise

    def ensure(self, repository: str, digest: str, size: int, body: Body) -> bool:
        """Sends a blob, unless it is there; whether it was sent."""
        if self.has_blob(repository, digest):
            return False
        self.upload(repository, digest, size, body)
        return True

    def ensure_document(self, repository: str, data: bytes) -> bool:
        return self.ensure(repository, digest_bytes(data), len(data), lambda: iter([data]))

    def ask(
        self,
        method: str,
        path: str,
        *repositories: str,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        size: int = 0,
        stream: bool = False,
        answer_s: float = TIMEOUT_S[1],
    ) -> requests.Response:
        """One request, and once more with what a 401 asks for. A body is made anew for it."""
        scope = " ".join(repositories)
        url = path if "://" in path else f"{self._speaks()}/v2/{path}"
        for first in (True, False):
            sent = dict(headers or {})
            if body is not None:
                sent["Content-Length"] = str(size)
            if self._is_ours(url) and scope in self._authorizations:
                sent["Authorization"] = self._authorizations[scope]
            answer = self._send(
                method,
                url,
                sent,
                _Sized(self._counted(body()), size) if body and size else b"" if body else None,
                stream,
                answer_s,
            )
            if answer.status_code != 401 or not self._is_ours(url):
                break
            if not first:
                raise RegistryRefusal("PH-0435 does not let us in", where=f"{self.host}/{scope}", got=said(answer))
            self._authorizations[scope] = authorization(
                self._session, answer.headers.get("WWW-Authenticate", ""), self._known, self.host
            )
        self._raise_for(answer, scope)
        return answer

    def _send(
        self, method: str, url: str, headers: dict[str, str], data: Any, stream: bool, answer_s: float = TIMEOUT_S[1]
    ) -> requests.Response:
        where = f"{self.host}: {method} {urlsplit(url).path}"
        try:
            return self._session.request(
                method,
                url,
                headers=headers,
                data=data,
                stream=stream,
                timeout=(TIMEOUT_S[0], answer_s),
                allow_redirects=method in ("GET", "HEAD"),  # requests takes no Authorization to another host
            )
        except requests.exceptions.SSLError as error:
            raise RegistryRefusal(
                "PH-0433 its certificate is not trusted",
                where=self.host,
                got=squeezed(error, 160),
                next="PACKHOUSE_REGISTRY_CA names a file with its authority",
            ) from error
        except requests.RequestException as error:
            raise RegistryUnavailable("PH-0434 did not answer", where=where, got=type(error).__name__) from error

    def _raise_for(self, answer: requests.Response, scope: str) -> None:
        where = f"{self.host}/{scope}"
        if answer.status_code in BUSY:
            busy = Busy("PH-0430 is busy", where=where, got=said(answer))
            with suppress(KeyError, ValueError):  # a date, which few send, counts as nothing
                busy.after_s = min(max(0.0, float(answer.headers["Retry-After"])), MAX_WAIT_S)
            raise busy
        if answer.status_code == 403:
            raise RegistryRefusal("PH-0431 does not allow it", where=where, got=said(answer))
        if answer.status_code >= 500:
            raise RegistryUnavailable("PH-0432 failed", where=where, got=said(answer))

    def _counted(self, stream: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in stream:
            yield chunk
            self.sent += len(chunk)

    def _speaks(self) -> str:
        """http or https, asked once; a registry on this machine may speak either."""
        if not self._base:
            self._base = self._bases[0] if len(self._bases) == 1 else self._first_that_answers()
        return self._base

    def _first_that_answers(self) -> str:
        for base in self._bases:
            with suppress(requests.RequestException):
                answer = self._session.get(f"{base}/v2/", timeout=TIMEOUT_S)
                if answer.status_code != 400:  # what a server that wants TLS says to plain HTTP
                    return base
        self._send("GET", f"{self._bases[-1]}/v2/", {}, None, False)  # says why not
        raise RegistryUnavailable("PH-0429 did not answer as a registry does", where=self.host)

    def _is_ours(self, url: str) -> bool:
        """Credentials go to the registry and to nobody that it names."""
        return url.startswith(f"{self._speaks()}/")

    def place(self, answer: requests.Response) -> str:
        """Where an upload goes on. Raises RegistryRefusal: somewhere without TLS, for a registry that has it."""
        place = urljoin(answer.url, answer.headers.get("Location", ""))
        ours, theirs = urlsplit(self._speaks()), urlsplit(place)
        if theirs.netloc == ours.netloc and theirs.scheme != ours.scheme:
            place = place.replace(f"{theirs.scheme}://", f"{ours.scheme}://", 1)  # behind a proxy that ends TLS
        elif theirs.scheme != "https" and theirs.netloc != ours.netloc:
            raise RegistryRefusal("PH-0428 sends uploads to a place without TLS", where=self.host, got=theirs.netloc)
        return place

    def _again(self, act: Callable[[], T]) -> T:
        return self._patience.again(act, after=RegistryUnavailable, never=RegistryRefusal, asked=_asked_for)


class _Trusting(HTTPAdapter):
    """Trusts the authorities of a file too; those of the system or of REQUESTS_CA_BUNDLE stay."""

    def __init__(self, authorities: str) -> None:
        self._context = ssl.create_default_context()
        self._context.load_verify_locations(authorities)
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options, ssl_context=self._context)


class _Sized:
    """An iterator with a length: requests then sends it as it is, and not in chunks with a length of their own."""

    def __init__(self, stream: Iterator[bytes], size: int) -> None:
        self._stream, self._size = stream, size

    def __iter__(self) -> Iterator[bytes]:
        return self._stream

    def __len__(self) -> int:
        return self._size


def _nobody(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _asked_for(error: Unavailable) -> float:
    """Seconds."""
    return error.after_s if isinstance(error, Busy) else 0.0
