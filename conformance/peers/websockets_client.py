"""The peer client of README.md on the `websockets` package: runs the named checks against the server at a URL."""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

URL, *NAMES = sys.argv[1:]
MEBIBYTE = 1 << 20


def expect(observed, expected):
    if observed != expected:
        raise AssertionError(f"expected {expected!r:.100}, observed {observed!r:.100}")


async def is_echoed(message):
    async with connect(f"{URL}/echo") as socket:
        await socket.send(message)
        expect(await socket.recv(), message)


async def compression():
    async with connect(f"{URL}/echo") as socket:
        expect([extension.name for extension in socket.protocol.extensions], ["permessage-deflate"])
        for i in range(20):
            message = '{"number":%d,"text":"κόσμε"}' % i * (1 + i * 10)
            await socket.send(message)
            expect(await socket.recv(), message)


async def fragmented():
    async with connect(f"{URL}/fragments") as socket:
        await socket.send(["one, ", "δύο, ", "", "three"])
        expect(await socket.recv(), "one, δύο, three")
        await socket.send([b"\x00\xff", b"\xfe"])
        expect(await socket.recv(), b"\x00\xff\xfe")


async def streamed():
    """Checks that each fragment is returned before the next one is sent."""
    async with connect(f"{URL}/fragments") as socket:
        echoed = asyncio.Queue()

        async def send():
            for piece in ["one, ", "two, ", "three"]:
                yield piece
                expect(await echoed.get(), piece)

        async def receive():
            async for fragment in socket.recv_streaming():
                if fragment:
                    echoed.put_nowait(fragment)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(receive())
            tasks.create_task(socket.send(send()))


async def ping_from_client():
    async with connect(f"{URL}/echo") as socket:
        await (await socket.ping("are you there?"))


async def ping_from_server():
    async with connect(f"{URL}/ping") as socket:
        expect(await socket.recv(), "pong")


async def subprotocol():
    async with connect(f"{URL}/echo", subprotocols=["chat.v1", "chat.v2", "chat.v3"]) as socket:
        expect(socket.subprotocol, "chat.v2")


async def no_subprotocol():
    async with connect(f"{URL}/echo") as socket:
        expect(socket.subprotocol, None)


async def server_closes(code):
    async with connect(f"{URL}/close/{code}") as socket:
        try:
            await socket.recv()
        except ConnectionClosed as closed:
            expect((closed.rcvd.code, closed.rcvd.reason), (code, "enough"))
        else:
            raise AssertionError("the connection was not closed")


async def client_closes(code, outcome):
    async with connect(f"{URL}/record") as socket:
        await socket.close(code, "leaving")
        expect(socket.close_code, code)
    async with connect(f"{URL}/outcome") as socket:
        expect(await socket.recv(), outcome)


CHECKS = {
    "text": lambda: is_echoed("hello"),
    "multibyte text": lambda: is_echoed("κόσμε 🪢"),
    "empty message": lambda: is_echoed(""),
    "binary": lambda: is_echoed(bytes(range(256))),
    "1 MiB of binary": lambda: is_echoed(bytes(range(256)) * (MEBIBYTE // 256)),
    "1 MiB of text": lambda: is_echoed("🪢" * (MEBIBYTE // 4)),
    "compression": compression,
    "fragmented": fragmented,
    "streamed": streamed,
    "ping from client": ping_from_client,
    "ping from server": ping_from_server,
    "subprotocol": subprotocol,
    "no subprotocol": no_subprotocol,
    "server closes with 4001": lambda: server_closes(4001),
    "server closes with 1000": lambda: server_closes(1000),
    "client closes with 4002": lambda: client_closes(4002, "error 4002 leaving"),
    "client closes with 1000": lambda: client_closes(1000, "normal 1000 leaving"),
}


async def main():
    for name in NAMES:
        try:
            async with asyncio.timeout(10):
                await CHECKS[name]()
            print(f"ok {name}", flush=True)
        except Exception as error:
            print(f"failed {name}: {error!r}", flush=True)


asyncio.run(main())
