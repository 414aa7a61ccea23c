"""A WebSocket echo server without a library, on the port of the environment. Its arguments are its faults.

- `text`: sends back texts alone
- `child`: is served by a child process, which holds 64 MiB
- `ends`: ends the connections whose first message is a number of the load
"""

import base64
import hashlib
import os
import socket
import struct
import sys
import threading


def receive(stream):
    first, second = stream.read(2)
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack("!H", stream.read(2))
    elif length == 127:
        (length,) = struct.unpack("!Q", stream.read(8))
    key = stream.read(4)
    payload = stream.read(length)
    mask = (key * (length // 4 + 1))[:length]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")
    return first, masked.to_bytes(length, "big")


def frame(first, payload):
    length = len(payload)
    if length < 126:
        return bytes([first, length]) + payload
    if length < 65536:
        return struct.pack("!BBH", first, 126, length) + payload
    return struct.pack("!BBQ", first, 127, length) + payload


def serve(connection, stream):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    headers = dict(line.split(b": ", 1) for line in iter(stream.readline, b"\r\n") if b": " in line)
    headers = {name.lower(): value.strip() for name, value in headers.items()}
    key = headers[b"sec-websocket-key"] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key).digest())
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    while True:
        first, payload = receive(stream)
        if "ends" in sys.argv and payload[:1].isdigit():
            return
        if "text" in sys.argv and first == 0x82:
            first = 0x81
            payload = b"?"
        connection.sendall(frame(first, payload))
        if first == 0x88:
            return


def answer(connection):
    try:
        with connection, connection.makefile("rb") as stream:
            serve(connection, stream)
    except (OSError, ValueError):
        pass


held = None
if "child" in sys.argv:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        sys.exit()
    held = b"x" * (64 << 20)
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=128)
while True:
    connection, _ = listener.accept()
    threading.Thread(target=answer, args=(connection,), daemon=True).start()
