"""A blocking call passes context variables in, and passes the caller's own errors out as they are."""

from __future__ import annotations

from dispatchkit.sandbox import Fault, Sandbox
from tests.sync.conftest import Play


def test_context_variables_flow_in_only(play: Play) -> None:
    lines = play("""
        from contextvars import ContextVar
        trace = ContextVar("trace", default="none")
        def token():
            print(trace.get())
            trace.set("changed inside")
            return dispatchkit.ExpiringToken(TOKEN, expires_in=0)
        with client(token=token) as direct:
            direct.start(1)
            trace.set("mine")
            direct.start(2)
            print(trace.get())
            def work():
                trace.set("a thread's")
                direct.start(3)
            worker = threading.Thread(target=work)
            worker.start()
            worker.join()
    """)
    assert lines == ["none", "mine", "mine", "a thread's"]


def test_user_error_passes_unchanged(play: Play) -> None:
    lines = play("""
        import asyncio, concurrent.futures
        mine = [TimeoutError("mine"), KeyError("mine"), SystemExit(7), KeyboardInterrupt("mine"),
                asyncio.CancelledError("mine"), concurrent.futures.CancelledError("mine")]
        with client(token=lambda: (_ for _ in ()).throw(error)) as direct:
            for error in mine:
                try:
                    direct.start(1)
                except BaseException as raised:
                    print(raised is error, type(raised.__cause__).__name__, getattr(raised, "__notes__", []))
    """)
    assert lines == ["True NoneType []"] * 6


def test_own_timeout_is_an_outcome(play: Play, sandbox: Sandbox) -> None:
    sandbox.order(Fault.silent(), times=9)
    lines = play("""
        with client(timeout=0.5, attempt_timeout=0.3) as direct:
            try:
                direct.start(1)
            except dispatchkit.OutcomeUnknownError as error:
                print(type(error).__name__, isinstance(error, TimeoutError))
    """)
    assert lines == ["OutcomeUnknownError False"]
