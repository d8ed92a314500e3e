"""A process that forks after it has made blocking calls can make them in the child as well."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from dispatchkit import NotSentError, sync
from dispatchkit.core.retry import RetryPolicy

def call():
    try:
        with sync.DirectClient("t", base_url="http://127.0.0.1:1", retry=RetryPolicy(attempts=1)) as direct:
            direct.start(1)
    except NotSentError:
        return 0
    return 1

assert call() == 0
child = os.fork()
if child == 0:
    signal.alarm(5)
    os._exit(call())
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_new_client_works_in_a_forked_child() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
