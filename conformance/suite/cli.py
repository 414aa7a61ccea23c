"""The command `bowline check` against servers of other projects, which pass Autobahn|Testsuite."""

import json

from . import install, processes
from .paths import PROGRAMS, SOURCE

# The whole run takes about 4 s; the server may be slow.
SECONDS = 120
WAIT = "5s"

# Exit status of `bowline check`.
FINDINGS = 8

# Requirements of the RFCs that a server does not meet, and that Autobahn does not test. See cli/docs/check.md.
FINDINGS_OF_WS = {
    "handshake.http-1.0",
    "handshake.host-missing",
    "negotiation.deflate-server-bits-zero",
}
FINDINGS_OF_WEBSOCKETS = {
    "handshake.version-14",
    "handshake.version-255",
    "handshake.host-missing",
    "fragment.close-between",
}


def run(report):
    peers = SOURCE / "peers"
    python, ws_environment = install.websockets(), install.ws()
    check(report, "ws", ["node", peers / "ws_server.js"], FINDINGS_OF_WS, ws_environment)
    check(report, "websockets", [python, peers / "websockets_server.py"], FINDINGS_OF_WEBSOCKETS)
    check(report, "bowline", [PROGRAMS / "peer_server", "--compression=takeover"], set())


def check(report, name, command, expected, environment=None):
    """Checks a server. Counts each case: those of `expected` must have a finding, all others must have none."""
    try:
        with processes.server(f"check-{name}-server", command, environment) as address:
            cases = results(name, f"ws://{address}/echo")
    except processes.ProcessFailure as failure:
        report.fails(f"check {name}", failure)
        return
    for case in cases:
        title = f"check {name}: {case['id']}"
        if case["id"] in expected:
            report.judges(title, case["verdict"] == "failed", f"the finding of cli/docs/check.md is gone: {case}")
        elif case["verdict"] == "failed":
            report.fails(title, f"expected: {case['expected']}; came: {case['observed']}")
        else:
            report.passes(title, show=False)
    missing = expected - {case["id"] for case in cases}
    report.judges(f"check {name}: {len(cases)} cases", not missing, f"did not run: {missing}")


def results(name, url):
    """The verdicts of `bowline check`, one for each case."""
    command = [PROGRAMS / "bowline", "check", "--echo", "--json", "--wait", WAIT, url]
    output = processes.run(f"check-{name}", command, SECONDS, statuses=(0, FINDINGS))
    return [value for value in map(json.loads, output.splitlines()) if "id" in value]
