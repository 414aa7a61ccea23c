"""WebSockets over HTTP/2 (RFC 8441) on the packages `h2` and `wsproto`, in both roles.

`h2` knows no WebSockets and `wsproto` no HTTP/2; what is here passes the bytes from one to the other.
"""

import asyncio
import contextlib

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import wsproto.connection
import wsproto.events
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from wsproto.connection import ConnectionState, ConnectionType


# RFC 9113 6.4.
RST_STREAM = 3


class Closed(Exception):
    """The peer's Close frame, or its absence."""

    def __init__(self, code, reason):
        super().__init__(f"closed with {code} {reason}")
        self.code, self.reason = code, reason or ""


class Http2:
    """A connection; `requests` has the streams that a client opens."""

    def __init__(self, reader, writer, is_client):
        self.reader, self.writer, self.is_client = reader, writer, is_client
        config = h2.config.H2Configuration(client_side=is_client, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        if not is_client:
            # RFC 8441 3.
            settings = {SettingCodes.ENABLE_CONNECT_PROTOCOL: 1, SettingCodes.MAX_CONCURRENT_STREAMS: 100}
            self.h2.local_settings = h2.settings.Settings(client=False, initial_values=settings)
        self.h2.initiate_connection()
        self.flush()
        self.streams = {}
        self.requests = asyncio.Queue()
        self.peer_settings = asyncio.get_running_loop().create_future()
        # Replaced whenever the peer opens a window.
        self.windows = asyncio.Event()
        self.acknowledged = asyncio.Event()
        # All streams that the peer has reset: `h2` doesn't report resets after the end of a stream.
        self.resets = {}
        self.unseen = b""
        # The preface of a client (RFC 9113 3.4).
        self.skipped = 0 if is_client else 24
        self.task = asyncio.create_task(self.run())

    async def run(self):
        with contextlib.suppress(ConnectionError):
            while data := await self.reader.read(1 << 16):
                self.note_resets(data)
                for event in self.h2.receive_data(data):
                    self.handle(event)
                self.flush()
        self.writer.close()
        for stream in self.streams.values():
            stream.end("the end of the connection")
        self.requests.put_nowait(None)

    def note_resets(self, data):
        self.unseen += data
        while len(self.unseen) >= self.skipped + 9:
            frame = self.unseen[self.skipped :]
            size = 9 + int.from_bytes(frame[:3])
            if len(frame) < size:
                break
            if frame[3] == RST_STREAM:
                self.resets[int.from_bytes(frame[5:9])] = ErrorCodes(int.from_bytes(frame[9:13])).name
            self.unseen, self.skipped = frame[size:], 0

    def handle(self, event):
        stream = self.streams.get(getattr(event, "stream_id", None))
        match event:
            case h2.events.RemoteSettingsChanged():
                if not self.peer_settings.done():
                    self.peer_settings.set_result(dict(self.h2.remote_settings))
                self.open_windows()
            case h2.events.WindowUpdated():
                self.open_windows()
            case h2.events.RequestReceived():
                self.requests.put_nowait(self.add(event.stream_id, dict(event.headers)))
            case h2.events.ResponseReceived():
                stream.response.set_result(dict(event.headers))
            case h2.events.DataReceived():
                if event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                stream.receive_data(event.data)
            case h2.events.StreamEnded():
                stream.end("END_STREAM")
            case h2.events.StreamReset():
                stream.end(f"RST_STREAM {ErrorCodes(event.error_code).name}")
            case h2.events.PingAckReceived():
                self.acknowledged.set()

    def add(self, stream_id, headers):
        self.streams[stream_id] = Stream(self, stream_id, headers)
        return self.streams[stream_id]

    def open_windows(self):
        self.windows.set()
        self.windows = asyncio.Event()

    async def round_trip(self):
        """Waits until the peer's answers to all earlier frames have arrived."""
        self.acknowledged.clear()
        self.h2.ping(b"are you?")
        self.flush()
        await self.acknowledged.wait()

    def flush(self):
        self.writer.write(self.h2.data_to_send())

    def open(self, headers):
        """Sends the head of a request, which its stream does not end."""
        stream_id = self.h2.get_next_available_stream_id()
        stream = self.add(stream_id, {})
        self.h2.send_headers(stream_id, headers)
        self.flush()
        return stream


class Stream:
    def __init__(self, http2, stream_id, headers):
        self.http2, self.id, self.headers = http2, stream_id, headers
        loop = asyncio.get_running_loop()
        # The last two record how the peer ended the stream: first, and by a reset.
        self.response, self.ended, self.was_reset = loop.create_future(), loop.create_future(), loop.create_future()
        self.writing = asyncio.Lock()
        self.websocket = None
        # Bytes that arrived before the handshake was complete, or the body of a refusal.
        self.early = b""
        self.events = asyncio.Queue()
        self.pongs = asyncio.Queue()
        # The references keep the tasks from being collected as garbage.
        self.answers = set()

    def become_websocket(self, extensions):
        role = ConnectionType.CLIENT if self.http2.is_client else ConnectionType.SERVER
        self.websocket = wsproto.connection.Connection(role, extensions)
        self.receive_data(self.early)
        if self.ended.done():
            self.pass_on_end()

    def receive_data(self, data):
        if not self.websocket:
            self.early += data
            return
        # The end of the stream may be an empty DATA frame, which `wsproto` must not receive after the Close frames.
        if data:
            self.websocket.receive_data(data)
        for event in self.websocket.events():
            match event:
                case wsproto.events.Ping():
                    self.answer(event.response(), False)
                case wsproto.events.Pong():
                    self.pongs.put_nowait(bytes(event.payload))
                case wsproto.events.CloseConnection():
                    if self.websocket.state is ConnectionState.REMOTE_CLOSING:
                        self.answer(event.response(), not self.http2.is_client)
                    elif not self.http2.is_client:
                        self.answer(None, True)
                    self.events.put_nowait(event)
                case _:
                    self.events.put_nowait(event)

    def answer(self, event, is_last):
        async def write():
            # There is no peer to answer if the stream or the connection has ended in the meantime.
            with contextlib.suppress(h2.exceptions.ProtocolError):
                if event:
                    await self.send(event)
                if is_last:
                    await self.send_end()

        task = asyncio.create_task(write())
        self.answers.add(task)
        task.add_done_callback(self.answers.discard)

    def end(self, how):
        if not self.ended.done():
            self.ended.set_result(how)
        if how != "END_STREAM" and not self.was_reset.done():
            self.was_reset.set_result(how)
        if not self.response.done():
            self.response.set_result({":status": how})
        if self.websocket:
            self.pass_on_end()

    def pass_on_end(self):
        self.events.put_nowait(None)
        # RFC 6455 7.1.1: the server is the first to end the transport.
        if self.http2.is_client and self.ended.result() == "END_STREAM":
            self.answer(None, True)

    async def send(self, event):
        async with self.writing:
            await self.write(self.websocket.send(event))

    async def write(self, data):
        """Sends as fast as the peer's windows permit."""
        h2 = self.http2.h2
        while data:
            size = min(h2.local_flow_control_window(self.id), h2.max_outbound_frame_size, len(data))
            if size <= 0:
                await self.http2.windows.wait()
                continue
            h2.send_data(self.id, data[:size])
            data = data[size:]
            self.http2.flush()
            await self.http2.writer.drain()

    async def how_it_ended(self):
        """Returns how the peer has ended the stream, once it has ended."""
        how = await self.ended
        if how != "END_STREAM":
            return how
        await asyncio.gather(*self.answers)
        await self.http2.round_trip()
        reset = self.http2.resets.get(self.id)
        return f"{how}, then RST_STREAM {reset}" if reset else how

    async def send_end(self):
        async with self.writing:
            self.http2.h2.end_stream(self.id)
            self.http2.flush()

    def reset(self, code):
        self.http2.h2.reset_stream(self.id, code)
        self.http2.flush()

    def respond(self, headers, end_stream=False):
        self.http2.h2.send_headers(self.id, headers, end_stream=end_stream)
        self.http2.flush()

    async def send_message(self, message):
        await self.send_fragment(message, True)

    async def send_fragment(self, data, is_last):
        kind = wsproto.events.TextMessage if isinstance(data, str) else wsproto.events.BytesMessage
        await self.send(kind(data=data, message_finished=is_last))

    async def ping(self, payload):
        await self.send(wsproto.events.Ping(payload=payload))
        return await self.pongs.get()

    async def close(self, code, reason):
        """Sends a Close frame, and returns the peer's."""
        await self.send(wsproto.events.CloseConnection(code=code, reason=reason))
        while True:
            try:
                await self.receive()
            except Closed as closed:
                return closed

    async def receive(self):
        """Receives the next message as a whole."""
        pieces = []
        while True:
            piece, is_last = await self.receive_piece()
            pieces.append(piece)
            if is_last:
                return pieces[0][:0].join(pieces)

    async def receive_piece(self):
        """Receives the next part of a message. Returns also whether it is the last one."""
        event = await self.events.get()
        if event is None:
            raise Closed(1006, await self.ended)
        if isinstance(event, wsproto.events.CloseConnection):
            raise Closed(int(event.code), event.reason)
        data = event.data if isinstance(event.data, str) else bytes(event.data)
        return data, event.message_finished
