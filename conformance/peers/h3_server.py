"""The peer server of README.md over HTTP/3, on the packages `aioquic` and `wsproto`; prints `listening on HOST:PORT` when it
is ready. It writes its certificate to the file that its argument names. Paths are those over HTTP/2. With `--retry`, each
client has to prove its address first (RFC 9000 8.1.2)."""

import asyncio
import datetime
import ipaddress
import sys

import h2_server
from aioquic.asyncio import serve
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from h3_websocket import Http3, configuration


class ServerConnection(Http3):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.task = asyncio.create_task(h2_server.serve_connection(self))


def self_signed(path):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "localhost")])
    today = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    with open(path, "wb") as file:
        file.write(certificate.public_bytes(serialization.Encoding.PEM))
    return certificate, key


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
