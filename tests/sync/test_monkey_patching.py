"""A process that gevent or eventlet has patched is refused at once; it never hangs."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.second_stage  # which has gevent and eventlet

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "gevent, thread alone": "from gevent import monkey; monkey.patch_thread()",
    "gevent, socket alone": "from gevent import monkey; monkey.patch_socket()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
ACTS = {
    "a client": "DirectClient('key')",
    "a blocking client": "sync.DirectClient('key')",
    "another client": "AltcraftClient('https://altcraft.test', 'token')",
    "a ledger": "Ledger('launch.db')",
}


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_a_patched_process_is_refused(patch: str, act: str) -> None:
    library = patch.partition(",")[0]
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    ended = run(f"{PATCHES[patch]}\nfrom dispatchkit import AltcraftClient, DirectClient, Ledger, sync\n{act}")
    assert ended.returncode == 1, ended
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith(f"RuntimeError: {library} has replaced ")
    assert "use it without monkey-patching, or in another process" in last


@pytest.mark.skipif(find_spec("gevent") is None, reason="gevent is not installed")
def test_late_patch_is_refused() -> None:
    client = "from dispatchkit import sync; client = sync.DirectClient('key', base_url='http://127.0.0.1:1')"
    ended = run(f"{client}\n{PATCHES['gevent']}\nclient.start(1)")
    assert ended.stderr.strip().splitlines()[-1].startswith("RuntimeError: gevent has replaced ")


@pytest.mark.skipif(find_spec("gevent") is None, reason="gevent is not installed")
def test_gevent_without_patches_is_fine() -> None:
    ended = run("import gevent.monkey\nfrom dispatchkit import sync\nsync.DirectClient('key')")
    assert (ended.returncode, ended.stderr) == (0, "")
