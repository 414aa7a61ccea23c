"""The peer server of README.md on the `websockets` package; prints `listening on HOST:PORT` when it is ready."""

import asyncio
import contextlib

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK

SUBPROTOCOLS = ["chat.v2", "chat.v1"]

# The ends of /record connections, which /outcome connections report.
outcomes = asyncio.Queue()


def select_subprotocol(_connection, offered):
    # Without this function the package refuses clients that offer none.
    return next((subprotocol for subprotocol in SUBPROTOCOLS if subprotocol in offered), None)


async def handle(socket):
    path = socket.request.path
    if path == "/echo":
        async for message in socket:
            await socket.send(message)
    elif path == "/fragments":
        with contextlib.suppress(ConnectionClosedOK):
            while True:
                await socket.send(socket.recv_streaming())
    elif path == "/ping":
        await (await socket.ping())
        await socket.send("pong")
    elif path.startswith("/close/"):
        await socket.close(int(path.removeprefix("/close/")), "enough")
    elif path == "/record":
        await record(socket)
    elif path == "/outcome":
        await socket.send(await outcomes.get())


async def record(socket):
    try:
        async for _ in socket:
            pass
        kind = "normal"
    except ConnectionClosed:
        kind = "error"
    await outcomes.put(f"{kind} {socket.close_code} {socket.close_reason}")


async def main():
    subprotocols = {"subprotocols": SUBPROTOCOLS, "select_subprotocol": select_subprotocol}
    async with serve(handle, "127.0.0.1", 0, **subprotocols) as server:
        host, port = server.sockets[0].getsockname()
        print(f"listening on {host}:{port}", flush=True)
        await server.serve_forever()


asyncio.run(main())
