"""A credential among the WebSocket subprotocols: a browser's script can set no header of the handshake.

The client offers it beside ``duotrack.v1``; the server takes note of it and answers with ``duotrack.v1`` alone. Unlike
a URL, the list of subprotocols is not written into the logs of servers and proxies, nor kept in a history.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, get_args

from duotrack_client.errors import InvalidState

CredentialKind: TypeAlias = Literal["ticket", "resume"]

MAX_SECRET_LENGTH: Final = 256
# Characters of base64url, all of which a token of RFC 9110, and so a subprotocol, may have.
_OFFER = re.compile(rf"duotrack\.({'|'.join(get_args(CredentialKind))})\.([A-Za-z0-9_-]{{1,{MAX_SECRET_LENGTH}}})")


@dataclass(frozen=True, slots=True)
class Credential:
    """What lets a client into a session: a ticket of one use, or the session's resume token.

    Attributes:
        kind: ``ticket`` or ``resume``.
        secret: base64url characters. Not shown in the representation, and so not in logs and tracebacks.
    """

    kind: CredentialKind
    secret: str = field(repr=False)


def offer(kind: CredentialKind, secret: str) -> str:
    """The subprotocol that carries ``secret``.

    Raises:
        InvalidState: it is no text of 1 to 256 base64url characters.
    """
    subprotocol = f"duotrack.{kind}.{secret}"
    if _OFFER.fullmatch(subprotocol) is None:
        raise InvalidState(
            f"expected a {kind} of 1 to {MAX_SECRET_LENGTH} base64url characters, got {len(secret)} characters"
        )
    return subprotocol


def find_credential(subprotocols: Iterable[str]) -> Credential | None:
    """The first credential among ``subprotocols``; None where there is none, or none that is well formed."""
    for subprotocol in subprotocols:
        if (match := _OFFER.fullmatch(subprotocol)) is not None:
            kind: CredentialKind = "ticket" if match[1] == "ticket" else "resume"
            return Credential(kind, match[2])
    return None
