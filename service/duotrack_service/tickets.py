"""Secrets that the service hands out, and what it keeps of them."""

from __future__ import annotations

import hashlib
import secrets


def new_secret() -> str:
    """256 random bits as 43 characters that may stand in a header, a URL and a WebSocket subprotocol."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is kept of ``secret``: its SHA-256 in hexadecimal.

    A slow hash with salt, as passwords need, would bring nothing: 256 random bits cannot be guessed, however fast.
    """
    return hashlib.sha256(secret.encode()).hexdigest()
