"""Parent and child of a fork both go on with the same client, and share no connection."""

from __future__ import annotations

import os

import pytest

from dispatchkit.sandbox import Fault, Sandbox
from tests.sync.conftest import Play

pytestmark = [
    pytest.mark.second_stage,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork"),
]

FORK = """
    import socket
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forking a process that has threads

    def ports():
        found = set()
        for name in os.listdir("/proc/self/fd"):
            try:
                with socket.socket(fileno=os.dup(int(name))) as each:
                    if each.family == socket.AF_INET:
                        found.add(each.getsockname()[1])
            except OSError:
                pass
        return found

    def fork(child):
        sys.stdout.flush()
        number = os.fork()
        if number == 0:
            signal.alarm(10)
            child()
            sys.exit(0)
        return os.waitpid(number, 0)[1]
"""


def test_fork_keeps_client_usable(play: Play, sandbox: Sandbox) -> None:
    lines = play(
        FORK
        + """
    direct = client()
    direct.start(1)
    before = ports()

    def child():
        print("inherited", len(ports()))
        print("child", direct.start(2))
        print("shared", len(ports() & before))
        direct.close()
        print("threads", threading.active_count())

    print("status", fork(child))
    print("parent", direct.start(3))
    print("same connection", ports() == before)
    print("status", fork(child))
    print("parent", direct.start(4))
    direct.close()
    """,
        "-X",
        "dev",
    )
    child = ["inherited 0", "child StartedDispatch(dispatch_id=2, settled=False)", "shared 0", "threads 1", "status 0"]
    assert lines == [
        *child,
        "parent StartedDispatch(dispatch_id=3, settled=False)",
        "same connection True",
        *child,
        "parent StartedDispatch(dispatch_id=4, settled=False)",
    ]


def test_idle_child_leaves_parent_alone(play: Play) -> None:
    lines = play(
        FORK
        + """
    def forget():
        import gc
        global direct
        del direct
        gc.collect()
    direct = client()
    direct.start(1)
    before = ports()
    for child in (lambda: None, direct.close, forget, client(token="t").close):
        print(fork(child), direct.start(1), ports() == before)
    """,
        "-X",
        "dev",
    )
    assert lines == ["0 StartedDispatch(dispatch_id=1, settled=False) True"] * 4


def test_pending_call_stays_in_parent(play: Play, sandbox: Sandbox) -> None:
    sandbox.order(Fault.slow(0.6))
    lines = play(
        FORK
        + """
    direct = client()
    caller = threading.Thread(target=lambda: print(direct.start(1), flush=True))
    caller.start()
    time.sleep(0.3)
    print(fork(lambda: print(direct.start(2))))
    caller.join()
    """,
        "-X",
        "dev",
    )
    assert sorted(lines) == [
        "0",
        "StartedDispatch(dispatch_id=1, settled=False)",
        "StartedDispatch(dispatch_id=2, settled=False)",
    ]
    assert sandbox.launches == {1: 1, 2: 1}


def test_held_lock_is_not_inherited(play: Play) -> None:
    lines = play(
        FORK
        + """
    from dispatchkit.sync import portal
    held = threading.Event()
    def hold():
        with portal._portal.lock:
            held.set()
            time.sleep(1)
    threading.Thread(target=hold, daemon=True).start()
    held.wait()
    direct = client()
    print(fork(lambda: print(direct.start(1))))
    """
    )
    assert lines == ["StartedDispatch(dispatch_id=1, settled=False)", "0"]


def test_fork_drops_waiting_call(play: Play, sandbox: Sandbox) -> None:
    sandbox.order(Fault.slow(0.6))
    lines = play(
        FORK
        + """
    numbers = []
    signal.signal(signal.SIGALRM, lambda number, frame: numbers.append(os.fork()))
    direct = client()
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        print(direct.start(1), flush=True)
        os.waitpid(numbers[0], 0)
    except RuntimeError as error:
        print(error, flush=True)
        print(direct.start(2), flush=True)
    """
    )
    assert sorted(lines) == [
        "StartedDispatch(dispatch_id=1, settled=False)",
        "StartedDispatch(dispatch_id=2, settled=False)",
        "this process was forked out of the call, which goes on in the parent",
    ]
    assert sandbox.launches == {1: 1, 2: 1}


def test_fan_out_ends_in_child(play: Play, sandbox: Sandbox) -> None:
    lines = play(
        FORK
        + """
    direct = client()
    run = sync.FanOut(direct, map(dispatchkit.StartDispatch, range(1, 21)), concurrency=2)
    outcomes = iter(run)
    next(outcomes)
    def child():
        try:
            run.finish()
        except RuntimeError as error:
            print(error)
    print(fork(child))
    print(run.finish().done)
    """
    )
    assert lines == ["this process was forked out of the run, which goes on in the parent", "0", "20"]
    assert all(count == 1 for count in sandbox.launches.values())


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_start_methods(play: Play, sandbox: Sandbox, method: str) -> None:
    lines = play(
        f"""
    import multiprocessing
    warnings.simplefilter("ignore", DeprecationWarning)
    def work(number):
        with client() as direct:
            return str(direct.start(number))
    if __name__ == "__main__":
        with client() as direct:
            direct.start(1)
            with multiprocessing.get_context("{method}").Pool(1) as pool:
                print(pool.map(work, [2, 3]))
            try:
                multiprocessing.get_context("spawn").Process(target=direct.start, args=(4,)).start()
            except TypeError as error:
                print(error)
            print(direct.start(5))
    """
    )
    assert lines == [
        "['StartedDispatch(dispatch_id=2, settled=False)', 'StartedDispatch(dispatch_id=3, settled=False)']",
        (
            "a sync.DirectClient is not pickled: its token and connections stay in this process. "
            "Make a client in the process that uses it"
        ),
        "StartedDispatch(dispatch_id=5, settled=False)",
    ]


def test_fork_before_the_call_begins(play: Play, sandbox: Sandbox) -> None:
    lines = play(
        FORK
        + """
    class Forks(set):
        def add(self, call):
            global child
            thread.calls = calls
            child = os.fork()
            calls.add(call)
    with client() as direct:
        direct.start(1)
        thread = direct._handle._thread
        calls, thread.calls = thread.calls, Forks()
        try:
            print(direct.start(2), flush=True)
            os.waitpid(child, 0)
        except RuntimeError as error:
            print(error, flush=True)
            print(direct.start(3), flush=True)
    """
    )
    assert sorted(lines) == [
        "StartedDispatch(dispatch_id=2, settled=False)",
        "StartedDispatch(dispatch_id=3, settled=False)",
        "this process was forked out of the call, which goes on in the parent",
    ]
    assert sandbox.launches == {1: 1, 2: 1, 3: 1}


def test_full_child_shares_nothing(play: Play) -> None:
    """A child without free descriptors drops the parent's connection. A call inside a signal handler's fork ends."""
    lines = play(
        FORK
        + """
    import resource
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    direct = client()
    direct.start(1)
    before = ports()
    parent, status = os.getpid(), []

    def fill():
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, most[1]))
        found = []
        try:
            while True:
                found.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            return found

    def fork_full(number, frame):
        files = fill()
        number = os.fork()
        for file in files:
            os.close(file)
        if number:
            status.append(os.waitpid(number, 0)[1])
        else:
            signal.alarm(10)
            status.append(-1)
            print("shared", len(before & ports()), flush=True)

    signal.signal(signal.SIGUSR1, fork_full)
    threading.Timer(0.3, os.kill, (parent, signal.SIGUSR1)).start()
    try:
        while not status:
            direct.start(2)
    except RuntimeError as error:
        assert os.getpid() != parent, error
    if os.getpid() != parent:
        os._exit(0)
    print("parent", status, direct.start(3))
    direct.close()
    """
    )
    assert lines == ["shared 0", "parent [0] StartedDispatch(dispatch_id=3, settled=False)"]
