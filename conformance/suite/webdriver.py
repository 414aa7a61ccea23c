"""Pages in headless Chromium that a test controls, by the WebDriver protocol of Debian's `chromium-driver`."""

import base64
import json
import shutil
import tempfile
import urllib.error
import urllib.request
from contextlib import contextmanager

from . import install, processes

# Pages that are not in front would be slowed down.
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
ARGUMENTS += ["--disable-background-timer-throttling", "--disable-backgrounding-occluded-windows"]
ARGUMENTS += ["--disable-renderer-backgrounding", "--window-size=1180,760"]

SECONDS = 60


class Browser:
    """A browser with several windows."""

    def __init__(self, url, process):
        self.url, self.process = url, process

    def open(self, url):
        """Opens a page in a window of its own."""
        handle = self.command("POST", "/window/new", {"type": "window"})["handle"]
        page = Page(self, handle)
        page.command("POST", "/url", {"url": url})
        return page

    def command(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise processes.ProcessFailure(self.process, f"refused {path}: {error.read().decode()}") from None


class Page:
    """A page in a window."""

    def __init__(self, browser, handle):
        self.browser, self.handle = browser, handle

    def command(self, method, path, body):
        self.browser.command("POST", "/window", {"handle": self.handle})
        return self.browser.command(method, path, body)

    def run(self, script, *arguments):
        """Runs a function body in the page, and returns its result."""
        return self.command("POST", "/execute/sync", {"script": script, "args": arguments})

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.command("GET", "/screenshot", None)))


@contextmanager
def browser():
    """Runs the driver and a browser without state from earlier runs."""
    driver, chromium = install.chromium_driver()
    port = processes.free_port()
    # Outside of the cache: Chromium creates a Unix socket there, whose path has at most 107 bytes.
    home = tempfile.mkdtemp(prefix="bowline-chromium-")
    command = [driver, f"--port={port}"]
    options = {"binary": shutil.which(chromium), "args": [*ARGUMENTS, f"--user-data-dir={home}/profile"]}
    capabilities = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
    try:
        with processes.background("chromedriver", command, {"HOME": home, "TMPDIR": home}) as process:
            processes.wait_until(lambda: processes.is_listening(port), process, SECONDS)
            url = f"http://127.0.0.1:{port}"
            session = Browser(url, process).command("POST", "/session", capabilities)["sessionId"]
            yield Browser(f"{url}/session/{session}", process)
    finally:
        shutil.rmtree(home, ignore_errors=True)
