"""Installs the dependencies of the suites, once, below `CACHE`. Debian's packages go into the system, through apt."""

import hashlib
import re
import shutil
import sys
from pathlib import Path

from . import processes
from .paths import CACHE, WORKSPACE

WEBSOCKETS = "17.4"
WS = "8.23.0"
KUBERNETES_VALIDATE = "1.37.0"
HTTP2_PACKAGES = ["h2==4.4.1", "wsproto==1.3.2"]
# The peers over HTTP/3 share code with those over HTTP/2.
HTTP3_PACKAGES = ["aioquic==1.7.2", *HTTP2_PACKAGES]

# The last versions that run on Python 2, and the ones that `autobahntestsuite` was written for.
AUTOBAHN_PIP = ["pip==20.3.4", "setuptools==44.1.1"]
AUTOBAHN_BUILD_TOOLS = ["setuptools==44.1.1", "wheel==0.37.1", "incremental==21.3.0"]
AUTOBAHN_PACKAGES = """
    autobahntestsuite==0.8.2 autobahn==0.10.9 txaio==2.1.0 Twisted==20.3.0 zope.interface==5.5.2
    incremental==21.3.0 six==1.17.0 constantly==15.1.0 Automat==20.2.0 hyperlink==21.0.0 attrs==21.4.0
    PyHamcrest==1.10.1 idna==2.10 typing==3.10.0.0 klein==17.10.0 Werkzeug==0.16.1 MarkupSafe==1.1.1
    Jinja2==2.11.3 setuptools==44.1.1 unittest2==1.1.0 traceback2==1.4.0 linecache2==1.0.0 argparse==1.4.0
    u-msgpack-python==2.7.1
""".split()
# Debian 11 is the last with an interpreter for Python 2 that brings all its libraries.
PYPY_SUITE = "bullseye"
PYPY_PACKAGES = ["pypy", "pypy-lib", "pypy-dev", "libffi7", "libssl1.1"]

PIP_ENVIRONMENT = {"PIP_NO_CACHE_DIR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_WARN_SCRIPT_LOCATION": "1"}
MINUTES = 60


def websockets():
    """The `websockets` package of PyPI: the interpreter that can import it."""

    def install(folder):
        make_virtual_environment(folder)
        pip = [folder / "bin" / "python", "-m", "pip", "install", f"websockets=={WEBSOCKETS}"]
        processes.run("install-websockets", pip, 5 * MINUTES, PIP_ENVIRONMENT)

    return cached("websockets", WEBSOCKETS, install) / "bin" / "python"


def h2():
    """The `h2` and `wsproto` packages of PyPI: the interpreter that can import them."""

    def install(folder):
        make_virtual_environment(folder)
        pip = [folder / "bin" / "python", "-m", "pip", "install", *HTTP2_PACKAGES]
        processes.run("install-h2", pip, 5 * MINUTES, PIP_ENVIRONMENT)

    return cached("h2", repr(HTTP2_PACKAGES), install) / "bin" / "python"


def h3():
    """The `aioquic` and `wsproto` packages of PyPI: the interpreter that can import them."""

    def install(folder):
        make_virtual_environment(folder)
        pip = [folder / "bin" / "python", "-m", "pip", "install", *HTTP3_PACKAGES]
        processes.run("install-h3", pip, 5 * MINUTES, PIP_ENVIRONMENT)

    return cached("h3", repr(HTTP3_PACKAGES), install) / "bin" / "python"


def ws():
    """The `ws` package of npm: the environment in which `node` can import it."""
    apt_install({"node": "nodejs", "npm": "npm"})

    def install(folder):
        npm = ["npm", "install", "--prefix", folder, "--cache", folder / "cache", "--no-audit", "--no-fund", f"ws@{WS}"]
        processes.run("install-ws", npm, 5 * MINUTES)

    return {"NODE_PATH": str(cached("ws", WS, install) / "node_modules")}


def chromium():
    """Debian's Chromium: the command."""
    apt_install({"chromium": "chromium"})
    return "chromium"


def chromium_driver():
    """Debian's driver for Chromium: the commands of both."""
    apt_install({"chromedriver": "chromium-driver", "chromium": "chromium"})
    return "chromedriver", "chromium"


def demo():
    """Debian's HAProxy, Redis and NATS."""
    apt_install({command: command for command in ["haproxy", "redis-server", "nats-server"]})


def deploying():
    """Debian's proxies, and the tools of systemd. The package `apache2-bin` starts no service."""
    commands = {"nginx": "nginx", "haproxy": "haproxy", "apache2": "apache2-bin", "openssl": "openssl"}
    apt_install({**commands, "systemd-socket-activate": "systemd"})


def kubernetes_validate():
    """The `kubernetes-validate` package of PyPI, which contains the schemas of Kubernetes: the command."""

    def install(folder):
        make_virtual_environment(folder)
        pip = [folder / "bin" / "python", "-m", "pip", "install", f"kubernetes-validate=={KUBERNETES_VALIDATE}"]
        processes.run("install-kubernetes-validate", pip, 5 * MINUTES, PIP_ENVIRONMENT)

    return cached("kubernetes-validate", KUBERNETES_VALIDATE, install) / "bin" / "kubernetes-validate"


def autobahn():
    """Autobahn|Testsuite: the command that runs its `wstest` and the environment that it needs."""
    versions = repr([PYPY_SUITE, PYPY_PACKAGES, AUTOBAHN_PIP, AUTOBAHN_BUILD_TOOLS, AUTOBAHN_PACKAGES])
    folder = cached("autobahn", versions, install_autobahn)
    environment = {**pypy_environment(folder), "PYTHONPATH": str(folder / "packages")}
    return [folder / "pypy" / "usr" / "bin" / "pypy"], environment


def install_autobahn(folder):
    unpack_pypy(folder)
    build_tools, packages, wheels = folder / "build-tools", folder / "packages", folder / "wheels"

    # A current pip can download a pip for Python 2, which then runs from its wheel.
    today = folder / "pip"
    make_virtual_environment(today)
    download = [today / "bin" / "python", "-m", "pip", "download", "--python-version", "2.7", "--implementation", "py"]
    download += ["--only-binary=:all:", "--no-deps", "--dest", wheels, *AUTOBAHN_PIP]
    processes.run("install-autobahn-pip", download, 5 * MINUTES, PIP_ENVIRONMENT)

    pip_wheel = next(wheels.glob("pip-*.whl"))
    install = [folder / "pypy" / "usr" / "bin" / "pypy", pip_wheel / "pip", "install", "--no-compile"]
    environment = {**PIP_ENVIRONMENT, **pypy_environment(folder)}
    processes.run(
        "install-autobahn-build-tools",
        [*install, "--target", build_tools, *AUTOBAHN_BUILD_TOOLS],
        10 * MINUTES,
        environment,
    )
    processes.run(
        "install-autobahn-packages",
        [*install, "--no-build-isolation", "--no-deps", "--target", packages, *AUTOBAHN_PACKAGES],
        15 * MINUTES,
        {**environment, "PYTHONPATH": str(build_tools)},
    )
    # A .pth file declares this package, and PYTHONPATH ignores .pth files.
    (packages / "zope" / "__init__.py").touch()


def unpack_pypy(folder):
    """Downloads PyPy for Python 2 from an older Debian, and unpacks it without changing the system."""
    lists, downloads = folder / "lists", folder / "downloads"
    (lists / "partial").mkdir(parents=True)
    downloads.mkdir()
    sources = folder / "sources.list"
    sources.write_text(f"deb {debian_repository()} {PYPY_SUITE} main\n")
    apt = ["apt-get", "-o", f"Dir::Etc::SourceList={sources}", "-o", "Dir::Etc::SourceParts=/dev/null"]
    apt += ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={folder}/cache", "-o", "APT::Sandbox::User=root"]
    processes.run("install-pypy-lists", [*apt, "update"], 5 * MINUTES)
    # apt-get downloads into the current folder only.
    in_downloads = ["env", f"--chdir={downloads}"]
    processes.run("install-pypy-download", [*in_downloads, *apt, "download", *PYPY_PACKAGES], 5 * MINUTES)
    for package in downloads.glob("*.deb"):
        processes.run("install-pypy-unpack", ["dpkg", "-x", package, folder / "pypy"], 1 * MINUTES)


def debian_repository():
    """Returns the mirror from which this machine installs Debian packages."""
    release = re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.MULTILINE)[1]
    query = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    query += ["Origin: Debian", f"Codename: {release}", "Component: main"]
    repositories = processes.run("install-pypy-query", query, 1 * MINUTES).split()
    if not repositories:
        processes.run("install-apt-lists", ["apt-get", "update"], 5 * MINUTES)
        repositories = processes.run("install-pypy-query", query, 1 * MINUTES).split()
    if not repositories:
        raise LookupError(f"apt knows no repository of Debian {release}, from which {PYPY_SUITE} could be had")
    return repositories[0]


def pypy_environment(folder):
    libraries = next((folder / "pypy" / "usr" / "lib").glob("*-linux-gnu"))
    return {"LD_LIBRARY_PATH": str(libraries)}


def make_virtual_environment(folder):
    processes.run("install-venv", [sys.executable, "-m", "venv", folder], 2 * MINUTES)


def apt_install(package_of_command):
    """Installs the Debian packages whose commands are missing."""
    missing = [package for command, package in package_of_command.items() if not shutil.which(command)]
    if missing:
        print(f"installing {' '.join(missing)}", flush=True)
        environment = {"DEBIAN_FRONTEND": "noninteractive"}
        processes.run("install-apt-lists", ["apt-get", "update"], 5 * MINUTES)
        install = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
        processes.run("install-apt", install, 15 * MINUTES, environment)


def cached(name, versions, install):
    """The folder that `install` has filled, now or in an earlier run with the same versions."""
    folder = CACHE / name
    stamp = folder / "installed"
    fingerprint = hashlib.sha256(versions.encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != fingerprint:
        print(f"installing {name} into {folder.relative_to(WORKSPACE)}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        install(folder)
        stamp.write_text(fingerprint)
    return folder
