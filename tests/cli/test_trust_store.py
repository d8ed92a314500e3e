"""The authorities are read for contexts that verify, and for no other."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from dispatchkit.cli.trust_store import _read_where_used, load_launch
from tests.faults.tls import CERTIFICATE


def read_by(monkeypatch: pytest.MonkeyPatch, mode: ssl.VerifyMode) -> list[ssl.SSLContext]:
    read: list[ssl.SSLContext] = []
    monkeypatch.setattr(ssl.SSLContext, "set_default_verify_paths", read.append)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = mode
    with _read_where_used():
        context.set_default_verify_paths()
    return read


def test_verifying_context_reads_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(read_by(monkeypatch, ssl.CERT_REQUIRED)) == 1
    assert len(read_by(monkeypatch, ssl.CERT_OPTIONAL)) == 1


def test_other_context_reads_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_by(monkeypatch, ssl.CERT_NONE) == []


def test_method_is_restored() -> None:
    before = ssl.SSLContext.set_default_verify_paths
    with pytest.raises(ModuleNotFoundError):
        load_launch("dispatchkit.no_such_module:it")
    assert ssl.SSLContext.set_default_verify_paths is before


@pytest.mark.second_stage
def test_default_context_keeps_authorities(tmp_path: Path) -> None:
    authorities = tmp_path / "ca"
    authorities.write_text(CERTIFICATE)
    code = (
        "from dispatchkit.cli.trust_store import load_launch; load_launch('dispatchkit.cli.run.execute:execute')\n"
        "from aiohttp import connector\n"
        "for each in (connector._SSL_CONTEXT_VERIFIED, connector._SSL_CONTEXT_UNVERIFIED):\n"
        "    print(each.verify_mode.name, each.check_hostname, each.cert_store_stats()['x509'])"
    )
    environment = {**os.environ, "SSL_CERT_FILE": str(authorities)}
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert shown.splitlines() == ["CERT_REQUIRED True 1", "CERT_NONE False 0"]
