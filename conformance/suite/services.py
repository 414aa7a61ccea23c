"""The programs of bowline/guide/deploying.md under systemd and Kubernetes, as far as tests can stand in for these two."""

import contextlib
import re
import shutil
import signal
import socket
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from . import install, page, processes
from .paths import PROGRAMS
from .proxies import write

SECONDS = 30
WATCHDOG_SECONDS = 0.5
# The limit of descriptors in the check that exceeds it.
DESCRIPTORS = 40
# More than the queue that tokio's `TcpListener::bind` asks for.
QUEUED = 1500


class Program:
    """A running program of the page."""

    def __init__(self, process, address):
        self.process, self.address = process, address


@contextlib.contextmanager
def program(binary, log, arguments, prefix=()):
    """Runs a program of the page that listens by itself, by a command that begins with `prefix`."""
    with processes.background(f"deploying-{log}", [*prefix, PROGRAMS / binary, *arguments]) as process:
        listening = lambda: re.search(r"listening on (\S+)\n", processes.output(process))
        yield Program(process, processes.wait_until(listening, process, SECONDS)[1])


def test_units(report, name):
    """Lets systemd check the units of the page."""
    socket_unit, service = page.blocks("systemd", "ini")
    files = [write("chat.socket", socket_unit)]
    files.append(write("chat.service", page.adapt(service, {"/usr/local/bin/chat": PROGRAMS / "systemd_server"})))
    output = processes.run("deploying-systemd-analyze", ["systemd-analyze", "verify", "--man=no", *files], SECONDS)
    # Unknown settings and sections are warnings.
    warnings = [line for line in output.splitlines() if "chat." in line]
    report.judges(f"{name}: units", not warnings, "; ".join(warnings))

    [text] = page.blocks("systemd", "rust,no_run")
    patience = int(re.search(r"TimeoutStopSec=(\d+)", service)[1])
    report.judges(f"{name}: TimeoutStopSec", longest_drain(text) < patience, "it is too short")


def test_activation(report, name):
    """Runs the server under systemd's own tool, and receives the messages to systemd."""
    port = processes.free_port()
    with notifications() as messages:
        command = ["systemd-socket-activate", "-l", f"127.0.0.1:{port}"]
        command += ["-E", f"NOTIFY_SOCKET={messages.path}", "-E", f"WATCHDOG_USEC={int(WATCHDOG_SECONDS * 1e6)}"]
        with processes.background("deploying-socket-activate", [*command, PROGRAMS / "systemd_server"]) as server:
            processes.wait_until(lambda: "Listening" in processes.output(server), server, SECONDS)
            echo(report, f"{name}: socket activation", port)
            report_message(report, name, messages, "READY=1")
            for _ in range(3):
                report_message(report, name, messages, "WATCHDOG=1")
            server.send_signal(signal.SIGTERM)
            report_message(report, name, messages, "STOPPING=1")
            report.judges(f"{name}: exit", server.wait(SECONDS) == 0, "the status is not 0")


def test_restart(report, name):
    """Restarts the server while its socket stays open, as systemd does. A client that comes in between is served."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener, contextlib.ExitStack() as stack:
        port = listener.getsockname()[1]
        with activated("first", listener) as server:
            echo(report, f"{name}: before", port)
            server.send_signal(signal.SIGTERM)
            report.judges(f"{name}: exit", server.wait(SECONDS) == 0, "the status is not 0")
        command = [PROGRAMS / "proxied_client", f"ws://127.0.0.1:{port}", "echo"]
        client = stack.enter_context(processes.background("deploying-systemd-between", command))
        stack.enter_context(activated("second", listener))
        client.wait(SECONDS)
        report.takes_over(f"{name}: a client in between", processes.output(client), ["echo"])


@contextlib.contextmanager
def activated(log, listener):
    """Runs the server with a socket as its descriptor 3."""
    script = f'exec 3<&{listener.fileno()}; exec env LISTEN_FDS=1 LISTEN_PID=$$ "$0"'
    command = ["bash", "-c", script, PROGRAMS / "systemd_server"]
    with processes.background(f"deploying-systemd-{log}", command, descriptors=[listener.fileno()]) as server:
        yield server


class Messages:
    """The receiver of the messages to systemd."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(10)

    def next(self):
        return self.socket.recv(4096).decode().strip()


@contextlib.contextmanager
def notifications():
    # The path of a socket has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="bowline-"))
    messages = Messages(folder / "notify")
    try:
        yield messages
    finally:
        messages.socket.close()
        shutil.rmtree(folder)


def report_message(report, name, messages, expected):
    """Waits for a message. Messages of the watchdog may come before others."""
    message = messages.next()
    while message == "WATCHDOG=1" != expected:
        message = messages.next()
    report.judges(f"{name}: {expected}", message == expected, f"the message is {message}")


def test_descriptors(report, name):
    """Opens more connections than the server may have descriptors."""
    limited = ["bash", "-c", f'ulimit -n {DESCRIPTORS}; exec "$0" "$@"']
    with program("deployed_server", "descriptors-server", ["127.0.0.1:0"], limited) as server:
        with connections(server, DESCRIPTORS):
            reported = lambda: "Too many open files" in processes.output(server.process)
            processes.wait_until(reported, server.process, SECONDS)
    report.passes(f"{name}: the server reports it")


def test_kubernetes(report, name):
    """Checks the manifest with the schemas of Kubernetes, and does with the server what Kubernetes does."""
    [manifest] = page.blocks("Kubernetes", "yaml")
    validate = [install.kubernetes_validate(), "--strict", write("chat.yaml", manifest)]
    processes.run("deploying-kubernetes", validate, SECONDS)
    report.passes(f"{name}: manifest")

    grace = int(re.search(r"terminationGracePeriodSeconds: (\d+)", manifest)[1])
    ready, live = re.findall(r"httpGet: { path: (\S+), port: 8080 }", manifest)
    period = int(re.search(r"readinessProbe:.*?periodSeconds: (\d+)", manifest, re.DOTALL)[1])
    arguments = page.adapt(re.search(r'args: \["(.*)"\]', manifest)[1], {"8080": 0}).split()
    with program("deployed_server", "kubernetes-server", arguments) as server:
        port = server.address.rpartition(":")[2]
        statuses = [probe(port, ready), probe(port, live)]
        report.judges(f"{name}: probes of a new server", statuses == [200, 200], statuses)
        server.process.send_signal(signal.SIGTERM)
        processes.wait_until(lambda: probe(port, ready) == 503, server.process, period)
        report.judges(f"{name}: probe of a server that drains", probe(port, live) == 200, "it failed")
        status = server.process.wait(grace)
        report.judges(f"{name}: exit within the grace period", status == 0, f"the status is {status}")
    [text] = page.blocks("The server", "rust,no_run")
    report.judges(f"{name}: terminationGracePeriodSeconds", longest_drain(text) < grace, "it is too short")


def longest_drain(text):
    """Returns the seconds that a program waits before its shutdown, and the deadline of the shutdown."""
    times = re.findall(r"(?:sleep|ShutdownOptions::new)\(Duration::from_secs\((\d+)\)\)", text)
    return sum(map(int, times))


def probe(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def test_kernel(report, name):
    """Checks the names of the kernel's settings, and the queue of connections that the server asks for."""
    [settings] = page.blocks("Kernel settings", "sysctl")
    for line in settings.splitlines():
        setting, values = line.split(" = ")
        path = Path("/proc/sys", setting.replace(".", "/"))
        # A container sees only the settings that it has for itself.
        now = path.read_text().split() if path.exists() else ["a value"] * len(values.split())
        report.judges(f"{name}: {setting}", len(now) == len(values.split()), f"the value is {now}")

    with program("deployed_server", "kernel-server", ["127.0.0.1:0"]) as server:
        server.process.send_signal(signal.SIGSTOP)
        with connections(server, QUEUED):
            report.passes(f"{name}: {QUEUED} connections wait in the queue")


@contextlib.contextmanager
def connections(server, number):
    host, port = server.address.split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=SECONDS))
        yield


def echo(report, name, port):
    command = [PROGRAMS / "proxied_client", f"ws://127.0.0.1:{port}", "echo"]
    log = f"deploying-{name}".replace(": ", "-").replace(" ", "-")
    report.takes_over(name, processes.run(log, command, SECONDS), ["echo"])



SCENARIOS = {
    "systemd units": test_units,
    "systemd": test_activation,
    "systemd, restart": test_restart,
    "systemd, LimitNOFILE": test_descriptors,
    "kubernetes": test_kubernetes,
    "kernel": test_kernel,
}
