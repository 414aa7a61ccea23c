"""The peer client of README.md over HTTP/3, on the packages `aioquic` and `wsproto`: the checks are those over HTTP/2."""

import asyncio
import ssl
from urllib.parse import urlsplit

import h2_client
from aioquic.asyncio import connect
from h3_websocket import ENABLE_CONNECT_PROTOCOL, Http3, configuration


class Session(h2_client.Session):
    """An HTTP/3 connection to the server."""

    async def __aenter__(self):
        url = urlsplit(h2_client.URL)
        self.scheme, self.authority = "https", url.netloc
        quic = configuration(is_client=True)
        quic.verify_mode = ssl.CERT_NONE
        self.connecting = connect(url.hostname, url.port, configuration=quic, create_protocol=Http3)
        self.http2 = await self.connecting.__aenter__()
        settings = await self.http2.peer_settings
        # RFC 9220 3.
        h2_client.expect(settings[ENABLE_CONNECT_PROTOCOL], 1)
        return self

    async def __aexit__(self, *error):
        await self.connecting.__aexit__(*error)


h2_client.Session = Session
# `aioquic` recovers slowly from the losses that a hundred large messages at once cause.
h2_client.SIZES = [0, 10, 7_000]
asyncio.run(h2_client.main())
