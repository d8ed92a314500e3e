"""``dispatchkit web``: check where it listens, serve, and print the links."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dispatchkit.cli.input.default_ledger import default_ledger
from dispatchkit.cli.input.ledger_ref import LEDGER_VARIABLE, LedgerRef
from dispatchkit.cli.input.small_file import read_small_file
from dispatchkit.cli.input.values import exit_on_user_error
from dispatchkit.cli.loop import on_interrupt, run_loop
from dispatchkit.cli.text import escape_control, write
from dispatchkit.cli.translate import _
from dispatchkit.cli.views.snapshot import resume_line
from dispatchkit.web.app import ControlRoom
from dispatchkit.web.security import is_loopback
from dispatchkit.web.serve import serve
from dispatchkit.web.source import LedgerSource

if TYPE_CHECKING:
    from dispatchkit.cli.commands.web import WebOptions

__all__ = ["serve_web"]

_MAX_CERTIFICATE = 1_000_000
"""Bytes of a file with the certificate or its key."""


def serve_web(options: WebOptions) -> None:
    """Serve until Ctrl-C.

    Raises:
        typer.Exit: With status 2; the port is taken, or an option is wrong.
    """
    with exit_on_user_error():
        tls = _tls(options)
        if tls is None and not options.insecure and not is_loopback(options.host):
            raise ValueError(
                _(
                    "--host {host} lets other machines in: add --tls-cert PATH, or --insecure to serve them without TLS"
                ).format(host=options.host)
            )
        ledger_ref = _ledger_ref(options)
        file = None if ledger_ref.address.is_database else Path(ledger_ref.address.file).absolute()
        room = ControlRoom(
            source=LedgerSource(ledger_ref.open, file),
            where=str(ledger_ref),
            resume_line=partial(resume_line, ledger_ref),
            host=options.host,
        )
        run_loop(_until_interrupted(room, port=options.port, tls=tls))


def _ledger_ref(options: WebOptions) -> LedgerRef:
    where = options.ledger or os.environ.get(LEDGER_VARIABLE)
    return LedgerRef(where or str(default_ledger()), named=options.ledger is not None, is_default=not where)


def _tls(options: WebOptions) -> ssl.SSLContext | None:
    if options.tls_cert is None:
        if options.tls_key is not None:
            raise ValueError(_("--tls-key goes with --tls-cert"))
        return None
    for option, path in (("--tls-cert", options.tls_cert), ("--tls-key", options.tls_key)):
        if path is not None:  # ssl reads it again, without a bound, and its errors do not name it
            read_small_file(option, path, max_bytes=_MAX_CERTIFICATE)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key, password=_refuse_password)
    except ssl.SSLError:
        raise ValueError(
            _(
                "--tls-cert must be a certificate in PEM with its key, and {path} is not. The key is "
                "--tls-key, or in it"
            ).format(path=options.tls_cert)
        ) from None
    return context


def _refuse_password() -> str:
    raise ValueError(_("the key of --tls-cert is encrypted: give one without a passphrase, readable to you alone"))


async def _until_interrupted(room: ControlRoom, *, port: int, tls: ssl.SSLContext | None) -> None:
    ended = asyncio.Event()
    write(sys.stdout, _("The control room of {ledger}, until Ctrl-C.").format(ledger=escape_control(room.where)) + "\n")
    with on_interrupt(ended.set):
        await serve(room, port=port, tls=tls, announce=_announce, ended=ended)


def _announce(link: str) -> None:
    write(sys.stdout, _("This link opens it in one browser, once: {link}").format(link=link) + "\n")
    sys.stdout.flush()
