"""Builds the programs of this workspace that the suites run."""

from . import processes
from .paths import WORKSPACE

SECONDS = 1200


def release():
    # All at once, so that dependencies are built once and with equal features.
    cargo = ["cargo", "build", "--release", "--manifest-path", WORKSPACE / "Cargo.toml"]
    cargo += ["--package", "bowline-conformance", "--package", "bowline-examples", "--package", "bowline-cli"]
    cargo += ["--package", "bowline-demo"]
    cargo += ["--features", "bowline-examples/deflate,bowline-examples/http2,bowline-examples/http3"]
    examples = [part for name in ["echo_server", "http2", "http3"] for part in ("--example", name)]
    processes.run("build", [*cargo, "--bins", *examples], SECONDS)
