"""Who may use the service: API keys, JSON Web Tokens, or everyone."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol, Self

import structlog

from duotrack_service.keys import ApiKey, KeyFileError, read_keys
from duotrack_service.settings import Settings
from duotrack_service.tickets import digest

log = structlog.stdlib.get_logger(__name__)

MIN_SECRET_BYTES: Final = 32  # RFC 7518, section 3.2: at least as long as the hash
_TOKEN_PREFIX: Final = "jwt:"  # no name of a key has a colon: a token's subject cannot pass for one
_ASYMMETRIC: Final = ("RS256", "ES256", "EdDSA")


class AuthError(Exception):
    """The keys or tokens that the settings name cannot be used."""


class Unauthorized(Exception):  # noqa: N818 - HTTP's word
    """A request shows no valid key. The message never repeats what it showed."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request.

    Attributes:
        name: a key's name; ``jwt:`` and the subject of a token; or ``anonymous``.
        max_sessions: how many sessions it may have at a time; None as many as there is room for.
        frames_per_second: how many frame pairs of all its sessions are tracked a second; None as many as possible.
        key_digest: of the key that it showed; None where it showed none.
    """

    name: str
    max_sessions: int | None = None
    frames_per_second: float | None = None
    key_digest: str | None = field(default=None, compare=False, repr=False)


ANONYMOUS: Final = Principal("anonymous")


class Verifier(Protocol):
    """One way to tell who shows a token."""

    def verify(self, token: str) -> Principal | None:
        """Who shows ``token``; None where this way does not know it.

        Raises:
            Unauthorized: it is one of this way, and not valid.
        """

    def keeps(self, name: str, key_digest: str | None) -> bool:
        """Whether sessions of the principal ``name``, made with that key, may go on."""


class Authenticator:
    """Tells who makes a request from its ``Authorization`` header. Without any verifier, everyone is ``ANONYMOUS``."""

    def __init__(self, verifiers: tuple[Verifier, ...] = ()) -> None:
        self._verifiers = verifiers

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The keys and tokens that ``settings`` name.

        Raises:
            AuthError: they cannot be read or used.
        """
        verifiers: list[Verifier] = []
        if settings.keys_file is not None:
            verifiers.append(Keys(settings.keys_file))
        if settings.jwt_secret is not None or settings.jwt_public_key_file is not None:
            verifiers.append(Tokens.from_settings(settings))
        return cls(tuple(verifiers))

    @property
    def required(self) -> bool:
        """Whether a request must show a key or token."""
        return bool(self._verifiers)

    def authenticate(self, authorization: str | None) -> Principal:
        """Who makes the request with this header.

        Raises:
            Unauthorized: it shows no valid key or token, and one is required.
        """
        if not self._verifiers:
            return ANONYMOUS
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("expected the header Authorization: Bearer <key>")
        for verifier in self._verifiers:
            if (principal := verifier.verify(token)) is not None:
                return principal
        raise Unauthorized("this key is not known, or no longer valid")

    def keeps(self, name: str, key_digest: str | None) -> bool:
        """Whether sessions of the principal ``name`` may go on.

        Args:
            key_digest: of the key that made them; None for a token, or where it was not noted.
        """
        return not self._verifiers or any(verifier.keeps(name, key_digest) for verifier in self._verifiers)


class Keys:
    """API keys from a file, which is read again when it changes.

    Raises:
        AuthError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._seen = self._stamp()
            self._keys = read_keys(path)
        except (OSError, KeyFileError) as error:
            raise AuthError(f"cannot read the keys in {path}: {error}") from error
        if path.stat().st_mode & 0o077:
            log.warning("others can read the file of keys", path=str(path), would_be_right="chmod 600")

    def verify(self, token: str) -> Principal | None:
        """Who shows ``token``. All keys are compared, each in constant time, so that time tells nothing."""
        self._refresh()
        shown = digest(token)
        found: ApiKey | None = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, shown):
                found = key
        if found is None or found.expired:
            return None
        return Principal(found.name, found.max_sessions, found.frames_per_second, found.digest)

    def keeps(self, name: str, key_digest: str | None) -> bool:
        """Until the key is revoked. One that expires lets nothing new in, and what it let in goes on.

        Another key of the same name is another: who revokes a key that got about, and makes a new one, means that.
        """
        self._refresh()
        return any(key.name == name and key_digest in (None, key.digest) for key in self._keys)

    def _refresh(self) -> None:
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return
            self._seen = stamp
            self._keys = read_keys(self._path)
        except (OSError, KeyFileError) as error:
            log.error(
                "the keys are not read again, and those from before hold", path=str(self._path), reason=str(error)
            )
        else:
            log.info("keys read again", path=str(self._path), keys=len(self._keys))

    def _stamp(self) -> tuple[int, int, int]:
        status = self._path.stat()
        return status.st_ino, status.st_mtime_ns, status.st_size


class Tokens:
    """JSON Web Tokens, signed by someone else with a secret that we share, or a key whose public half we have.

    Args:
        key: the secret, or the public key in PEM form.
        algorithms: those that fit ``key``, and no others: a token does not choose how it is checked.
        issuer, audience: what ``iss`` and ``aud`` must be, where not None.
    """

    def __init__(self, key: str, algorithms: tuple[str, ...], issuer: str | None, audience: str | None) -> None:
        self._key = key
        self._algorithms = algorithms
        self._issuer = issuer
        self._audience = audience

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The tokens that ``settings`` name.

        Raises:
            AuthError: both a secret and a key, a short secret, no key in the file, or PyJWT is not installed.
        """
        if find_spec("jwt") is None:
            raise AuthError("JSON Web Tokens need PyJWT: pip install 'duotrack[jwt]'")
        if settings.jwt_secret is not None and settings.jwt_public_key_file is not None:
            raise AuthError("expected DUOTRACK_JWT_SECRET or DUOTRACK_JWT_PUBLIC_KEY_FILE, got both")
        issuer, audience = settings.jwt_issuer, settings.jwt_audience
        if settings.jwt_secret is not None:
            secret = settings.jwt_secret.get_secret_value()
            if len(secret.encode()) < MIN_SECRET_BYTES:
                raise AuthError(f"DUOTRACK_JWT_SECRET must have {MIN_SECRET_BYTES} bytes, got {len(secret.encode())}")
            return cls(secret, ("HS256",), issuer, audience)
        path = settings.jwt_public_key_file
        assert path is not None
        if find_spec("cryptography") is None:
            raise AuthError("public keys need cryptography: pip install 'duotrack[jwt]'")
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        try:
            pem = path.read_text(encoding="ascii")
            load_pem_public_key(pem.encode())
        except (OSError, ValueError) as error:
            raise AuthError(f"expected a public key in PEM form in {path}: {error}") from error
        return cls(pem, _ASYMMETRIC, issuer, audience)

    def verify(self, token: str) -> Principal | None:
        import jwt

        if token.count(".") != 2:
            return None
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                self._key,
                algorithms=list(self._algorithms),
                issuer=self._issuer,
                audience=self._audience,
                options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
            )
        except jwt.PyJWTError as error:  # InvalidKeyError, too: an algorithm that is not the configured key's
            raise Unauthorized(f"the token is not valid: {type(error).__name__}") from error
        return Principal(
            f"{_TOKEN_PREFIX}{claims['sub']}",
            _positive(claims, "duotrack_max_sessions", int),
            _positive(claims, "duotrack_frames_per_second", int | float),
        )

    def keeps(self, name: str, key_digest: str | None) -> bool:  # noqa: ARG002 - the interface's names
        """Always: what a token let in goes on, as nobody tells us that it was taken back."""
        return name.startswith(_TOKEN_PREFIX)


def _positive(claims: Mapping[str, Any], name: str, kind: Any) -> Any:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, kind) or not value > 0:
        raise Unauthorized(f"the token is not valid: expected a number above 0 in {name}")
    return value
