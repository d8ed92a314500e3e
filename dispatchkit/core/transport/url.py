"""Validate base URLs and proxy URLs."""

from __future__ import annotations

import ipaddress

from yarl import URL

from dispatchkit.core.secret import Unshown
from dispatchkit.core.transport.host import host_problem
from dispatchkit.core.validators import shown

__all__ = ["origin", "proxy_url"]


_ORIGIN = "scheme://host[:port], such as https://example.com"
_PROXY = "the URL of an HTTP proxy, such as http://proxy.example:3128"


def origin(base_url: str | Unshown[str], *, insecure: bool = False) -> URL:
    """Validate a base URL, and return it as scheme, host and port. No traceback shows one that is refused.

    Raises:
        TypeError: The value is not text.
        ValueError: The URL is empty, is more than ``scheme://host[:port]``, or would send the token unencrypted.
    """
    given = base_url if isinstance(base_url, Unshown) else Unshown(base_url)
    del base_url
    read = _read_origin(given, insecure=insecure)
    if isinstance(read, Exception):
        raise read
    return read


def _read_origin(given: Unshown[str], *, insecure: bool) -> URL | Exception:
    base_url = given.reveal()
    if not isinstance(base_url, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
        return TypeError(f"base_url must be a string, not {type(base_url).__name__}")
    if not base_url:
        return ValueError(f"no host: base_url must be {_ORIGIN}")
    try:
        url: URL | None = URL(base_url)
    except ValueError:
        url = None
    if url is None or url.scheme not in {"http", "https"} or not url.host:
        return ValueError(f"base_url must be {_ORIGIN}: the one given has no scheme http or https, or no host")
    if url.user is not None or url.password is not None or "@" in base_url.split("/")[2]:
        return ValueError(f"base_url must be {_ORIGIN}, without credentials: pass the token as token=")
    if (problem := host_problem(base_url)) is not None:
        return ValueError(f"base_url must be {_ORIGIN}: {problem}")
    if url.path != "/" or "?" in base_url or "#" in base_url:
        # Show only the origin: the rest may hold a key.
        return ValueError(f"base_url must be {_ORIGIN}, without path, query or fragment: give {str(url.origin())!r}")
    if url.scheme == "http" and not insecure and not _is_loopback(url.host):
        return ValueError(
            f"base_url must be https, not {base_url!r}: plain http sends the token "
            "unencrypted (insecure=True allows it)"
        )
    return url.origin()


def proxy_url(proxy: str | Unshown[str]) -> Unshown[URL]:
    """Validate a proxy's URL. Errors do not show its credentials.

    Raises:
        TypeError: The value is not text.
        ValueError: The value is not the URL of an HTTP proxy.
    """
    given = proxy if isinstance(proxy, Unshown) else Unshown(proxy)
    del proxy
    read = _read_proxy(given)
    if isinstance(read, Exception):
        raise read
    return Unshown(read)


def _read_proxy(given: Unshown[str]) -> URL | Exception:
    proxy = given.reveal()
    if not isinstance(proxy, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
        said = shown(proxy) if isinstance(proxy, int | float) else type(proxy).__name__
        return TypeError(f"proxy must be {_PROXY}, not {said}")
    try:
        url = URL(proxy)
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        return ValueError(f"proxy must be {_PROXY}")
    if (problem := host_problem(proxy)) is not None:
        return ValueError(f"proxy must be {_PROXY}: {problem}")
    return url


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
