"""nginx, HAProxy and Apache with the configurations of bowline/guide/deploying.md."""

import contextlib
import functools
import signal

from . import page, processes
from .paths import CACHE

FOLDER = CACHE / "deploying"
SECONDS = 20

APACHE_MODULES = ["mpm_event", "authz_core", "socache_shmcb", "ssl", "proxy", "proxy_http"]
# What the page assumes about the machine.
PAGE_SERVERS = ["127.0.0.1:8080", "127.0.0.1:8081"]
PAGE_CERTIFICATE, PAGE_KEY = "/etc/ssl/example.com.pem", "/etc/ssl/example.com.key"

# The lines on numbers of connections, which fit no small machine.
SMALL_NGINX = {"worker_rlimit_nofile 200000": "worker_rlimit_nofile 2000"}
SMALL_NGINX |= {"worker_connections 100000": "worker_connections 500"}
SMALL_HAPROXY = {"maxconn 100000": "maxconn 500"}


class Proxy:
    """A running proxy, at `url` for clients."""

    def __init__(self, name, port, process):
        self.name, self.process = name, process
        self.port, self.url = port, f"wss://localhost:{port}"


@functools.cache
def certificate():
    """Returns the paths of a certificate for localhost, and of its key. The first file contains the key as well."""
    certificate, key = FOLDER / "certificate.pem", FOLDER / "key.pem"
    settings = "[req]\ndistinguished_name=name\nprompt=no\nx509_extensions=extensions\n"
    settings += "[name]\nCN=localhost\n[extensions]\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "7", "-config", write("certificate.cnf", settings), "-keyout", key, "-out", certificate]
    processes.run("deploying-openssl", command, SECONDS)
    certificate.write_text(certificate.read_text() + key.read_text())
    return certificate, key


@contextlib.contextmanager
def nginx(name, servers, changes):
    """Runs nginx before two servers, with `changes` to the page's text."""
    port, folder = processes.free_port(), FOLDER / name
    certificate_file, key = certificate()
    site, main = page.blocks("nginx", "nginx")
    text = f"daemon off;\npid {folder}/pid;\nerror_log stderr notice;\n{main}\nhttp {{\naccess_log off;\n{site}}}\n"
    ours = {"listen 443": f"listen {port}", PAGE_CERTIFICATE: certificate_file, PAGE_KEY: key}
    changes = {**SMALL_NGINX, **changes, **ours, **dict(zip(PAGE_SERVERS, servers))}
    path = write(f"{name}/nginx.conf", page.adapt(text, changes))
    with running(name, port, ["nginx", "-e", "stderr", "-c", path]) as proxy:
        yield proxy


@contextlib.contextmanager
def reloaded_nginx(proxy):
    """Makes nginx read its configuration again. Old processes end when their connections have ended."""
    proxy.process.send_signal(signal.SIGHUP)
    done = lambda: "gracefully shutting down" in processes.output(proxy.process)
    processes.wait_until(done, proxy.process, SECONDS)
    yield proxy


@contextlib.contextmanager
def haproxy(name, servers, changes, http2=False):
    """Runs HAProxy before two servers, over HTTP/1.1 or HTTP/2."""
    [text] = page.blocks("HAProxy", "haproxy")
    if http2:
        [backend] = page.blocks("HTTP/2 to the server", "haproxy")
        text = text[: text.index("\nbackend chat\n") + 1] + backend
    with haproxy_with(name, text, {**SMALL_HAPROXY, **changes}, servers) as proxy:
        yield proxy


@contextlib.contextmanager
def haproxy_in_tcp_mode(name, server):
    """Runs HAProxy before one server, which receives the PROXY protocol."""
    [text] = page.blocks("The PROXY protocol", "haproxy")
    with haproxy_with(name, text, {}, [server]) as proxy:
        yield proxy


@contextlib.contextmanager
def haproxy_with(name, text, changes, servers):
    port = processes.free_port()
    certificate_file, _ = certificate()
    ours = {"bind :443": f"bind :{port}", PAGE_CERTIFICATE: certificate_file}
    path = write(f"{name}.cfg", page.adapt(text, {**changes, **ours, **dict(zip(PAGE_SERVERS, servers))}))
    with running(name, port, ["haproxy", "-db", "-f", path]) as proxy:
        yield proxy


@contextlib.contextmanager
def reloaded_haproxy(proxy):
    """Starts another HAProxy that takes over, which is what a reload does."""
    command = ["haproxy", "-db", "-f", FOLDER / f"{proxy.name}.cfg", "-sf", proxy.process.pid]
    with processes.background(f"{proxy.name}-reloaded", command) as process:
        ready = lambda: "stopped" in processes.output(proxy.process).lower()
        processes.wait_until(ready, process, SECONDS)
        yield Proxy(proxy.name, proxy.port, process)


@contextlib.contextmanager
def apache(name, servers, changes, threads=None):
    """Runs Apache before one server. `threads` are changes to the page's second block, which is left out otherwise."""
    port, folder = processes.free_port(), FOLDER / name
    certificate_file, key = certificate()
    site, limits = page.blocks("Apache", "apache")
    text = f"ServerRoot {folder}\nDefaultRuntimeDir {folder}\nPidFile {folder}/pid\nErrorLog /dev/stderr\n"
    text += f"ServerName localhost\nUser www-data\nGroup www-data\nListen {port}\n"
    for module in APACHE_MODULES:
        text += f"LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so\n"
    ours = {"*:443": f"*:{port}", PAGE_CERTIFICATE: certificate_file, PAGE_KEY: key, PAGE_SERVERS[0]: servers[0]}
    site = page.adapt(site, {**changes, **ours})
    path = write(f"{name}/apache.conf", text + (page.adapt(limits, threads) if threads else "") + site)
    with running(name, port, ["apache2", "-DFOREGROUND", "-f", path]) as proxy:
        yield proxy


@contextlib.contextmanager
def running(name, port, command):
    with processes.background(name, command) as process:
        processes.wait_until(lambda: processes.is_listening(port), process, SECONDS)
        yield Proxy(name, port, process)


def write(name, text):
    path = FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
