"""A certificate for 127.0.0.1 that nobody trusts unless told to, good for a hundred years. It guards nothing."""

from __future__ import annotations

import ssl
from pathlib import Path

CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBoTCCAUagAwIBAgIUZVtlLA7JrTIvvshFcV1hcGaUdNMwCgYIKoZIzj0EAwIw
HDEaMBgGA1UEAwwRZGlzcGF0Y2hraXQgdGVzdHMwIBcNMjYxMTIyMTQzOTE5WhgP
MjEyNjEwMjkxNDM5MTlaMBwxGjAYBgNVBAMMEWRpc3BhdGNoa2l0IHRlc3RzMFkw
EwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEjtgdXvmr9PlsRkbR4oZfc0M++1wpMEqb
PjRGOEOV8k5UJSZULQiOWvnTxKv2Z4xCa9gOlxUXR+XbY9pCbxolGKNkMGIwHQYD
VR0OBBYEFHFHgVz2ycHtzvIsE7rm9wNhuXIdMB8GA1UdIwQYMBaAFHFHgVz2ycHt
zvIsE7rm9wNhuXIdMA8GA1UdEwEB/wQFMAMBAf8wDwYDVR0RBAgwBocEfwAAATAK
BggqhkjOPQQDAgNJADBGAiEA0N1u6GIDiQgxNAZX8envx9LnsWfpm/cEuIXA40g8
wDgCIQDVoXrA3RyfSrM4pSWb01/32sDgHNVR4s0oSZ4F+yiQ8w==
-----END CERTIFICATE-----
"""

KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgvGL45CCNkoTz8UAG
TSSS6oKHHfRKr6RoNfbqaHtXTNOhRANCAASO2B1e+av0+WxGRtHihl9zQz77XCkw
Sps+NEY4Q5XyTlQlJlQtCI5a+dPEq/ZnjEJr2A6XFRdH5dtj2kJvGiUY
-----END PRIVATE KEY-----
"""


def serving(folder: Path) -> ssl.SSLContext:
    """What a server needs; ``folder`` takes the files."""
    file = folder / "server.pem"
    file.write_text(CERTIFICATE + KEY)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def trusting() -> ssl.SSLContext:
    """What a client needs to believe it."""
    return ssl.create_default_context(cadata=CERTIFICATE)
