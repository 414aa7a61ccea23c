"""WebSockets over HTTP/3 (RFC 9220) on the packages `aioquic` and `wsproto`, in both roles.

The streams do the same as those of `h2_websocket`, and so serve the same checks. The end of a stream by FIN is called
END_STREAM here, too.
"""

import asyncio
import contextlib

import h2_websocket
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, ErrorCode, H3Connection, ProtocolError, Setting
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StopSendingReceived, StreamReset

NAMES = {code.value: code.name for code in ErrorCode}


class Http3(QuicConnectionProtocol):
    """A connection; `requests` has the streams that a client opens."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.is_client = self._quic.configuration.is_client
        self.http = H3Connection(self._quic)
        self.streams = {}
        self.requests = asyncio.Queue()
        self.peer_settings = asyncio.get_running_loop().create_future()

    def quic_event_received(self, event):
        match event:
            case StreamReset():
                self.end(event.stream_id, f"RST_STREAM {NAMES.get(event.error_code, event.error_code)}")
            case StopSendingReceived():
                self.stopped(event.stream_id, NAMES.get(event.error_code, event.error_code))
            case ConnectionTerminated():
                for stream_id in self.streams:
                    self.end(stream_id, "the end of the connection")
                self.requests.put_nowait(None)
        for received in self.http.handle_event(event):
            self.handle(received)
        settings = self.http.received_settings
        if settings is not None and not self.peer_settings.done():
            self.peer_settings.set_result(settings)

    def handle(self, event):
        stream = self.streams.get(event.stream_id)
        match event:
            case HeadersReceived() if stream is None:
                stream = self.add(event.stream_id, decode(event.headers))
                self.requests.put_nowait(stream)
            case HeadersReceived():
                stream.response.set_result(decode(event.headers))
            case DataReceived() if event.data:
                stream.receive_data(event.data)
        if event.stream_ended:
            stream.end("END_STREAM")

    def end(self, stream_id, how):
        if stream := self.streams.get(stream_id):
            stream.end(how)

    def stopped(self, stream_id, code):
        stream = self.streams.get(stream_id)
        if stream and not stream.was_reset.done():
            stream.was_reset.set_result(f"STOP_SENDING {code}")

    def add(self, stream_id, headers):
        self.streams[stream_id] = Stream(self, stream_id, headers)
        return self.streams[stream_id]

    def open(self, headers):
        """Sends the head of a request, which its stream does not end."""
        stream_id = self._quic.get_next_available_stream_id()
        stream = self.add(stream_id, {})
        self.http.send_headers(stream_id, encode(headers))
        self.transmit()
        return stream

    async def round_trip(self):
        """Waits until the peer's answers to all earlier frames have arrived."""
        await self.ping()


class Stream(h2_websocket.Stream):
    async def write(self, data):
        self.http2.http.send_data(self.id, data, False)
        self.http2.transmit()

    async def how_it_ended(self):
        how = await self.ended
        await asyncio.gather(*self.answers)
        await self.http2.round_trip()
        return f"{how}, then {self.was_reset.result()}" if how == "END_STREAM" and self.was_reset.done() else how

    async def send_end(self):
        async with self.writing:
            # The stream may have ended in the meantime.
            with contextlib.suppress(ProtocolError):
                self.http2.http.send_data(self.id, b"", True)
            self.http2.transmit()

    def reset(self, _code):
        code = ErrorCode.H3_REQUEST_CANCELLED
        self.http2._quic.reset_stream(self.id, code)
        with contextlib.suppress(Exception):
            self.http2._quic.stop_stream(self.id, code)
        self.http2.transmit()

    def respond(self, headers, end_stream=False):
        self.http2.http.send_headers(self.id, encode(headers), end_stream)
        self.http2.transmit()


def encode(headers):
    return [(name.encode(), value.encode()) for name, value in headers]


def decode(headers):
    return {name.decode(): value.decode() for name, value in headers}


def configuration(is_client):
    return QuicConfiguration(is_client=is_client, alpn_protocols=H3_ALPN, max_datagram_size=1200)


ENABLE_CONNECT_PROTOCOL = Setting.ENABLE_CONNECT_PROTOCOL
