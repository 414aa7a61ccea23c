"""Autobahn|Testsuite, the reference suite for RFC 6455 and RFC 7692, against bowline as server and as client."""

import json
import shutil
from collections import Counter

from . import install, processes
from .paths import CACHE, PROGRAMS, SOURCE, WORKSPACE

# How many cases these make is checked: a run in which cases go missing must not pass.
GROUPS = [f"{group}.*" for group in range(1, 11)]
NUMBER_OF_CASES = 301

# Compression: how many subgroups there are, each with 18 cases of 1,000 messages. The first six have messages of up to
# 8 KiB; the others take most of the time.
COMPRESSION_GROUPS = {12: 5, 13: 7}
SHORT_CASES, ALL_CASES = 6, 18

# The largest message of group 9.
MESSAGE_SIZE = 16 << 20

# What the suite itself has no verdict on: who closes TCP first, and close codes that nobody has defined.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}

# One role takes 2 minutes on two cores, and 20 with the long cases.
SECONDS = 3600

AGENT = "bowline"


def run(report, cases, long):
    """Runs the cases that the globs in `cases` name, or all; without `long`, all but the long ones."""
    compression = [
        f"{group}.{subgroup}.{case}"
        for group, subgroups in COMPRESSION_GROUPS.items()
        for subgroup in range(1, subgroups + 1)
        for case in range(1, (ALL_CASES if long else SHORT_CASES) + 1)
    ]
    command, environment = install.autobahn()
    wstest = [*command, SOURCE / "autobahn" / "wstest.py"]
    for role, test in (("server", test_server), ("client", test_client)):
        reports = CACHE / f"autobahn-{role}-reports"
        shutil.rmtree(reports, ignore_errors=True)
        reports.mkdir(parents=True)
        specification = {"outdir": str(reports), "cases": cases or GROUPS + compression, "exclude-cases": []}
        try:
            test(wstest, environment, specification, reports)
            judge(report, role, reports, None if cases else NUMBER_OF_CASES + len(compression))
        except processes.ProcessFailure as failure:
            report.fails(f"autobahn {role}", failure)


def test_server(wstest, environment, specification, reports):
    """The suite as client: `fuzzingclient` exits when it is done."""
    echo_server = [PROGRAMS / "examples" / "echo_server", "127.0.0.1:0", "--max-message-size", MESSAGE_SIZE]
    echo_server.append("--compression=takeover")
    with processes.server("autobahn-echo-server", echo_server) as address:
        specification["servers"] = [{"agent": AGENT, "url": f"ws://{address}"}]
        fuzz = [*wstest, "-m", "fuzzingclient", "-s", write(specification, reports)]
        processes.run("autobahn-fuzzingclient", fuzz, SECONDS, environment)


def test_client(wstest, environment, specification, reports):
    """The suite as server: `fuzzingserver` runs the cases that the client asks for, until it is killed."""
    port = processes.free_port()
    specification["url"] = f"ws://127.0.0.1:{port}"
    fuzz = [*wstest, "-m", "fuzzingserver", "--webport", "0", "-s", write(specification, reports)]
    client = [PROGRAMS / "autobahn_client", specification["url"], "--agent", AGENT]
    client += ["--max-message-size", MESSAGE_SIZE, "--compression=takeover"]
    with processes.background("autobahn-fuzzingserver", fuzz, environment) as server:
        processes.wait_until(lambda: processes.is_listening(port), server, seconds=30)
        processes.run("autobahn-client", client, SECONDS)


def write(specification, reports):
    path = reports / "specification.json"
    path.write_text(json.dumps(specification))
    return path


def judge(report, role, reports, expected):
    """Counts each case once, with the worse of its two verdicts; prints one line for the role."""
    index = reports / "index.json"
    results = json.loads(index.read_text()).get(AGENT, {}) if index.exists() else {}
    counts = Counter()
    for case, result in sorted(results.items(), key=lambda item: [int(part) for part in item[0].split(".")]):
        allowed = {"OK", "INFORMATIONAL"} if case in INFORMATIONAL else {"OK"}
        verdicts = {"behavior": result["behavior"], "behaviorClose": result["behaviorClose"]}
        if bad := [f"{name} {verdict}" for name, verdict in verdicts.items() if verdict not in allowed]:
            report.fails(f"autobahn {role} {case}", f"{', '.join(bad)}, see {reports.relative_to(WORKSPACE) / result['reportfile']}")
        else:
            report.passes(f"autobahn {role} {case}", show=False)
        counts[next((verdict for verdict in verdicts.values() if verdict != "OK"), "OK")] += 1

    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    print(f"autobahn {role}: {len(results)} cases, {summary or 'none ran'}", flush=True)
    if expected and len(results) != expected:
        report.fails(f"autobahn {role}", f"{len(results)} cases ran, {expected} were expected")
    elif not results:
        report.fails(f"autobahn {role}", "no case ran")
