"""Which proxy leads to a service, the same for requests and for streams."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def find_proxy(url: str) -> str | None:
    """The URL of the proxy for ``url``, http, https, ws or wss; None to connect without one.

    It is that of ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, or of the system's own settings. A
    stream goes the way of its requests: ws counts as http, wss as https. No proxy leads to this machine itself.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_loopback(host) or proxy_bypass(host if parts.port is None else f"{host}:{parts.port}"):
        return None
    proxies = getproxies()
    proxy = proxies.get("https" if parts.scheme in ("https", "wss") else "http") or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def shown(proxy: str) -> str:
    """``proxy`` without its user and password."""
    parts = urlsplit(proxy)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
