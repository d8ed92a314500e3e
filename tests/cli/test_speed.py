"""The rate of a log equals that of the bar."""

from __future__ import annotations

import random

from rich.progress import Progress

from dispatchkit.cli.output.speed import Speed


def test_rate_equals_that_of_rich() -> None:
    now, draw = [0.0], random.Random(1)
    speed, rich = Speed(lambda: now[0]), Progress(get_time=lambda: now[0])
    task = rich.add_task("", total=5000)
    done = 0
    for turn in range(400):
        if turn == 100:
            done = 300
            speed.reset(completed=done)
            rich.reset(task, completed=done)
        now[0] += draw.choice([0.0, 0.2, 0.2, 40.0])
        done = min(5000, done + draw.choice([0, 1, 40]))
        speed.update(done)
        rich.update(task, completed=done)
        shown = rich.tasks[0]
        assert (speed.value, speed.seconds_for(5000 - done)) == (shown.speed, shown.time_remaining), turn
