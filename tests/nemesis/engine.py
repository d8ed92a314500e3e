"""A task of an engine such as Celery or Airflow: it launches one chunk, and retries as the engine would."""

from __future__ import annotations

import asyncio
import importlib
import time
from typing import Any

__all__ = ["main"]


def main(ledger: str, run: str, chunk: str, url: str, timeout: str) -> int:
    """Launch a chunk. The exit status is that of the task: 0 says that the chunk is launched.

    A chunk that is held elsewhere is no success. `launch_chunk` raises an error with ``retry_after``, and the task
    retries.
    """
    until = time.monotonic() + float(timeout)
    while True:
        try:
            report = asyncio.run(_launch(ledger, run, int(chunk), url))
        except Exception as error:  # noqa: BLE001 - an engine sees any error as a failure
            wait = getattr(error, "retry_after", None)
            if wait is None or time.monotonic() > until:
                print(f"the task failed: {type(error).__name__}: {error}")
                return 1
            time.sleep(min(max(float(wait), 0.2), 5.0))
            continue
        print(f"the task succeeded: {report}")
        return 0


async def _launch(ledger: str, run: str, chunk: int, url: str) -> Any:
    from dispatchkit import DirectClient  # noqa: PLC0415 - with the times that are patched by now

    module: Any
    try:
        module = importlib.import_module("dispatchkit.workers")
    except ModuleNotFoundError:
        module = importlib.import_module("dispatchkit.workers")
    async with DirectClient(base_url=url) as client:
        return await module.launch_chunk(ledger, run, chunk, client=client)
