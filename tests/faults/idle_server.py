"""A server for very many sessions: it trusts everyone, and the answer to every query is nothing.

``python -m tests.faults.idle_server ADDRESS PORT``: prints its port when it is there.
"""

from __future__ import annotations

import asyncio
import sys

from tests.faults.sockets import READY

ANSWER = b"C\0\0\0\x0dSELECT 0\0Z\0\0\0\x05I"
"""CommandComplete and ReadyForQuery."""


class Session(asyncio.Protocol):
    """One session."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._began = False

    def data_received(self, data: bytes) -> None:
        # One message at a time comes whole: they are short, and the client waits for the answer.
        if not self._began:
            self._began = True
            self._transport.write(READY)
        elif data[:1] == b"Q":
            self._transport.write(ANSWER)


async def main(address: str, port: int) -> None:
    """Serve until it is killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Session, address, port, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
