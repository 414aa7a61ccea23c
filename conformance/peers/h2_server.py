"""The peer server of README.md over HTTP/2, on the packages `h2` and `wsproto`; prints `listening on HOST:PORT` when it is
ready. In addition, `/ending` tells how the stream of a `/record` connection ended, `/reset` is reset, and `/refused` is
refused."""

import asyncio

from h2.errors import ErrorCodes
from h2_websocket import Closed, Http2
from wsproto.extensions import PerMessageDeflate

SUBPROTOCOLS = ["chat.v2", "chat.v1"]

# The ends of /record connections, and of their streams, which /outcome and /ending connections report.
ends = asyncio.Queue()


async def serve(reader, writer):
    await serve_connection(Http2(reader, writer, is_client=False))


async def serve_connection(http2):
    async with asyncio.TaskGroup() as tasks:
        while stream := await http2.requests.get():
            tasks.create_task(handle(stream))


async def handle(stream):
    headers = stream.headers
    expected = {":method": "CONNECT", ":protocol": "websocket", "sec-websocket-version": "13"}
    unexpected = {"sec-websocket-key", "connection", "upgrade", "host"} & headers.keys()
    path = headers[":path"]
    if {name: headers.get(name) for name in expected} != expected or unexpected or path == "/refused":
        stream.respond([(":status", "403"), ("x-why", "no")])
        async with stream.writing:
            await stream.write(b"not you")
        await stream.send_end()
        return
    accept(stream)
    try:
        await act(stream, path)
    except Closed:
        pass


def accept(stream):
    response = [(":status", "200")]
    offered = stream.headers.get("sec-websocket-protocol", "").replace(" ", "").split(",")
    if chosen := next((subprotocol for subprotocol in SUBPROTOCOLS if subprotocol in offered), None):
        response.append(("sec-websocket-protocol", chosen))
    extensions = []
    if offer := stream.headers.get("sec-websocket-extensions"):
        deflate = PerMessageDeflate()
        parameters = deflate.accept(offer.split(",")[0])
        extensions = [deflate]
        response.append(("sec-websocket-extensions", "; ".join(filter(None, ["permessage-deflate", parameters]))))
    stream.respond(response)
    stream.become_websocket(extensions)


async def act(stream, path):
    if path == "/echo":
        while True:
            await stream.send_message(await stream.receive())
    elif path == "/fragments":
        while True:
            await stream.send_fragment(*await stream.receive_piece())
    elif path == "/ping":
        await stream.ping(b"are you there?")
        await stream.send_message("pong")
    elif path.startswith("/close/"):
        await stream.close(int(path.removeprefix("/close/")), "enough")
    elif path == "/record":
        await record(stream)
    elif path in ("/outcome", "/ending"):
        outcome, ending = await ends.get()
        await stream.send_message(outcome if path == "/outcome" else ending)
    elif path == "/reset":
        # Over HTTP/3, a reset may overtake the response.
        await stream.receive()
        stream.reset(ErrorCodes.CANCEL)


async def record(stream):
    try:
        while True:
            await stream.receive()
    except Closed as closed:
        kind = "normal" if closed.code == 1000 else "error"
        ending = await stream.ended
        if closed.code == 1006 and ending == "END_STREAM":
            ending += f", then {await stream.was_reset}"
        await ends.put((f"{kind} {closed.code} {closed.reason}", ending))


async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        print(f"listening on {host}:{port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
