"""Validate base URLs and proxy URLs."""

from __future__ import annotations

import ipaddress

from yarl import URL

from dispatchkit.core.validators import shown

__all__ = ["origin", "proxy_url"]


def origin(base_url: str, *, insecure: bool = False) -> URL:
    """Validate a base URL, and return it as scheme, host and port.

    Raises:
        TypeError: The value is not text.
        ValueError: The URL is empty, is more than ``scheme://host[:port]``, or would send the token unencrypted.
    """
    if not isinstance(base_url, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
        raise TypeError(f"base_url must be a string, not {shown(base_url)}")
    allowed = "scheme://host[:port], such as https://example.com"
    if not base_url:
        raise ValueError(f"no host: base_url must be {allowed}")
    try:
        url: URL | None = URL(base_url)
    except ValueError:
        url = None
    if url is None or url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"base_url must be {allowed}: the one given has no scheme http or https, or no host")
    if url.user is not None or url.password is not None:
        raise ValueError(f"base_url must be {allowed}, without credentials: pass the token as token=")
    if url.path != "/" or "?" in base_url or "#" in base_url:
        # Show only the origin: the rest may hold a key.
        raise ValueError(f"base_url must be {allowed}, without path, query or fragment: give {str(url.origin())!r}")
    if url.scheme == "http" and not insecure and not _is_loopback(url.host):
        raise ValueError(
            f"base_url must be https, not {base_url!r}: plain http sends the token unencrypted (insecure=True allows "
            "it)"
        )
    return url.origin()


def proxy_url(proxy: str) -> URL:
    """Validate a proxy's URL. Errors do not show its credentials.

    Raises:
        TypeError: The value is not text.
        ValueError: The value is not the URL of an HTTP proxy.
    """
    allowed = "the URL of an HTTP proxy, such as http://proxy.example:3128"
    if not isinstance(proxy, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
        said = shown(proxy) if isinstance(proxy, int | float) else type(proxy).__name__
        raise TypeError(f"proxy must be {allowed}, not {said}")
    try:
        url = URL(proxy)
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"proxy must be {allowed}")
    return url


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
