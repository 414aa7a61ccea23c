"""Builds the programs of this workspace that the suites run."""

from . import processes
from .paths import WORKSPACE

SECONDS = 1200


def release():
    # All at once, so that dependencies are built once and with equal features.
    cargo = ["cargo", "build", "--release", "--manifest-path", WORKSPACE / "Cargo.toml"]
    cargo += ["--package", "bowline-conformance", "--package", "bowline-examples", "--package", "bowline-cli"]
    cargo += ["--package", "bowline-demo"]
    cargo += ["--features", "bowline-examples/deflate,bowline-examples/http2"]
    processes.run("build", [*cargo, "--bins", "--example", "echo_server", "--example", "http2"], SECONDS)
