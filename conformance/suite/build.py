"""Builds the programs of this workspace that the suites run."""

from . import processes
from .paths import WORKSPACE

SECONDS = 1200


def release():
    cargo = ["cargo", "build", "--release", "--manifest-path", WORKSPACE / "Cargo.toml"]
    processes.run("build-conformance", [*cargo, "--package", "bowline-conformance"], SECONDS)
    processes.run("build-examples", [*cargo, "--package", "bowline", "--features", "deflate", "--example", "echo_server"], SECONDS)
