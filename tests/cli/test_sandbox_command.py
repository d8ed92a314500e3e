from __future__ import annotations

import re
import shlex
import signal
import socket

import pytest

from dispatchkit.cli.providers import sandbox as serve
from dispatchkit.sandbox import Act, Sandbox
from tests.cli.conftest import run, start_child


def test_sandbox_command_serves_and_summarises(monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("sandbox", "--port", 0, "--dispatches", "7,10-20", "--mailings", "1-3", "--active", "2")
    with start_child(*command) as child:
        assert child.stdout is not None
        told = ""
        while "--run-now" not in told:
            line = child.stdout.readline()
            assert line, told
            told += line
        given = dict(re.findall(r"(DISPATCHKIT_\w+)=(\S+)", told))
        assert given["DISPATCHKIT_DIRECT_URL"] == given["DISPATCHKIT_ALTCRAFT_URL"]
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        examples = [line for line in told.splitlines() if line.startswith("dispatchkit ")]
        assert len(examples) == 2
        for example in [*examples, examples[0]]:
            assert run(*shlex.split(example)[1:], "--yes", "--again").code == 0
        assert run("altcraft", "launch", 2, "--yes").code == 0
        assert run("altcraft", "launch", 3, "--yes").code == 1
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
    assert (child.returncode, err) == (0, "")
    assert out.splitlines()[-4:] == [
        "5 requests.",
        "altcraft launch: 2",
        "direct start: 2",
        "direct 7: launched 2 times",
    ]


def test_taken_port_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = run("sandbox", "--port", taken.getsockname()[1])
    assert result.code == 2
    assert "address already in use" in result.err
    assert result.err.count("\n") == 1


def test_invalid_id_names_option() -> None:
    result = run("sandbox", "--port", 0, "--active", "x")
    assert result.code == 2
    assert result.err.startswith("dispatchkit: --active: 'x' is neither")


def test_summary_limits_repeated_launches() -> None:
    sandbox = Sandbox()
    sandbox.direct.launches.update(dict.fromkeys(range(1, 31), 2))
    sandbox.direct.acts += [Act("direct", "start", number, 0.0) for number in range(1, 31)] * 2
    told = serve.summary(sandbox)
    assert told.startswith("0 requests.\ndirect start: 60\ndirect 1: launched 2 times\n")
    assert told.endswith("and 10 more ids launched more than once\n")
