"""The peer client of README.md over HTTP/2, on the packages `h2` and `wsproto`: runs the named checks against the server at
a URL."""

import asyncio
import ssl
import sys
from urllib.parse import urlsplit

from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from h2_websocket import Closed, Http2
from wsproto.extensions import PerMessageDeflate

URL, *NAMES = sys.argv[1:]
MEBIBYTE = 1 << 20
# Of the messages of `many`.
SIZES = [0, 10, 70_000]


def expect(observed, expected):
    if observed != expected:
        raise AssertionError(f"expected {expected!r:.100}, observed {observed!r:.100}")


class Session:
    """An HTTP/2 connection to the server."""

    async def __aenter__(self):
        url = urlsplit(URL)
        self.scheme, self.authority = ("https" if url.scheme == "wss" else "http"), url.netloc
        tls = None
        if url.scheme == "wss":
            tls = ssl.create_default_context()
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
            tls.set_alpn_protocols(["h2"])
        reader, writer = await asyncio.open_connection(url.hostname, url.port, ssl=tls)
        self.http2 = Http2(reader, writer, is_client=True)
        settings = await self.http2.peer_settings
        # RFC 8441 3.
        expect(settings[SettingCodes.ENABLE_CONNECT_PROTOCOL], 1)
        return self

    async def __aexit__(self, *_error):
        self.http2.h2.close_connection()
        self.http2.flush()
        self.http2.writer.close()
        self.http2.task.cancel()

    def request(self, path, headers={}, protocol="websocket", version="13"):
        head = {":method": "CONNECT", ":protocol": protocol, ":scheme": self.scheme, ":path": path}
        head |= {":authority": self.authority, "sec-websocket-version": version, **headers}
        return self.http2.open(list(head.items()))

    async def connect(self, path, subprotocols=()):
        deflate = PerMessageDeflate()
        headers = {"sec-websocket-extensions": f"permessage-deflate; {deflate.offer()}"}
        if subprotocols:
            headers["sec-websocket-protocol"] = ", ".join(subprotocols)
        stream = self.request(path, headers)
        stream.headers = await stream.response
        expect(stream.headers[":status"], "200")
        accepted = stream.headers.get("sec-websocket-extensions")
        if accepted:
            deflate.finalize(accepted)
        stream.become_websocket([deflate] if accepted else [])
        return stream

    async def status(self, *arguments, **named):
        stream = self.request(*arguments, **named)
        return (await stream.response)[":status"]


async def is_echoed(message):
    async with Session() as session:
        stream = await session.connect("/echo")
        await stream.send_message(message)
        expect(await stream.receive(), message)
        await closes(stream)


async def closes(stream, code=1000, reason=""):
    """Expects both Close frames, and then END_STREAM of the server without a reset after it."""
    closed = await stream.close(code, reason)
    expect((closed.code, closed.reason), (code, reason))
    expect(await stream.how_it_ended(), "END_STREAM")


async def compression():
    async with Session() as session:
        stream = await session.connect("/echo")
        expect("permessage-deflate" in stream.headers["sec-websocket-extensions"], True)
        for i in range(20):
            message = '{"number":%d,"text":"κόσμε"}' % i * (1 + i * 10)
            await stream.send_message(message)
            expect(await stream.receive(), message)
        await closes(stream)


async def fragmented():
    async with Session() as session:
        stream = await session.connect("/fragments")
        for fragments in [["one, ", "δύο, ", "", "three"], [b"\x00\xff", b"\xfe"]]:
            *first, last = fragments
            for fragment in first:
                await stream.send_fragment(fragment, False)
            await stream.send_fragment(last, True)
            expect(await stream.receive(), last[:0].join(fragments))
        await closes(stream)


async def streamed():
    """Checks that each fragment is returned before the next one is sent."""
    async with Session() as session:
        stream = await session.connect("/fragments")
        for piece in ["one, ", "two, ", "three"]:
            await stream.send_fragment(piece, piece == "three")
            echoed = ""
            while len(echoed) < len(piece):
                echoed += (await stream.receive_piece())[0]
            expect(echoed, piece)


async def ping_from_client():
    async with Session() as session:
        stream = await session.connect("/echo")
        expect(await stream.ping(b"are you there?"), b"are you there?")
        await closes(stream)


async def ping_from_server():
    async with Session() as session:
        stream = await session.connect("/ping")
        expect(await stream.receive(), "pong")


async def subprotocol():
    async with Session() as session:
        stream = await session.connect("/echo", ["chat.v1", "chat.v2", "chat.v3"])
        expect(stream.headers.get("sec-websocket-protocol"), "chat.v2")


async def no_subprotocol():
    async with Session() as session:
        stream = await session.connect("/echo")
        expect(stream.headers.get("sec-websocket-protocol"), None)


async def server_closes(code):
    async with Session() as session:
        stream = await session.connect(f"/close/{code}")
        try:
            await stream.receive()
        except Closed as closed:
            expect((closed.code, closed.reason), (code, "enough"))
        else:
            raise AssertionError("the connection was not closed")
        expect(await stream.how_it_ended(), "END_STREAM")


async def client_closes(code, outcome):
    async with Session() as session:
        await closes(await session.connect("/record"), code, "leaving")
        asking = await session.connect("/outcome")
        expect(await asking.receive(), outcome)


async def client_resets():
    """A reset is an end without a Close frame, and the error says how it came."""
    async with Session() as session:
        stream = await session.connect("/record")
        stream.reset(ErrorCodes.CANCEL)
        asking = await session.connect("/outcome")
        outcome = await asking.receive()
        expect("without a Close frame" in outcome and "CANCEL" in outcome, True)


async def server_drops():
    async with Session() as session:
        stream = await session.connect("/drop")
        expect(await stream.receive(), "the last message")
        try:
            await stream.receive()
        except Closed as closed:
            # There was no Close frame.
            expect((closed.code, closed.reason), (1006, "END_STREAM"))
        # Other streams are unharmed.
        await closes(await session.connect("/echo"))


async def many():
    """Opens a hundred WebSockets at once, over one connection."""
    async with Session() as session:
        async def one(number):
            stream = await session.connect("/echo")
            for size in SIZES:
                message = str(number) * size
                await stream.send_message(message)
                expect(await stream.receive(), message)
            await closes(stream)

        async with asyncio.TaskGroup() as tasks:
            for number in range(100):
                tasks.create_task(one(number))


async def is_refused(status, *arguments, **named):
    async with Session() as session:
        expect(await session.status(*arguments, **named), status)
        # The connection continues.
        await closes(await session.connect("/echo"))


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
    "client resets": client_resets,
    "server drops": server_drops,
    "many": many,
    "foreign origin": lambda: is_refused("403", "/echo", {"origin": "https://example.com"}),
    "version 12": lambda: is_refused("400", "/echo", version="12"),
    "another protocol": lambda: is_refused("501", "/echo", protocol="connect-udp"),
}


async def main():
    for name in NAMES:
        try:
            async with asyncio.timeout(10):
                await CHECKS[name]()
            print(f"ok {name}", flush=True)
        except Exception as error:
            print(f"failed {name}: {error!r}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
