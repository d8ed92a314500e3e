"""Certificates of a TLS connection: ``--ca-file``, ``--client-cert`` and ``--client-key``."""

from __future__ import annotations

import ssl

from dispatchkit.cli.input.small_file import read_small_file
from dispatchkit.cli.translate import _

__all__ = ["tls_context"]

_MAX_BYTES = 10_000_000
"""Bytes of a file with certificates. Those of all public authorities have 250 kB."""


def tls_context(ca_file: str | None, client_cert: str | None, client_key: str | None) -> ssl.SSLContext | None:
    """The context for the connections; None if no option is given.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file holds something else, or there is a key without a certificate.
    """
    if client_key is not None and client_cert is None:
        raise ValueError(_("--client-key goes with --client-cert"))
    files = {"--ca-file": ca_file, "--client-cert": client_cert, "--client-key": client_key}
    for option, path in files.items():
        if path is not None:  # ssl reads it again, without a bound, and its errors do not name it
            read_small_file(option, path, max_bytes=_MAX_BYTES)
    if ca_file is None and client_cert is None:
        return None
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise ValueError(
            _("--ca-file must be certificates in PEM, and {ca_file} is not: name another file").format(ca_file=ca_file)
        ) from None
    if client_cert is not None:
        try:
            context.load_cert_chain(client_cert, client_key, password=_refuse_password)
        except ssl.SSLError:
            named = (
                client_cert
                if client_key is None
                else _("{client_cert} and {client_key}").format(client_cert=client_cert, client_key=client_key)
            )
            raise ValueError(
                _(
                    "--client-cert must be a certificate in PEM, and {named} do not fit. The key is "
                    "--client-key, or in it"
                ).format(named=named)
            ) from None
    return context


def _refuse_password() -> str:
    raise ValueError(_("the key of --client-cert is encrypted: give one without a passphrase, readable to you alone"))
