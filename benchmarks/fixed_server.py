"""A provider in a process of its own, which drops requests of any size and gives each the same answer.

Run as a module, it answers with the bytes of a file.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.machine import ROOT, cores, pinned

_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"


class _Fixed(asyncio.Protocol):
    answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._head = b""
        self._left = 0

    def data_received(self, data: bytes) -> None:
        while data:
            if self._left:
                taken = min(self._left, len(data))
                self._left -= taken
                data = data[taken:]
                if self._left == 0:
                    self._transport.write(self.answer)
                continue
            self._head += data
            head, end, data = self._head.partition(_END)
            if not end:
                return
            self._head = b""
            length = head.lower().partition(_LENGTH)[2].partition(b"\r\n")[0]
            self._left = int(length or 0)
            if self._left == 0:
                self._transport.write(self.answer)


@contextmanager
def serving(body: bytes) -> Iterator[str]:
    """Start it on the server's core, with this JSON for a body. Yields its URL."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    pair = cores()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "answer")
        file.write_bytes(head + body)
        command = [sys.executable, "-m", "benchmarks.fixed_server", str(file)]
        with pinned(pair and pair[1]):
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()
            process.communicate()


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Fixed, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    _Fixed.answer = Path(sys.argv[1]).read_bytes()
    asyncio.run(_serve())
