"""Pages in headless Chromium as clients of bowline: over ws:// and wss://, HTTP/2 and HTTP/3, and with compression."""

import base64
import hashlib
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

# The checks of `http3_page_server`, by path.
HTTP3_SERVERS = {"http3": "/off", "http3-no-takeover": "/no-takeover", "http3-takeover": "/takeover"}
HTTP3_CHECKS = [f"{server} {exchange}" for server in HTTP3_SERVERS for exchange in ["page", *EXCHANGES]]
HTTP3_CHECKS += ["closed by the server"]

# The whole takes about 6 s; the first start of Chromium on a cold machine is the slow part.
SECONDS = 60


def run(report):
    chromium = install.chromium()
    run_page_over_http1(report, chromium)
    run_page_over_http2(report, chromium)
    run_page_over_http3(report, chromium)


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


def run_page_over_http3(report, chromium):
    """A page whose WebSockets use the same QUIC connection. Chromium does so only when told to."""
    log = ""
    with ExitStack() as stack:
        results = stack.enter_context(page_server())
        try:
            command = [PROGRAMS / "http3_page_server", SOURCE / "browser" / "page.html"]
            page = stack.enter_context(processes.server("browser-http3-page-server", command))
            log_file = LOGS / "browser-http3-page-server.log"
            public_key = bytes.fromhex(re.search(r"^public key (\w+)$", log_file.read_text(), re.MULTILINE)[1])
            pin = base64.b64encode(hashlib.sha256(public_key).digest()).decode()
            quic = ["--enable-quic", f"--origin-to-force-quic-on={page}", "--enable-features=EnableWebsocketsOverHttp3"]
            # A certificate of QUIC must be one of the list: `--ignore-certificate-errors` is not enough.
            quic += [f"--ignore-certificate-errors-spki-list={pin}"]
            addresses = {name: f"wss://{page}{path}" for name, path in HTTP3_SERVERS.items()}
            addresses |= {"closing": f"wss://{page}/close", "report": results.origin}
            url = f"https://{page}/?{urlencode(addresses)}"
            process = stack.enter_context(browser(chromium, "browser-http3", url, quic))
            processes.wait_until(results.answered.is_set, process, SECONDS)
            # The server may still be at the end of the last one.
            clean = lambda: log_file.read_text().count("the page has closed with 4003\n")
            processes.wait_until(lambda: clean() == 2 * len(HTTP3_SERVERS), process, SECONDS)
            report.passes("chromium: http3 clean closes")
            log = log_file.read_text()
        except processes.ProcessFailure as failure:
            report.fails("browser", failure)
    report.takes_over("chromium", results.answer, HTTP3_CHECKS)
    # Each mode has two WebSockets, and the server closes another one.
    websockets = 2 * len(HTTP3_SERVERS) + 1
    judge_connections(report, "chromium: http3 one connection", log, websockets, "HTTP/3.0")
    answer = "the page answered the Close frame with 4001" in log
    report.judges("chromium: http3 the page's answer to a Close frame", answer, "the server did not get it")


def judge_connections(report, name, log, websockets, expected="HTTP/2.0"):
    """Checks that all requests came over one connection of this version, and that this many were WebSockets."""
    requests = re.findall(r"^([A-Z]+) \S+ (HTTP/\S+) from (\S+)$", log, re.MULTILINE)
    versions = {version for _, version, _ in requests}
    peers = {peer for _, _, peer in requests}
    opened = sum(method == "CONNECT" for method, _, _ in requests)
    if versions == {expected} and len(peers) == 1 and opened == websockets:
        report.passes(name)
    else:
        report.fails(name, f"{opened} WebSockets of {websockets}; {versions} over the connections of {peers}")


def echo_server(name, arguments):
    command = [PROGRAMS / "examples" / "echo_server", "127.0.0.1:0", *arguments]
    return processes.server(f"browser-echo-server-{name}", command)


@contextmanager
def browser(chromium, name, url, quic=("--disable-quic", "--ignore-certificate-errors")):
    """Runs Chromium as root, without a display and without state from earlier runs.

    Without other options for QUIC, any certificate over TLS is accepted, such as the self-signed one of echo_server.
    """
    # Outside of the cache: Chromium creates a Unix socket there, whose path has at most 107 bytes.
    home = tempfile.mkdtemp(prefix="bowline-chromium-")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", *quic]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={home}/profile", url]
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
