"""Who signs on this machine, and whose signatures it knows, by `PACKHOUSE_SIGNING_*` and what belongs to it.

The worker's settings have these fields too (infra/settings.py). The command reads them here, from the environment: it
runs where nothing of the worker is installed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_origin

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from packhouse.errors import KeyAbsent, SpecInvalid
from packhouse.trust.dsse import PublicKey
from packhouse.trust.signatures import Trusted, known

PREFIX = "PACKHOUSE_"


class SigningSettings(BaseModel):
    """A field `name` is the environment variable `PACKHOUSE_NAME`."""

    model_config = ConfigDict(frozen=True)

    signing_key: Annotated[
        str,
        Field(
            description="File of the private key (PEM; ECDSA on P-256, P-384 or P-521) that signs releases. "
            "None: this worker signs with no key."
        ),
    ] = ""
    signing_password: Annotated[
        SecretStr, Field(description="Password of `PACKHOUSE_SIGNING_KEY`. None: the key has no password.")
    ] = SecretStr("")
    signing_certificates: Annotated[
        tuple[str, ...],
        Field(
            description="Files: the certificate of the key, then those of the authorities above it. "
            "Readers then trust an authority instead of a key."
        ),
    ] = ()
    signing_keyless: Annotated[
        bool,
        Field(
            description="Sign by the identity of the environment (the token of a CI job or workload), "
            "through Sigstore's public service."
        ),
    ] = False
    signers: Annotated[
        tuple[str, ...],
        Field(
            description="Signers that this worker trusts in addition to its own key: public keys (PEM, as files or as "
            "text), certificates or policies. Required if other workers sign for it, and for keyless signing."
        ),
    ] = ()
    sign_pool: Annotated[
        str, Field(description="Work pool whose workers sign. None: this worker signs, if it has a key.")
    ] = ""

    @property
    def signs(self) -> bool:
        """Whether releases are signed, here or elsewhere."""
        return bool(self.signing_key or self.signing_keyless or self.sign_pool)

    @property
    def key_file(self) -> Path | None:
        """The private key; None where there is none, or an identity signs instead.

        Raises:
            KeyAbsent: The key can not be read, or can not be used with what else is set.
        """
        if self.signing_keyless or not self.signing_key:
            return None
        key = Path(self.signing_key).expanduser()
        if not os.access(key, os.R_OK):
            raise KeyAbsent("PH-0121 is not there, or may not be read", where="PACKHOUSE_SIGNING_KEY")
        if self.signing_certificates and self.signing_password.get_secret_value():
            want = "a key without a password: model-signing takes none beside certificates"
            where = "PACKHOUSE_SIGNING_KEY with PACKHOUSE_SIGNING_CERTIFICATES"
            raise KeyAbsent("PH-0532 can not be read", where=where, want=want)
        return key

    @property
    def chain(self) -> tuple[Path, ...]:
        """The certificate of the key, then those of the authorities above it."""
        return tuple(Path(path).expanduser() for path in self.signing_certificates)

    def own(self) -> Trusted:
        """By what a reader knows what this machine signs; nothing for an identity.

        Raises:
            KeyAbsent: As `key_file`; or the file holds no key that is taken.
        """
        if not (key := self.key_file):
            return Trusted()
        if self.chain:
            return Trusted(authorities=self.chain[1:] or self.chain)
        password = self.signing_password.get_secret_value().encode() or None
        try:
            return Trusted(keys=(PublicKey(key, private=True, password=password),))
        except SpecInvalid as error:
            raise KeyAbsent(error.coded, where="PACKHOUSE_SIGNING_KEY") from error

    def known(self) -> Trusted:
        """Whose signatures this machine knows: those of PACKHOUSE_SIGNERS, and its own if it signs itself.

        Raises:
            KeyAbsent: It knows nobody's; or as `own`.
            SpecInvalid: PACKHOUSE_SIGNERS names a file that is no key, certificate or policy.
        """
        return known(self.signers, Trusted() if self.sign_pool else self.own())


def from_environment(environment: Mapping[str, str]) -> SigningSettings:
    """Reads the settings as a worker does. A variable that is empty counts as not set.

    Raises:
        SpecInvalid: The first variable that has another form.
    """
    names = {name: f"{PREFIX}{name.upper()}" for name in SigningSettings.model_fields}
    given = {name: environment[variable] for name, variable in names.items() if environment.get(variable)}
    plain = {name: _plain(name, text, names[name]) for name, text in given.items()}
    try:
        return SigningSettings.model_validate(plain)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        raise SpecInvalid(f"PH-0690 has another form: {first['msg']}", where=names[name]) from error


def _plain(name: str, text: str, variable: str) -> Any:
    """The text; of a list, which is written in JSON, the list."""
    if get_origin(SigningSettings.model_fields[name].annotation) is not tuple:
        return text
    try:
        found = json.loads(text)
    except ValueError as error:
        raise SpecInvalid("PH-0120 is no list in JSON", where=variable) from error
    if not isinstance(found, list):
        raise SpecInvalid("PH-0120 is no list in JSON", where=variable)
    return found
