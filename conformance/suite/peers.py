"""Other WebSocket libraries as clients of bowline's server and as servers of bowline's client."""

from . import install, processes
from .paths import CACHE, PROGRAMS, SOURCE

CHECKS = [
    "text",
    "multibyte text",
    "empty message",
    "binary",
    "1 MiB of binary",
    "1 MiB of text",
    "fragmented",
    "streamed",
    "ping from client",
    "ping from server",
    "subprotocol",
    "no subprotocol",
    "server closes with 4001",
    "server closes with 1000",
    "client closes with 4002",
    "client closes with 1000",
]
# The modes that bowline's side requests; the other sides accept each.
MODES = ["off", "no-takeover", "takeover"]

# `ws` delivers only whole messages, so neither of its sides can answer a fragment before the last one has arrived.
CHECKS_OF_WS = [check for check in CHECKS if check != "streamed"]

# Checks that only HTTP/2 has.
CHECKS_OF_H2_CLIENT = [*CHECKS, "client resets", "many", "foreign origin", "version 12", "another protocol"]
CHECKS_OF_H2_SERVER = [*CHECKS, "client closes its stream", "client drops", "server resets", "refused", "many"]
# Checks of a hyper server with `bowline::accept`.
CHECKS_OF_HYPER = ["text", "1 MiB of binary", "server drops", "foreign origin", "version 12", "another protocol"]

# Comparisons of field sections with pylsqpack, which aioquic brings.
CHECKS_OF_QPACK = ["theirs are decoded", "ours are decoded", "malformed ones are refused alike"]

# Each check has 10 s; all of one client together take about 1 s.
SECONDS = 60


def run(report):
    peers = SOURCE / "peers"
    python, ws_environment = install.websockets(), install.ws()
    h2_python, h3_python = install.h2(), install.h3()
    our_client = [PROGRAMS / "peer_client"]
    our_server = [PROGRAMS / "peer_server"]
    websockets_client = [python, peers / "websockets_client.py"]
    websockets_server = [python, peers / "websockets_server.py"]
    ws_client = ["node", peers / "ws_client.js"]
    ws_server = ["node", peers / "ws_server.js"]
    h2_client = [h2_python, peers / "h2_client.py"]
    h2_server = [h2_python, peers / "h2_server.py"]

    for mode in MODES:
        ours = [f"--compression={mode}"]
        more = [] if mode == "off" else ["compression"]
        checks, checks_of_ws = CHECKS + more, CHECKS_OF_WS + more
        server, client = our_server + ours, our_client + ours
        run_pair(report, f"websockets client, bowline server, {mode}", websockets_client, server, checks)
        run_pair(report, f"bowline client, websockets server, {mode}", client, websockets_server, checks)
        run_pair(report, f"ws client, bowline server, {mode}", ws_client, server, checks_of_ws, ws_environment)
        run_pair(report, f"bowline client, ws server, {mode}", client, ws_server, checks_of_ws, ws_environment)
        checks_of_client, checks_of_server = CHECKS_OF_H2_CLIENT + more, CHECKS_OF_H2_SERVER + more
        if more:
            # `wsproto` sends no part of a compressed message before the message is complete.
            checks_of_client.remove("streamed")
            checks_of_server.remove("streamed")
        run_pair(report, f"h2 client, bowline server, {mode}", h2_client, server, checks_of_client)
        client = [*client, "--http2"]
        run_pair(report, f"bowline client, h2 server, {mode}", client, h2_server, checks_of_server)
        run_http3(report, peers, h3_python, mode, more)
    hyper = [PROGRAMS / "page_server", SOURCE / "browser" / "page.html"]
    run_pair(report, "h2 client, bowline under hyper", h2_client, hyper, CHECKS_OF_HYPER, scheme="wss")
    run_qpack(report, [h3_python, peers / "qpack.py", PROGRAMS / "qpack"])
    run_example(report, "example http2, 1,000 WebSockets over one connection", "http2", ["--open", "1000"])
    run_example(report, "example http3, 1,000 WebSockets over one connection", "http3", ["--open", "1000"])


def run_http3(report, peers, python, mode, more):
    """HTTP/3, also with a server that asks each client to prove its address."""
    ours = [f"--compression={mode}"]
    checks_of_client, checks_of_server = CHECKS_OF_H2_CLIENT + more, CHECKS_OF_H2_SERVER + more
    if more:
        checks_of_client.remove("streamed")
        checks_of_server.remove("streamed")
    server, client = [PROGRAMS / "peer_server", "--http3", *ours], [python, peers / "h3_client.py"]
    run_pair(report, f"aioquic client, bowline server, {mode}", client, server, checks_of_client, scheme="wss")
    certificate = CACHE / "h3-certificate.pem"
    client = [PROGRAMS / "peer_client", *ours, "--http3", certificate]
    server = [python, peers / "h3_server.py", certificate]
    for name, arguments in {"": [], " with Retry": ["--retry"]}.items():
        pair = f"bowline client, aioquic server{name}, {mode}"
        run_pair(report, pair, client, [*server, *arguments], checks_of_server, scheme="wss")


def run_qpack(report, command):
    try:
        report.takes_over("QPACK beside pylsqpack", processes.run("qpack", command, SECONDS), CHECKS_OF_QPACK)
    except processes.ProcessFailure as failure:
        report.fails("QPACK beside pylsqpack", failure)


def run_pair(report, name, client, server, checks, environment=None, scheme="ws"):
    log = name.replace(", ", "-").replace(" ", "-")
    try:
        with processes.server(f"{log}-server", server, environment) as address:
            output = processes.run(f"{log}-client", [*client, f"{scheme}://{address}", *checks], SECONDS, environment)
            report.takes_over(name, output, checks)
    except processes.ProcessFailure as failure:
        report.fails(name, failure)


def run_example(report, name, example, arguments):
    """Runs an example, which exits non-zero if one of its own checks fails."""
    try:
        processes.run(f"example-{example}", [PROGRAMS / "examples" / example, *arguments], SECONDS)
        report.passes(name)
    except processes.ProcessFailure as failure:
        report.fails(name, failure)
