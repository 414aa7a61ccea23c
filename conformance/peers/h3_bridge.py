"""A bridge with which Autobahn, which speaks only HTTP/1.1, tests WebSockets over HTTP/3; prints `listening on HOST:PORT`.

    h3_bridge.py server HOST:PORT                 the target speaks HTTP/3, and clients HTTP/1.1
    h3_bridge.py client HOST:PORT CERTIFICATE     the other way round; the bridge writes its certificate to the file

HTTP/3 is that of the package `aioquic`. For each WebSocket in one version, the bridge opens one in the other version, and
relays bytes and ends unchanged. All WebSockets of a target over HTTP/3 are streams of one connection.
"""

import asyncio
import base64
import contextlib
import hashlib
import ssl
import sys

from aioquic.asyncio import connect, serve
from aioquic.h3.connection import ErrorCode, ProtocolError
from h3_certificate import self_signed
from h3_websocket import Http3, configuration, encode

# The headers that the two sides negotiate in the opening handshake.
OF_REQUEST = ["sec-websocket-version", "sec-websocket-protocol", "sec-websocket-extensions", "origin"]
OF_RESPONSE = ["sec-websocket-protocol", "sec-websocket-extensions"]
# RFC 6455 1.3.
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = base64.b64encode(b"the bridge's key").decode()
READ_SIZE = 1 << 16
# The end of a stream by a reset, and not by FIN.
RESET = None


class Pipe:
    """The bytes of a WebSocket on a stream."""

    def __init__(self, connection, stream_id, headers):
        self.connection, self.id, self.headers = connection, stream_id, headers
        loop = asyncio.get_running_loop()
        self.response, self.was_reset = loop.create_future(), loop.create_future()
        self.received = asyncio.Queue()

    def receive_data(self, data):
        self.received.put_nowait(data)

    def end(self, how):
        self.received.put_nowait(b"" if how == "END_STREAM" else RESET)

    def send(self, data, end_stream=False):
        # The peer may have reset the stream.
        with contextlib.suppress(AssertionError, ProtocolError):
            self.connection.http.send_data(self.id, data, end_stream)
        self.connection.transmit()

    def reset(self):
        with contextlib.suppress(AssertionError):
            self.connection._quic.reset_stream(self.id, ErrorCode.H3_REQUEST_CANCELLED)
        self.connection.transmit()


class Connection(Http3):
    def add(self, stream_id, headers):
        self.streams[stream_id] = Pipe(self, stream_id, headers)
        return self.streams[stream_id]


async def read_head(reader):
    """Reads a head of HTTP/1.1: the first line and the headers."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
    headers = (line.split(":", 1) for line in lines)
    return first, {name.strip().lower(): value.strip() for name, value in headers}


def accept(key):
    return base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()


def chosen(names, headers):
    return [(name, headers[name]) for name in names if name in headers]


async def write_head(writer, first, headers):
    writer.write("\r\n".join([first, *(f"{name}: {value}" for name, value in headers), "", ""]).encode())
    await writer.drain()


async def relay(reader, writer, pipe):
    """RFC 9220 3: the end of a TCP connection corresponds to FIN, a TCP reset to a reset stream."""

    async def up():
        try:
            while data := await reader.read(READ_SIZE):
                pipe.send(data)
            pipe.send(b"", end_stream=True)
        except ConnectionError:
            pipe.reset()

    async def down():
        with contextlib.suppress(ConnectionError):
            while data := await pipe.received.get():
                writer.write(data)
                await writer.drain()
            if data is RESET:
                writer.transport.abort()
            else:
                writer.write_eof()

    await asyncio.gather(up(), down())
    writer.close()


async def to_http3(connection, reader, writer):
    """Relays a WebSocket of HTTP/1.1 to a stream."""
    request, headers = await read_head(reader)
    pseudo = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https")]
    pseudo += [(":path", request.split(" ")[1]), (":authority", headers["host"])]
    pipe = connection.open([*pseudo, *chosen(OF_REQUEST, headers)])
    answer = await pipe.response
    if answer[":status"] != "200":
        await write_head(writer, f"HTTP/1.1 {answer[':status']} Refused", [])
        writer.close()
        return
    accepted = [("upgrade", "websocket"), ("connection", "Upgrade")]
    accepted += [("sec-websocket-accept", accept(headers["sec-websocket-key"])), *chosen(OF_RESPONSE, answer)]
    await write_head(writer, "HTTP/1.1 101 Switching Protocols", accepted)
    await relay(reader, writer, pipe)


async def to_http1(pipe, host, port):
    """Relays a stream to a WebSocket of HTTP/1.1."""
    reader, writer = await asyncio.open_connection(host, port)
    upgrade = [("host", f"{host}:{port}"), ("upgrade", "websocket"), ("connection", "Upgrade")]
    upgrade += [("sec-websocket-key", KEY), *chosen(OF_REQUEST, pipe.headers)]
    await write_head(writer, f"GET {pipe.headers[':path']} HTTP/1.1", upgrade)
    status, headers = await read_head(reader)
    is_accepted = " 101 " in status and headers.get("sec-websocket-accept") == accept(KEY)
    response = [(":status", "200" if is_accepted else "502"), *chosen(OF_RESPONSE, headers)]
    pipe.connection.http.send_headers(pipe.id, encode(response), not is_accepted)
    pipe.connection.transmit()
    if is_accepted:
        await relay(reader, writer, pipe)
    else:
        writer.close()


class ServerConnection(Connection):
    """A connection of a client over HTTP/3."""

    target = None

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.task = asyncio.create_task(self.run())

    async def run(self):
        tasks = set()
        while pipe := await self.requests.get():
            tasks.add(asyncio.create_task(to_http1(pipe, *self.target)))


class Target:
    """A server over HTTP/3. It ends connections without a WebSocket after a while, so each use may need a new one."""

    def __init__(self, host, port):
        self.host, self.port = host, port
        self.configuration = configuration(is_client=True)
        self.configuration.verify_mode = ssl.CERT_NONE
        self.connections, self.connection, self.opening = contextlib.AsyncExitStack(), None, asyncio.Lock()

    async def open(self):
        """Returns the connection, or a new one."""
        async with self.opening:
            if self.connection is None or self.connection._closed.is_set():
                new = connect(self.host, self.port, configuration=self.configuration, create_protocol=Connection)
                self.connection = await self.connections.enter_async_context(new)
                await self.connection.peer_settings
            return self.connection


async def serve_http1(host, port):
    target = Target(host, port)

    async def relay_client(reader, writer):
        await to_http3(await target.open(), reader, writer)

    server = await asyncio.start_server(relay_client, "127.0.0.1", 0)
    print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


async def serve_http3(host, port, certificate):
    quic = configuration(is_client=False)
    quic.certificate, quic.private_key = self_signed(certificate)
    ServerConnection.target = (host, port)
    server = await serve("127.0.0.1", 0, configuration=quic, create_protocol=ServerConnection)
    host, port = server._transport.get_extra_info("sockname")[:2]
    print(f"listening on {host}:{port}", flush=True)
    await asyncio.Event().wait()


def main():
    role, (host, port) = sys.argv[1], sys.argv[2].split(":")
    asyncio.run(serve_http1(host, int(port)) if role == "server" else serve_http3(host, int(port), sys.argv[3]))


main()
