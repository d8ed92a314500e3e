"""Describe a failed attempt: the cause and what to do, never a quote of the request or the response."""

from __future__ import annotations

import re
import ssl

import aiohttp
from aiohttp.http import HttpProcessingError

from dispatchkit.core.transport.content_encoding import TooLargeError
from dispatchkit.core.transport.http import StuckWriteError
from dispatchkit.core.transport.lane import StaleConnectionError

__all__ = ["describe"]

_UNKNOWN_AUTHORITY = (
    "is signed by an authority that this machine does not trust: pass a context that trusts it, "
    "ssl=ssl.create_default_context(cafile='authority.pem')"
)
_CERTIFICATE: dict[int, str] = {
    9: "is not valid yet: check the clock of this machine",
    10: "has expired: its operator must renew it (or the clock of this machine is wrong)",
    18: "is self-signed: pass a context that trusts it, ssl=ssl.create_default_context(cafile='its.pem')",
    62: "is for another host: check the host of the URL",
    64: "is for another host: check the host of the URL",
    **dict.fromkeys((2, 19, 20, 21), _UNKNOWN_AUTHORITY),
}
"""By OpenSSL's verification error code."""

_NO_CERTIFICATE = (
    "the server demands a client certificate: load it with context.load_cert_chain('client.pem') and pass ssl=context"
)
_NO_TLS = "does not speak TLS: check the port, or whether its URL begins with http://"
_TLS: dict[str, str] = {
    **dict.fromkeys(
        ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"),
        f"the server {_NO_TLS}",
    ),
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _NO_CERTIFICATE,
    **dict.fromkeys(
        (
            "SSLV3_ALERT_BAD_CERTIFICATE",
            "SSLV3_ALERT_CERTIFICATE_EXPIRED",
            "SSLV3_ALERT_CERTIFICATE_REVOKED",
            "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
            "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
            "TLSV1_ALERT_UNKNOWN_CA",
        ),
        "the server does not accept the client certificate of ssl=",
    ),
    # TLS 1.2 has one alert for a missing client certificate and for an unacceptable cipher.
    "SSLV3_ALERT_HANDSHAKE_FAILURE": (
        "the server refused the TLS handshake: it may demand a client certificate, or another version of TLS"
    ),
    **dict.fromkeys(
        ("TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE"),
        "client and server have no version of TLS in common",
    ),
}
"""By OpenSSL's reason."""
_REASON = re.compile(r"\('\[SSL: (\w+)\]")


def describe(error: Exception, *, sent: bool, plain: bool) -> str:
    """Describe the exception of a failed attempt.

    Args:
        error: An exception of aiohttp or of `http`.
        sent: Whether any byte of the request may have left. Before that, only a proxy can have answered.
        plain: Whether the URL begins with http://.
    """
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "the host name could not be resolved"
        case aiohttp.ClientConnectorCertificateError():
            return f"the certificate of {error.host} {_of_certificate(error.certificate_error)}"
        case aiohttp.ClientConnectorSSLError():
            return _of_tls(error)
        case aiohttp.ClientProxyConnectionError():
            return "the proxy could not be reached"
        case aiohttp.ClientHttpProxyError() if error.status == 407:
            return "the proxy demands credentials (HTTP 407): give them in proxy='http://user:password@host:port'"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy refused the connection (HTTP {error.status})"
        case aiohttp.ClientConnectorError(os_error=ConnectionResetError() | ConnectionAbortedError()):
            return "the server closed the connection during the TLS handshake"
        case aiohttp.ClientConnectorError():
            return f"no connection: {error.os_error.strerror or 'refused'}"
        case aiohttp.ServerTimeoutError() | TimeoutError():
            return "no connection in time"
        case _:
            return _describe_connected(error, sent=sent, plain=plain)


def _describe_connected(error: Exception, *, sent: bool, plain: bool) -> str:
    for exception in (error, error.__cause__):
        # aiohttp copies OpenSSL's reason into the arguments of its own error.
        if isinstance(exception, OSError) and (reason := _REASON.match(str(exception.args[-1:]))):
            return _tls_message(reason[1])
    hint = " (if its port speaks TLS, its URL begins with https://)"
    match error:
        case StaleConnectionError():
            return "the connection was closed by the server before the request was written"
        case StuckWriteError():
            return "the connection was closed, or did not take the request at once"
        case TooLargeError():
            return f"the answer is larger than {error.limit // 2**20} MiB"
        case aiohttp.ClientPayloadError():
            return "the answer was cut off"
        case OSError() | aiohttp.ServerDisconnectedError() if not sent:
            return f"the proxy closed the connection{hint}"
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return f"the answer {'' if sent else 'of the proxy '}was not HTTP{hint if plain or not sent else ''}"
        case aiohttp.ServerDisconnectedError():
            return f"the connection was closed before an answer came{hint if plain else ''}"
        case OSError():
            return f"the connection was reset{hint if plain else ''}"
        case _:
            return f"the attempt failed ({type(error).__name__})"


def _of_certificate(error: Exception) -> str:
    if not isinstance(error, ssl.SSLCertVerificationError):
        return "is not valid"
    return _CERTIFICATE.get(error.verify_code, f"is not valid ({error.verify_message})")


def _of_tls(error: Exception) -> str:
    reason: str | None = getattr(error.__cause__, "reason", None)
    return _tls_message(reason or "no reason given")


def _tls_message(reason: str) -> str:
    return _TLS.get(reason, f"the TLS handshake failed ({reason})")
