"""A page in headless Chromium as client of bowline's `echo_server`, over ws:// and wss://, and with compression."""

import http.server
import shutil
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from urllib.parse import urlencode

from . import install, processes
from .paths import PROGRAMS, SOURCE

EXCHANGES = ["open", "extensions", "text", "multibyte text", "binary", "1 MiB of binary", "1 MiB of text", "close code"]
SERVERS = {"ws": [], "wss": ["--tls"], "no-takeover": ["--compression=no-takeover"], "takeover": ["--compression=takeover"]}
CHECKS = [f"{server} {exchange}" for server in SERVERS for exchange in EXCHANGES] + ["foreign origin refused"]

# The whole takes about 3 s; the first start of Chromium on a cold machine is the slow part.
SECONDS = 60


def run(report):
    chromium = install.chromium()
    with ExitStack() as stack:
        page = stack.enter_context(page_server())
        # bowline checks Origin by default, and this page comes from another port than theirs.
        ours = ["--allow-origin", page.origin]
        try:
            addresses = {"foreign": "ws://" + stack.enter_context(echo_server("strict", []))}
            for name, arguments in SERVERS.items():
                scheme = "wss" if "--tls" in arguments else "ws"
                addresses[name] = f"{scheme}://" + stack.enter_context(echo_server(name, [*arguments, *ours]))
            url = f"{page.origin}/?{urlencode(addresses)}"
            process = stack.enter_context(browser(chromium, url))
            processes.wait_until(page.answered.is_set, process, SECONDS)
        except processes.ProcessFailure as failure:
            report.fails("browser", failure)
        report.takes_over("chromium", page.answer, CHECKS)


def echo_server(name, arguments):
    command = [PROGRAMS / "examples" / "echo_server", "127.0.0.1:0", *arguments]
    return processes.server(f"browser-echo-server-{name}", command)


@contextmanager
def browser(chromium, url):
    """Chromium as root, without a display, and with nothing kept from run to run."""
    # Not in the cache: Chromium puts a Unix socket there, whose path may have 107 bytes at most.
    home = tempfile.mkdtemp(prefix="bowline-chromium-")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    # For the certificate that echo_server signs itself.
    command += ["--ignore-certificate-errors", f"--user-data-dir={home}/profile", url]
    try:
        with processes.background("browser", command, {"HOME": home, "TMPDIR": home}) as process:
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
