"""Ctrl-C around the end of a quick call: it is not delayed, and its note has the true outcome."""

from __future__ import annotations

from collections import Counter

import pytest

from dispatchkit.sandbox import Sandbox
from tests.sync.conftest import Play

pytestmark = pytest.mark.second_stage

STRESS = """
    import random
    random.seed(1)

    def press(after):
        global pressed
        time.sleep(after)
        pressed = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)

    with client() as direct:
        times = []
        for number in range(1001, 1031):
            began = time.monotonic()
            direct.start(number)
            times.append(time.monotonic() - began)
        typical = sorted(times)[len(times) // 2]
        for number in range(1, CALLS + 1):
            returned = False
            thread = threading.Thread(target=press, args=(random.uniform(0.5, 1.5) * typical,))
            try:
                thread.start()
                direct.start(number)
                returned = True
                while True:
                    time.sleep(0.01)
            except KeyboardInterrupt as interrupt:
                late = time.monotonic() - pressed > 1.5
                notes = " ".join(getattr(interrupt, "__notes__", [])).split(chr(10))[0]
            thread.join()
            print(number, int(late), int(returned), notes, sep="|")
"""
CALLS = 300


def test_interrupt_at_random_moments(play: Play, sandbox: Sandbox) -> None:
    told: Counter[str] = Counter()
    for line in play(STRESS.replace("CALLS", str(CALLS))):
        number, late, returned, notes = line.split("|")
        acts = sandbox.launches.get(int(number), 0)
        assert acts <= 1, line
        assert late == "0", line
        assert "did not end within" not in notes, line
        if returned == "1" or "was done" in notes:
            assert acts == 1, line
        elif "unknown" not in notes:
            assert acts == 0, line
            assert "not sent" in notes or "nothing was sent" in notes or not notes, line
        told["returned" if returned == "1" else "done" if "was done" in notes else "other"] += 1
    assert told.total() == CALLS
    assert told["returned"] > 0


# Python runs signal handlers at the start of a Python function and at the end of a C function. A profiler sees both.
AT_EACH_STEP = """
    from dispatchkit.sync import portal, portal_call, wakeup
    ours = {module.__file__ for module in (portal, portal_call, wakeup)}

    def profile(frame, event, arg):
        global left
        if frame.f_code.co_filename in ours and event in ("call", "c_return") and is_over(frame):
            left -= 1
            if left == 0:
                raise KeyboardInterrupt

    def is_over(frame):
        "Whether the portal call that this frame works for has ended."
        while frame is not None and frame.f_code is not portal._LoopThread.call.__code__:
            frame = frame.f_back
        return frame is not None and getattr(frame.f_locals.get("call"), "_ended", False)

    with client() as direct:
        direct.start(1)
        for steps in range(1, 40):
            left = steps
            began = time.monotonic()
            sys.setprofile(profile)
            try:
                direct.start(1000 + steps)
            except KeyboardInterrupt as interrupt:
                sys.setprofile(None)
                print(steps, time.monotonic() - began < 1.5, getattr(interrupt, "__notes__", []))
            else:
                sys.setprofile(None)
                print("returned")
                break
"""


def test_interrupt_at_each_step(play: Play) -> None:
    *interrupted, last = play(AT_EACH_STEP)
    assert last == "returned"
    assert len(interrupted) >= 6
    for line in interrupted:
        assert line.endswith("True ['the call was done before it could be cancelled']"), line


def test_iterator_exit_ends_no_call(play: Play, sandbox: Sandbox) -> None:
    sandbox.latency = 0.3
    lines = play("""
        def ids(error):
            yield 1
            raise error
        with client() as direct, client() as another:
            for error in (SystemExit(3), KeyboardInterrupt("mine"), GeneratorExit()):
                done = []
                thread = threading.Thread(target=lambda: done.append(another.start(2)))
                thread.start()
                time.sleep(0.05)
                run = direct.start_many(ids(error))
                try:
                    run.finish()
                except BaseException as raised:
                    print(raised is error, run.report.done)
                thread.join()
                print(len(done))
    """)
    assert lines == ["True 0", "1"] * 3  # such an error interrupts like Ctrl-C: the item before it was not sent yet


@pytest.mark.parametrize("moment", ["add", "append", "send"])
def test_before_the_call_has_begun(play: Play, sandbox: Sandbox, moment: str) -> None:
    script = """
        class Interrupts:
            def __init__(self, real): self.real = real
            def __getattr__(self, name): return getattr(self.real, name)
            def __iter__(self): return iter(self.real)
            def MOMENT(self, *args):
                raise KeyboardInterrupt
        with client() as direct:
            direct.start(1)
            thread = direct._handle._thread
            name = {"add": "calls", "append": "_submitted", "send": "_wakeup"}["MOMENT"]
            real = getattr(thread, name)
            interrupts = Interrupts(real)
            setattr(thread, name, interrupts)
            def restored(*args):
                setattr(thread, name, real)
                raise KeyboardInterrupt
            interrupts.MOMENT = restored
            try:
                direct.start(2)
            except KeyboardInterrupt as interrupt:
                print(interrupt.__notes__)
    """
    assert play(script.replace("MOMENT", moment)) == ["['the call had not begun: nothing was sent']"]
    assert sandbox.launches == {1: 1}


@pytest.mark.parametrize("end", ["SystemExit", "KeyboardInterrupt"])
def test_loop_exit_ends_no_call(play: Play, sandbox: Sandbox, end: str) -> None:
    sandbox.latency = 0.3
    lines = play(f"""
        def leave():
            raise {end}
        with client() as direct:
            direct.start(1)
            thread = direct._handle._thread
            threading.Timer(0.1, thread.loop.call_soon_threadsafe, [leave]).start()
            print(direct.start(2).dispatch_id, thread.is_alive())
    """)
    assert lines == ["2 True"]
