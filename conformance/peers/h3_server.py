"""The peer server of README.md over HTTP/3, on the packages `aioquic` and `wsproto`; prints `listening on HOST:PORT` when it
is ready. It writes its certificate to the file that its argument names. Paths are those over HTTP/2. With `--retry`, each
client has to prove its address first (RFC 9000 8.1.2)."""

import asyncio
import sys

import h2_server
from aioquic.asyncio import serve
from h3_certificate import self_signed
from h3_websocket import Http3, configuration


class ServerConnection(Http3):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.task = asyncio.create_task(h2_server.serve_connection(self))


async def main():
    quic = configuration(is_client=False)
    quic.certificate, quic.private_key = self_signed(sys.argv[1])
    server = await serve(
        "127.0.0.1", 0, configuration=quic, create_protocol=ServerConnection, retry="--retry" in sys.argv
    )
    host, port = server._transport.get_extra_info("sockname")[:2]
    print(f"listening on {host}:{port}", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
