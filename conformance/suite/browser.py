"""Pages in headless Chromium as clients of bowline, over ws:// and wss:// and HTTP/2, and with compression."""

import http.server
import re
import shutil
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from urllib.parse import urlencode

from . import install, processes
from .paths import LOGS, PROGRAMS, SOURCE

EXCHANGES = ["open", "extensions", "text", "multibyte text", "binary", "1 MiB of binary", "1 MiB of text", "close code"]
EXCHANGES += ["next one"]
MODES = {"": [], "-no-takeover": ["--compression=no-takeover"], "-takeover": ["--compression=takeover"]}
SERVERS = {"ws": [], "wss": ["--tls"], "no-takeover": MODES["-no-takeover"], "takeover": MODES["-takeover"]}
CHECKS = [f"{server} {exchange}" for server in SERVERS for exchange in EXCHANGES] + ["foreign origin refused"]

# The checks of `page_server`, by path.
HYPER_SERVERS = {"http2-hyper": "/off", "http2-hyper-no-takeover": "/no-takeover", "http2-hyper-takeover": "/takeover"}
# The checks of `echo_server`.
OUR_SERVERS = {f"http2{mode}": ["--tls", "--http2", *arguments] for mode, arguments in MODES.items()}
HTTP2_EXCHANGES = ["request before", *EXCHANGES]
HTTP2_CHECKS = [f"{server} {exchange}" for server in [*HYPER_SERVERS, *OUR_SERVERS] for exchange in HTTP2_EXCHANGES]
HTTP2_CHECKS += ["closed by the server"]

# The whole takes about 6 s; the first start of Chromium on a cold machine is the slow part.
SECONDS = 60


def run(report):
    chromium = install.chromium()
    run_page_over_http1(report, chromium)
    run_page_over_http2(report, chromium)


def run_page_over_http1(report, chromium):
    with ExitStack() as stack:
        page = stack.enter_context(page_server())
        # bowline checks Origin by default, and this page comes from another port than the servers'.
        ours = ["--allow-origin", page.origin]
        try:
            addresses = {}
            for name, arguments in SERVERS.items():
                scheme = "wss" if "--tls" in arguments else "ws"
                addresses[name] = f"{scheme}://" + stack.enter_context(echo_server(name, [*arguments, *ours]))
            addresses["foreign"] = "ws://" + stack.enter_context(echo_server("strict", []))
            url = f"{page.origin}/?{urlencode(addresses)}"
            process = stack.enter_context(browser(chromium, "browser", url))
            processes.wait_until(page.answered.is_set, process, SECONDS)
        except processes.ProcessFailure as failure:
            report.fails("browser", failure)
        report.takes_over("chromium", page.answer, CHECKS)


def run_page_over_http2(report, chromium):
    """A page from a hyper server with `bowline::accept`; its WebSockets use the same connection.

    `Server` has no fallback here: what the page requests before gets an error, but over HTTP/2.
    """
    logs = {}
    with ExitStack() as stack:
        try:
            command = [PROGRAMS / "page_server", SOURCE / "browser" / "page.html"]
            page = stack.enter_context(processes.server("browser-page-server", command))
            logs["http2-hyper"] = LOGS / "browser-page-server.log"
            addresses = {name: f"wss://{page}{path}" for name, path in HYPER_SERVERS.items()}
            addresses["closing"] = f"wss://{page}/close"
            for name, arguments in OUR_SERVERS.items():
                arguments = [*arguments, "--verbose", "--allow-origin", f"https://{page}"]
                addresses[name] = "wss://" + stack.enter_context(echo_server(name, arguments))
                logs[name] = LOGS / f"browser-echo-server-{name}.log"
            url = f"https://{page}/?{urlencode(addresses)}"
            process = stack.enter_context(browser(chromium, "browser-http2", url))
            finished = lambda: "the page has finished" in logs["http2-hyper"].read_text()
            processes.wait_until(finished, process, SECONDS)
        except processes.ProcessFailure as failure:
            report.fails("browser", failure)
        logs = {name: log.read_text() for name, log in logs.items()}
    report.takes_over("chromium", logs.get("http2-hyper", ""), HTTP2_CHECKS)
    for name, log in logs.items():
        # Each mode has two WebSockets, and the server closes another one.
        websockets = 2 * len(HYPER_SERVERS) + 1 if name == "http2-hyper" else 2
        judge_connections(report, f"chromium: {name} one connection", log, websockets)
    answer = "the page answered the Close frame with 4001"
    if answer in logs.get("http2-hyper", ""):
        report.passes("chromium: the page's answer to a Close frame")
    else:
        report.fails("chromium: the page's answer to a Close frame", "the server did not get it")


def judge_connections(report, name, log, websockets):
    """Checks that all requests came over one HTTP/2 connection, and that this many of them were WebSockets."""
    requests = re.findall(r"^([A-Z]+) \S+ (HTTP/\S+) from (\S+)$", log, re.MULTILINE)
    versions = {version for _, version, _ in requests}
    peers = {peer for _, _, peer in requests}
    opened = sum(method == "CONNECT" for method, _, _ in requests)
    if versions == {"HTTP/2.0"} and len(peers) == 1 and opened == websockets:
        report.passes(name)
    else:
        report.fails(name, f"{opened} WebSockets of {websockets}; {versions} over the connections of {peers}")


def echo_server(name, arguments):
    command = [PROGRAMS / "examples" / "echo_server", "127.0.0.1:0", *arguments]
    return processes.server(f"browser-echo-server-{name}", command)


@contextmanager
def browser(chromium, name, url):
    """Runs Chromium as root, without a display and without state from earlier runs."""
    # Outside of the cache: Chromium creates a Unix socket there, whose path has at most 107 bytes.
    home = tempfile.mkdtemp(prefix="bowline-chromium-")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    # For the self-signed certificate of echo_server.
    command += ["--ignore-certificate-errors", f"--user-data-dir={home}/profile", url]
    try:
        with processes.background(name, command, {"HOME": home, "TMPDIR": home}) as process:
            yield process
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def page_server():
    """Serves the page over HTTP and takes its results by POST."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), PageHandler)
    server.origin = f"http://127.0.0.1:{server.server_port}"
    server.answered = threading.Event()
    server.answer = ""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class PageHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if not self.path.startswith("/?"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write((SOURCE / "browser" / "page.html").read_bytes())

    def do_POST(self):
        self.server.answer = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.send_response(204)
        self.end_headers()
        self.server.answered.set()

    def log_message(self, *_arguments):
        """Keeps requests out of the report."""
