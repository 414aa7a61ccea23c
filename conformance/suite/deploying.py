"""bowline behind proxies and under init systems, with the configurations and programs of bowline/guide/deploying.md."""

import re
import signal
import socket
import ssl
import urllib.request
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from functools import partial
from urllib.parse import urlencode

from . import browser, install, peers, processes, proxies, services
from .paths import PROGRAMS, SOURCE

# The idle timeout of the proxies in the checks that wait for it, and the keepalive interval of the server there.
IDLE_MS, KEEPALIVE_MS = 2000, 300
SECONDS = 60

# HAProxy resets streams that have ended already, which the other checks of this client would report.
CHECKS_OF_H2_CLIENT = ["streamed", "ping from server", "subprotocol", "no subprotocol"]

# The address of `proxied_client`, and the one in its forged header.
CLIENT, FORGED_CLIENT = "127.0.0.7", "203.0.113.66"


def run(report):
    # Before the threads, which would do it at the same time.
    install.deploying()
    for package in (install.chromium, install.websockets, install.ws, install.h2, install.kubernetes_validate):
        package()
    proxies.certificate()
    scenarios = {
        "nginx": test_nginx,
        "haproxy, HTTP/1.1 to the server": partial(test_haproxy, http2=False),
        "haproxy, HTTP/2 to the server": partial(test_haproxy, http2=True),
        "haproxy, PROXY protocol": test_proxy_protocol,
        "apache": test_apache,
        "chromium": test_chromium,
        **services.SCENARIOS,
    }
    # Most of the time is waiting for timeouts.
    with ThreadPoolExecutor(len(scenarios)) as pool:
        futures = [pool.submit(attempt, report, name, scenario) for name, scenario in scenarios.items()]
        try:
            wait(futures)
        except BaseException:
            processes.GROUPS.end_all()
            raise


def attempt(report, name, scenario):
    try:
        scenario(report, name)
    except Exception as failure:  # A thread's exception would be lost.
        report.fails(name, f"{type(failure).__name__}: {failure}")


def test_nginx(report, name):
    idle = {"75s": f"{IDLE_MS}ms"}
    with peers_behind(proxies.nginx, "nginx-peers", idle) as proxy:
        check_messages(report, name, proxy, ["1.1"])
        check_other_clients(report, name, proxy)
        check(report, name, proxy, ["no WebSockets over HTTP/2"], "2")
    with servers_behind(proxies.nginx, "nginx-idle", idle) as (proxy, _):
        check(report, name, proxy, ["cut"])
    with servers_behind(proxies.nginx, "nginx", {}) as (proxy, servers):
        check_requests(report, name, proxy, servers, ["1.1"])
        check_drain(report, name, proxy, servers, proxies.reloaded_nginx)
    with servers_behind(proxies.nginx, "nginx-reload", {"1h": "1s"}) as (proxy, _):
        check_cut_at_reload(report, name, proxy, proxies.reloaded_nginx)

    twelve = {"worker_connections 100000": "worker_connections 12"}
    with servers_behind(proxies.nginx, "nginx-full", twelve) as (proxy, _), ExitStack() as stack:
        for number in range(5):
            stack.enter_context(client_in_background(proxy, "cut", number=number))
        check(report, f"{name} with 12 connections", proxy, ["sixth WebSocket fails"])
        log = processes.output(proxy.process)
        report.judges(f"{name} with 12 connections: log", "worker_connections are not enough" in log, log)

    no_upgrade = {"proxy_set_header Upgrade $http_upgrade;": "", "proxy_set_header Connection $connection_upgrade;": ""}
    with servers_behind(proxies.nginx, "nginx-no-upgrade", no_upgrade) as (proxy, _):
        check(report, f"{name} without Upgrade", proxy, ["refused with 426"])
    believing = {"proxy_set_header X-Forwarded-For $remote_addr;": ""}
    with servers_behind(proxies.nginx, "nginx-forged", believing) as (proxy, servers):
        check(report, f"{name} without X-Forwarded-For", proxy, ["echo"])
        check_address(report, f"{name} without X-Forwarded-For", servers, f"{FORGED_CLIENT} has connected")
    with servers_behind(proxies.nginx, "nginx-no-host", {"proxy_set_header Host $http_host;": ""}) as (proxy, _):
        check(report, f"{name} without Host", proxy, ["page of the same origin refused"])


def test_haproxy(report, name, http2):
    start = partial(proxies.haproxy, http2=http2)
    prefix = "haproxy-h2" if http2 else "haproxy"
    versions = ["1.1", "2"]
    idle = {"timeout tunnel 75s": f"timeout tunnel {IDLE_MS}ms"}
    with peers_behind(start, f"{prefix}-peers", idle) as proxy:
        check_messages(report, name, proxy, versions)
        check_other_clients(report, name, proxy)
        h2_client = [install.h2(), SOURCE / "peers" / "h2_client.py", proxy.url]
        run_checks(report, f"{name}, h2 client", h2_client, CHECKS_OF_H2_CLIENT)
    with servers_behind(start, f"{prefix}-idle", idle) as (proxy, _):
        for version in versions:
            check(report, name, proxy, ["cut"], version)
    no_tunnel = {"timeout tunnel 75s": "", "timeout client 30s": "timeout client 1s"}
    no_tunnel |= {"timeout server 30s": "timeout server 1s"}
    with servers_behind(start, f"{prefix}-no-tunnel", no_tunnel) as (proxy, _):
        check(report, f"{name} without timeout tunnel", proxy, ["cut"])
    with servers_behind(start, prefix, {}) as (proxy, servers):
        check_requests(report, name, proxy, servers, versions, "2.0" if http2 else "1.1")
        check(report, name, proxy, ["many"])
        check_drain(report, name, proxy, servers, proxies.reloaded_haproxy, "2" if http2 else "1.1")
    with servers_behind(start, f"{prefix}-reload", {"hard-stop-after 1h": "hard-stop-after 1s"}) as (proxy, _):
        check_cut_at_reload(report, name, proxy, proxies.reloaded_haproxy)


def test_proxy_protocol(report, name):
    with ExitStack() as stack:
        server = stack.enter_context(services.program("proxy_protocol_server", "haproxy-tcp-server", ["127.0.0.1:0"]))
        proxy = stack.enter_context(proxies.haproxy_in_tcp_mode("haproxy-tcp", server.address))
        check(report, name, proxy, ["echo"])
        check_address(report, name, [server], f"{CLIENT} has connected")


def test_apache(report, name):
    idle = {"Timeout 75": f"Timeout {IDLE_MS // 1000}"}
    with peers_behind(proxies.apache, "apache-peers", idle) as proxy:
        check_messages(report, name, proxy, ["1.1"])
        check_other_clients(report, name, proxy)
    with servers_behind(proxies.apache, "apache-idle", idle) as (proxy, _):
        check(report, name, proxy, ["cut"])
    with servers_behind(proxies.apache, "apache", {}) as (proxy, servers):
        check_requests(report, name, proxy, servers, ["1.1"])
    check_threads_of_apache(report, name)
    with servers_behind(proxies.apache, "apache-no-upgrade", {" upgrade=websocket": ""}) as (proxy, _):
        check(report, f"{name} without upgrade", proxy, ["refused with 426"])
    with servers_behind(proxies.apache, "apache-no-host", {"ProxyPreserveHost On": ""}) as (proxy, _):
        check(report, f"{name} without ProxyPreserveHost", proxy, ["page of the same origin refused"])


def check_threads_of_apache(report, name):
    """Checks that a WebSocket occupies a thread: while two have both threads, a third client waits."""
    two = {"500": 2, "ServerLimit          20": "ServerLimit 1", "10000": 2}
    with servers_behind(partial(proxies.apache, threads=two), "apache-threads", {}) as (proxy, _):
        with ExitStack() as stack:
            for number in range(2):
                stack.enter_context(client_in_background(proxy, "cut", number=number))
            tls = ssl.create_default_context(cafile=proxies.certificate()[0])
            third = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port), timeout=1))
            try:
                tls.wrap_socket(third, server_hostname="localhost")
                report.fails(f"{name}: a third client waits for a thread", "it does not")
            except TimeoutError:
                report.passes(f"{name}: a third client waits for a thread")
        check(report, f"{name}, with a free thread", proxy, ["echo"])


def test_chromium(report, name):
    """Lets a page in Chromium connect through all proxies, through HAProxy over both versions of HTTP."""
    # The page first requests something from servers with such a name, so that WebSockets can use that connection.
    starts = {"nginx": proxies.nginx, "apache": proxies.apache, "haproxy": proxies.haproxy}
    starts["http2-haproxy"] = logging_haproxy
    with ExitStack() as stack:
        page = stack.enter_context(browser.page_server())
        command = [PROGRAMS / "peer_server", "--allow-origin", page.origin]
        address = stack.enter_context(processes.server("deploying-chromium-server", command))
        running = {}
        for proxy_name, start in starts.items():
            running[proxy_name] = stack.enter_context(start(f"chromium-{proxy_name}", [address, address], {}))
        query = urlencode({proxy_name: f"{proxy.url}/echo" for proxy_name, proxy in running.items()})
        chromium = browser.browser(install.chromium(), "deploying-chromium", f"{page.origin}/?{query}")
        process = stack.enter_context(chromium)
        processes.wait_until(page.answered.is_set, process, SECONDS)
        expected = [f"{proxy_name} {exchange}" for proxy_name in starts for exchange in browser.EXCHANGES]
        report.takes_over(name, page.answer, [*expected, "http2-haproxy request before"])

        # HAProxy logs a WebSocket over HTTP/2 as if it were one over HTTP/1.1, after its end.
        http2 = running["http2-haproxy"].process
        over_http2 = lambda: re.findall(r' 101 .*"GET \S+/echo HTTP/2.0"', processes.output(http2))
        processes.wait_until(lambda: len(over_http2()) == 2, http2, SECONDS)
        report.passes(f"{name}: HTTP/2 to haproxy")


@contextmanager
def logging_haproxy(name, servers, changes):
    """Runs HAProxy with a log of requests."""
    log = {"global\n": "global\n    log stdout format raw local0\n"}
    log |= {"defaults\n": "defaults\n    log global\n    option httplog\n"}
    with proxies.haproxy(name, servers, {**changes, **log}) as proxy:
        yield proxy


@contextmanager
def peers_behind(start, name, changes):
    """Runs a proxy before the peer server, with a short keepalive interval."""
    command = [PROGRAMS / "peer_server", "--keepalive", KEEPALIVE_MS]
    with processes.server(f"deploying-{name}-server", command) as address:
        with start(f"deploying-{name}", [address, address], changes) as proxy:
            yield proxy


@contextmanager
def servers_behind(start, name, changes):
    """Runs a proxy before two servers of the page."""
    with ExitStack() as stack:
        program = partial(services.program, "deployed_server", arguments=["127.0.0.1:0"])
        servers = [stack.enter_context(program(f"{name}-server-{letter}")) for letter in "ab"]
        addresses = [server.address for server in servers]
        yield stack.enter_context(start(f"deploying-{name}", addresses, changes)), servers


def check_messages(report, name, proxy, versions):
    for version in versions:
        label = f"{name}, client over HTTP/{version}"
        http2 = ["--http2"] if version == "2" else []
        run_checks(report, label, [PROGRAMS / "peer_client", *http2, proxy.url], peers.CHECKS)
        check(report, label, proxy, ["outlives the idle timeout"], version, "/echo")


def check_other_clients(report, name, proxy):
    folder = SOURCE / "peers"
    websockets = [install.websockets(), folder / "websockets_client.py", proxy.url]
    run_checks(report, f"{name}, websockets client", websockets, peers.CHECKS)
    ws = ["node", folder / "ws_client.js", proxy.url]
    run_checks(report, f"{name}, ws client", ws, peers.CHECKS_OF_WS, install.ws())


def check_requests(report, name, proxy, servers, versions, version_of_server="1.1"):
    """Checks the Origin, the client's address, and an answer to a request that asks for no WebSocket."""
    for version in versions:
        label = f"{name}, client over HTTP/{version}"
        check(report, label, proxy, ["echo", "page of the same origin", "page of another origin refused"], version)
        check_address(report, label, servers, f"{CLIENT} has connected over HTTP/{version_of_server}")
    tls = ssl.create_default_context(cafile=proxies.certificate()[0])
    with urllib.request.urlopen(f"https://localhost:{proxy.port}/livez", timeout=10, context=tls) as response:
        report.judges(f"{name}: /livez", response.read() == b"ok", "the answer is another one")


def check_address(report, name, servers, expected):
    logs = "".join(processes.output(server.process) for server in servers)
    lines = [line for line in logs.splitlines() if "has connected" in line]
    right = lines and all(line.startswith(expected) for line in lines)
    report.judges(f"{name}: the client's address", right, f"the server printed {lines}")


def check_drain(report, name, proxy, servers, reload, version="1.1"):
    """Reloads the proxy and stops a server. A client from before is told, and new clients notice neither."""
    before = [connections(server) for server in servers]
    with ExitStack() as stack:
        client = stack.enter_context(client_in_background(proxy, "closed for a restart", version))
        [server] = [server for server, count in zip(servers, before) if connections(server) > count]
        proxy = stack.enter_context(reload(proxy))
        server.process.send_signal(signal.SIGTERM)
        echo = [*client_command(proxy, version), "echo"]
        outputs = []
        # Three more after the server's end.
        after = iter(range(3))
        while client.poll() is None or next(after, None) is not None:
            outputs.append(processes.run(f"{proxy.name}-new-client", echo, SECONDS, trust()))
        failures = [output for output in outputs if output != "ok echo\n"]
        report.takes_over(name, processes.output(client), ["closed for a restart"])
        report.judges(f"{name}: new clients during a drain", not failures, f"{len(outputs)} clients: {failures}")
        report.judges(f"{name}: exit", server.process.wait(SECONDS) == 0, "the status is not 0")


def check_cut_at_reload(report, name, proxy, reload):
    with ExitStack() as stack:
        client = stack.enter_context(client_in_background(proxy, "cut"))
        stack.enter_context(reload(proxy))
        client.wait(SECONDS)
        report.takes_over(f"{name}, after a reload", processes.output(client), ["cut"])


@contextmanager
def client_in_background(proxy, name, version="1.1", number=1):
    """Runs a client that stays connected for a while."""
    command = client_command(proxy, version) + [name]
    with processes.background(f"{proxy.name}-waiting-client-{number}", command, trust()) as client:
        processes.wait_until(lambda: "connected" in processes.output(client), client, SECONDS)
        yield client


def connections(server):
    return processes.output(server.process).count("has connected")


def check(report, name, proxy, checks, version="1.1", path=""):
    run_checks(report, name, client_command(proxy, version, path), checks)


def client_command(proxy, version, path=""):
    http2 = ["--http2"] if version == "2" else []
    return [PROGRAMS / "proxied_client", "--idle-timeout", IDLE_MS, *http2, proxy.url + path]


def run_checks(report, name, command, checks, environment={}):
    """Runs a client that trusts the proxies' certificate."""
    log = f"deploying-{name}-client".replace(", ", "-").replace(" ", "-").replace("/", "")
    output = processes.run(log, [*command, *checks], SECONDS, {**trust(), **environment})
    report.takes_over(name, output, checks)


def trust():
    """Returns the environment in which clients trust the proxies' certificate."""
    certificate, _ = proxies.certificate()
    return {"SSL_CERT_FILE": str(certificate), "NODE_EXTRA_CA_CERTS": str(certificate)}
