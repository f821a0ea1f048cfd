"""Where an S3 store is: s3://bucket/prefix?endpoint=http://host:port&addressing=path|virtual|auto&region=name"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

from packhouse.errors import Refused
from packhouse.store.base import is_key

CREDENTIALS_COME_FROM = "the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), ~/.aws, or the machine's role"
ADDRESSING = ("path", "virtual", "auto")
_OPTIONS = ("endpoint", "addressing", "region")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_REGION = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True)
class S3Address:
    """prefix: no slash at its ends, may be empty. An empty endpoint or region: what AWS's own settings say.

    An empty addressing means "path" with an endpoint of one's own, which few such servers can do without, else "auto".
    """

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    addressing: str = ""
    region: str = ""

    @property
    def url(self) -> str:
        """Law: parse(address.url) == address."""
        options = {name: getattr(self, name) for name in _OPTIONS}
        query = urlencode({name: option for name, option in options.items() if option}, safe=":/[]")
        return f"s3://{self.bucket}" + f"/{self.prefix}" * bool(self.prefix) + f"?{query}" * bool(query)

    @property
    def style(self) -> Literal["path", "virtual", "auto"]:
        if self.addressing == "path" or (self.endpoint and not self.addressing):
            return "path"
        return "virtual" if self.addressing == "virtual" else "auto"


def parse(url: str) -> S3Address:
    """Raises Refused where the URL is not one, or holds credentials; its text never repeats them."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise Refused(
            "PH-0318 credentials in a store's URL", where="s3://…@…", next=f"they come from {CREDENTIALS_COME_FROM}"
        )
    options = _options(parts.query)
    where = f"s3://{parts.netloc}{parts.path}"
    prefix = parts.path.strip("/")
    if parts.scheme != "s3" or not _BUCKET.fullmatch(parts.netloc):
        raise Refused("PH-0319 not the name of a bucket", where=where, want="s3://bucket/prefix")
    if parts.fragment or (prefix and not is_key(prefix)):
        raise Refused(
            "PH-0320 a store's prefix is made like a key", where=where, want="[A-Za-z0-9._@=+-] between slashes"
        )
    address = S3Address(parts.netloc, prefix, **options)
    _check(address, where)
    return address


def _options(query: str) -> dict[str, str]:
    # A value is never repeated in an error: it may be a secret that went to the wrong place.
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) != len(pairs) or not options.keys() <= set(_OPTIONS):
        unknown = ", ".join(sorted(options.keys() - set(_OPTIONS))) or "one twice"
        raise Refused(
            "PH-0317 unknown option in a store's URL", where="s3://…?…", got=unknown, want=", ".join(_OPTIONS)
        )
    return options


def _check(address: S3Address, where: str) -> None:
    if address.addressing and address.addressing not in ADDRESSING:
        raise Refused("PH-0313 unknown addressing", where=where, want=", ".join(ADDRESSING))
    if address.region and not _REGION.fullmatch(address.region):
        raise Refused("PH-0314 not the name of a region", where=where)
    end = urlsplit(address.endpoint)
    if "@" in end.netloc:
        raise Refused("PH-0315 credentials in an endpoint", where=where, next=f"they come from {CREDENTIALS_COME_FROM}")
    if address.endpoint and (end.scheme not in {"http", "https"} or not end.hostname or end.query or end.fragment):
        raise Refused("PH-0316 not an endpoint", where=where, want="endpoint=http://host:port or https://host")
