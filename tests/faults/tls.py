"""Self-made certificates, all with one key. They guard nothing."""

from __future__ import annotations

import ssl
from pathlib import Path

CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBfDCCASKgAwIBAgIBEDAKBggqhkjOPQQDAjAcMRowGAYDVQQDDBFkaXNwYXRj
aGtpdCB0ZXN0czAgFw0yMDAxMDEwMDAwMDBaGA8yMTI2MDEwMTAwMDAwMFowHDEa
MBgGA1UEAwwRZGlzcGF0Y2hraXQgdGVzdHMwWTATBgcqhkjOPQIBBggqhkjOPQMB
BwNCAASO2B1e+av0+WxGRtHihl9zQz77XCkwSps+NEY4Q5XyTlQlJlQtCI5a+dPE
q/ZnjEJr2A6XFRdH5dtj2kJvGiUYo1MwUTAdBgNVHQ4EFgQUcUeBXPbJwe3O8iwT
uub3A2G5ch0wDwYDVR0TAQH/BAUwAwEB/zAOBgNVHQ8BAf8EBAMCAoQwDwYDVR0R
BAgwBocEfwAAATAKBggqhkjOPQQDAgNIADBFAiEAi1JdREZg3y/JxhFx4/XzlrZt
IfKn523uOLqzp2XByckCIAOpQZhEcX01E/L/90+qjSSJA81zVQc18KC4kxpVqFv4
-----END CERTIFICATE-----
"""

LEAF = """\
-----BEGIN CERTIFICATE-----
MIIBfTCCASOgAwIBAgIBBDAKBggqhkjOPQQDAjAcMRowGAYDVQQDDBFkaXNwYXRj
aGtpdCB0ZXN0czAgFw0yMDAxMDEwMDAwMDBaGA8yMTI2MDEwMTAwMDAwMFowDzEN
MAsGA1UEAwwEbGVhZjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABI7YHV75q/T5
bEZG0eKGX3NDPvtcKTBKmz40RjhDlfJOVCUmVC0Ijlr508Sr9meMQmvYDpcVF0fl
22PaQm8aJRijYTBfMB0GA1UdDgQWBBRxR4Fc9snB7c7yLBO65vcDYblyHTAfBgNV
HSMEGDAWgBRxR4Fc9snB7c7yLBO65vcDYblyHTAMBgNVHRMBAf8EAjAAMA8GA1Ud
EQQIMAaHBH8AAAEwCgYIKoZIzj0EAwIDSAAwRQIgEbWkq+6YTrNFQqscH1aQx/qe
0sVf66eOEFrDlAwHWrQCIQCGSybpbCzzwyekb68E8/LCGtDschFUvZK2ZOf+jSKJ
Og==
-----END CERTIFICATE-----
"""
"""For 127.0.0.1, good until 2126. Issued by the authority that `CERTIFICATE` is."""

EXPIRED = """\
-----BEGIN CERTIFICATE-----
MIIBfjCCASSgAwIBAgIBATAKBggqhkjOPQQDAjAcMRowGAYDVQQDDBFkaXNwYXRj
aGtpdCB0ZXN0czAeFw0yMDAxMDEwMDAwMDBaFw0yMDAyMDEwMDAwMDBaMBIxEDAO
BgNVBAMMB2V4cGlyZWQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASO2B1e+av0
+WxGRtHihl9zQz77XCkwSps+NEY4Q5XyTlQlJlQtCI5a+dPEq/ZnjEJr2A6XFRdH
5dtj2kJvGiUYo2EwXzAdBgNVHQ4EFgQUcUeBXPbJwe3O8iwTuub3A2G5ch0wHwYD
VR0jBBgwFoAUcUeBXPbJwe3O8iwTuub3A2G5ch0wDAYDVR0TAQH/BAIwADAPBgNV
HREECDAGhwR/AAABMAoGCCqGSM49BAMCA0gAMEUCIB5TYB9vtYf08h/DXlzXub+9
V48HK1mVsTRLtCM6oFZhAiEAqvExVEep3U1pyJ4taESd6cGzOaEUxQgK/hZSQ+lx
iy0=
-----END CERTIFICATE-----
"""
"""For 127.0.0.1, until February 2020. Issued by the authority that `CERTIFICATE` is."""

FUTURE = """\
-----BEGIN CERTIFICATE-----
MIIBgjCCASegAwIBAgIBAjAKBggqhkjOPQQDAjAcMRowGAYDVQQDDBFkaXNwYXRj
aGtpdCB0ZXN0czAiGA8yMTAwMDEwMTAwMDAwMFoYDzIxMjYwMTAxMDAwMDAwWjAR
MQ8wDQYDVQQDDAZmdXR1cmUwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASO2B1e
+av0+WxGRtHihl9zQz77XCkwSps+NEY4Q5XyTlQlJlQtCI5a+dPEq/ZnjEJr2A6X
FRdH5dtj2kJvGiUYo2EwXzAdBgNVHQ4EFgQUcUeBXPbJwe3O8iwTuub3A2G5ch0w
HwYDVR0jBBgwFoAUcUeBXPbJwe3O8iwTuub3A2G5ch0wDAYDVR0TAQH/BAIwADAP
BgNVHREECDAGhwR/AAABMAoGCCqGSM49BAMCA0kAMEYCIQCIs2O/TJrvCR9MK+bY
m2Ee8tpUB+yrZ1/OXtfcE493lgIhAI1Pg5Vh8MuQupeSY0Y4JfEMpsqxv/UMLqIX
F3ez94pi
-----END CERTIFICATE-----
"""
"""For 127.0.0.1, from 2100 on. Issued by the authority that `CERTIFICATE` is."""

NAMED = """\
-----BEGIN CERTIFICATE-----
MIIBiDCCAS6gAwIBAgIBAzAKBggqhkjOPQQDAjAcMRowGAYDVQQDDBFkaXNwYXRj
aGtpdCB0ZXN0czAgFw0yMDAxMDEwMDAwMDBaGA8yMTI2MDEwMTAwMDAwMFowEDEO
MAwGA1UEAwwFbmFtZWQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASO2B1e+av0
+WxGRtHihl9zQz77XCkwSps+NEY4Q5XyTlQlJlQtCI5a+dPEq/ZnjEJr2A6XFRdH
5dtj2kJvGiUYo2swaTAdBgNVHQ4EFgQUcUeBXPbJwe3O8iwTuub3A2G5ch0wHwYD
VR0jBBgwFoAUcUeBXPbJwe3O8iwTuub3A2G5ch0wDAYDVR0TAQH/BAIwADAZBgNV
HREEEjAQgg5kaXJlY3QuZXhhbXBsZTAKBggqhkjOPQQDAgNIADBFAiB3hdX3Xhv4
M8eCa/5BwTMuefUMgFbC/I+zVpz5mBMMIQIhAJHAoUlJAHX02J9r8yFFM9fQ20Ix
PmN3+LGqLFCRuHqG
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
