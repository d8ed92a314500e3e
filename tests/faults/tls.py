"""Self-made certificates, all with one key. They guard nothing."""

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

LEAF = """\
-----BEGIN CERTIFICATE-----
MIIBXDCCAQKgAwIBAgIBBDAKBggqhkjOPQQDAjAcMRowGAYDVQQDDBFkaXNwYXRj
aGtpdCB0ZXN0czAgFw0yMDAxMDEwMDAwMDBaGA8yMTI2MDEwMTAwMDAwMFowDzEN
MAsGA1UEAwwEbGVhZjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABI7YHV75q/T5
bEZG0eKGX3NDPvtcKTBKmz40RjhDlfJOVCUmVC0Ijlr508Sr9meMQmvYDpcVF0fl
22PaQm8aJRijQDA+MA8GA1UdEQQIMAaHBH8AAAEwDAYDVR0TAQH/BAIwADAdBgNV
HQ4EFgQUcUeBXPbJwe3O8iwTuub3A2G5ch0wCgYIKoZIzj0EAwIDSAAwRQIgAfXj
Hu5UQcRSv2tj075GNlqk6cCvHlVcYJ+eKkEGz+UCIQD66fUzDzfs7l/mIcCSL91/
+0jOUv98xZtETMWVD9jm+g==
-----END CERTIFICATE-----
"""
"""For 127.0.0.1, good until 2126. Issued by the authority that `CERTIFICATE` is."""

EXPIRED = """\
-----BEGIN CERTIFICATE-----
MIIBXjCCAQOgAwIBAgIBATAKBggqhkjOPQQDAjAcMRowGAYDVQQDDBFkaXNwYXRj
aGtpdCB0ZXN0czAeFw0yMDAxMDEwMDAwMDBaFw0yMDAyMDEwMDAwMDBaMBIxEDAO
BgNVBAMMB2V4cGlyZWQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASO2B1e+av0
+WxGRtHihl9zQz77XCkwSps+NEY4Q5XyTlQlJlQtCI5a+dPEq/ZnjEJr2A6XFRdH
5dtj2kJvGiUYo0AwPjAPBgNVHREECDAGhwR/AAABMAwGA1UdEwEB/wQCMAAwHQYD
VR0OBBYEFHFHgVz2ycHtzvIsE7rm9wNhuXIdMAoGCCqGSM49BAMCA0kAMEYCIQCG
33cQcc1hlmazLKwUGNZiRkqxPvB3iF8GNYbKkL5PWAIhAPpjc1V1ZuL+Ekd8hP74
gI5uOoZpKyLjiuZWbLm0jY4P
-----END CERTIFICATE-----
"""
"""For 127.0.0.1, until February 2020. Issued by the authority that `CERTIFICATE` is."""

FUTURE = """\
-----BEGIN CERTIFICATE-----
MIIBYTCCAQagAwIBAgIBAjAKBggqhkjOPQQDAjAcMRowGAYDVQQDDBFkaXNwYXRj
aGtpdCB0ZXN0czAiGA8yMTAwMDEwMTAwMDAwMFoYDzIxMjYwMTAxMDAwMDAwWjAR
MQ8wDQYDVQQDDAZmdXR1cmUwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASO2B1e
+av0+WxGRtHihl9zQz77XCkwSps+NEY4Q5XyTlQlJlQtCI5a+dPEq/ZnjEJr2A6X
FRdH5dtj2kJvGiUYo0AwPjAPBgNVHREECDAGhwR/AAABMAwGA1UdEwEB/wQCMAAw
HQYDVR0OBBYEFHFHgVz2ycHtzvIsE7rm9wNhuXIdMAoGCCqGSM49BAMCA0kAMEYC
IQDc/uWuxlW9LDuiwFliL45EAlgGroTj299qIBNvp6m9HAIhAIZlyFrJnwOkSast
IkuiVspIebPtm2K5nZsIDB2DaOjT
-----END CERTIFICATE-----
"""
"""For 127.0.0.1, from 2100 on. Issued by the authority that `CERTIFICATE` is."""

NAMED = """\
-----BEGIN CERTIFICATE-----
MIIBZjCCAQ2gAwIBAgIBAzAKBggqhkjOPQQDAjAcMRowGAYDVQQDDBFkaXNwYXRj
aGtpdCB0ZXN0czAgFw0yMDAxMDEwMDAwMDBaGA8yMTI2MDEwMTAwMDAwMFowEDEO
MAwGA1UEAwwFbmFtZWQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASO2B1e+av0
+WxGRtHihl9zQz77XCkwSps+NEY4Q5XyTlQlJlQtCI5a+dPEq/ZnjEJr2A6XFRdH
5dtj2kJvGiUYo0owSDAZBgNVHREEEjAQgg5kaXJlY3QuZXhhbXBsZTAMBgNVHRMB
Af8EAjAAMB0GA1UdDgQWBBRxR4Fc9snB7c7yLBO65vcDYblyHTAKBggqhkjOPQQD
AgNHADBEAiAeGzgTiThmv2OzcOFcJnxelX3QelKuBy9On6dyt4kZbgIgAKTCVhg/
Egx9Kf9v/3yC6GBLjXkixSY6dFZlEPJlItw=
-----END CERTIFICATE-----
"""
"""For the host direct.example. Issued by the authority that `CERTIFICATE` is."""

KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgvGL45CCNkoTz8UAG
TSSS6oKHHfRKr6RoNfbqaHtXTNOhRANCAASO2B1e+av0+WxGRtHihl9zQz77XCkw
Sps+NEY4Q5XyTlQlJlQtCI5a+dPEq/ZnjEJr2A6XFRdH5dtj2kJvGiUY
-----END PRIVATE KEY-----
"""


def serving(
    folder: Path,
    certificate: str = CERTIFICATE,
    *,
    demands: bool = False,
    newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
) -> ssl.SSLContext:
    """What a server needs; ``folder`` takes the files. ``demands``: a certificate of the client, too."""
    file = folder / "server.pem"
    file.write_text(certificate + KEY)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.maximum_version = newest
    if demands:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=CERTIFICATE)
    return context


def trusting(folder: Path | None = None) -> ssl.SSLContext:
    """What a client needs to believe it; with a folder for files, it shows a certificate of its own."""
    context = ssl.create_default_context(cadata=CERTIFICATE)
    if folder is not None:
        file = folder / "client.pem"
        file.write_text(LEAF + KEY)
        context.load_cert_chain(file)
    return context
