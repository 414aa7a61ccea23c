"""Autobahn|Testsuite, the reference suite for RFC 6455 and RFC 7692, against bowline as server and as client.

It speaks HTTP/1.1. Over HTTP/2, `http2_bridge` stands between the two, and over HTTP/3 `peers/h3_bridge.py`.
"""

import json
import shutil
from collections import Counter
from contextlib import ExitStack

from . import install, processes
from .paths import CACHE, PROGRAMS, SOURCE, WORKSPACE

# The number of cases is checked: a run with missing cases must not pass.
GROUPS = [f"{group}.*" for group in range(1, 11)]
NUMBER_OF_CASES = 301
# Over HTTP/3, the bridge in Python takes long with the large messages of group 9, and with the many of compression.
QUICK_GROUPS = [group for group in GROUPS if group != "9.*"]
NUMBER_OF_QUICK_CASES = 247

# The subgroups of compression, each with 18 cases of 1,000 messages. The first six have messages of up to 8 KiB, the
# eleventh messages of 8 KiB in fragments of 256 bytes. The others take most of the time.
COMPRESSION_GROUPS = {12: 5, 13: 7}
SHORT_CASES = [*range(1, 7), 11]
LONG_CASES = [range(7, 11), range(12, 15), range(15, 19)]
# Compression doesn't depend on the HTTP version: over HTTP/2 and HTTP/3, these show that it is negotiated and works.
FEW_SHORT_CASES = [1, 11]
ALL_CASES = 18

# The largest message of group 9.
MESSAGE_SIZE = 16 << 20

# The cases without a verdict of the suite: the side that closes TCP first, and undefined close codes.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}

# One role takes 2 minutes on two cores, and 20 with the long cases.
SECONDS = 3600

AGENT = "bowline"


def run(report, cases, long, versions):
    """Runs the cases that match the globs in `cases`, or all; without `long`, all except the long ones.

    Without `versions`, runs over all versions of HTTP, but only the quick groups over HTTP/3.
    """
    for version in versions or ["1.1", "2", "3"]:
        short = SHORT_CASES if version == "1.1" or long else FEW_SHORT_CASES
        if cases:
            batches, expected = [cases], None
        elif version == "3" and not versions:
            batches, expected = [QUICK_GROUPS], NUMBER_OF_QUICK_CASES
        else:
            batches = batches_of_all(short, long)
            expected = NUMBER_OF_CASES + number_of_compression_cases(short, long)
        for role, test in (("server", test_server), ("client", test_client)):
            name = role if version == "1.1" else f"{role} over HTTP/{version}"
            judge(report, name, results(report, name, test, batches, version), expected)


def results(report, name, test, batches, version):
    """Runs the cases in one role. Returns the path of the details and the verdicts of each case."""
    command, environment = install.autobahn()
    wstest = [*command, SOURCE / "autobahn" / "wstest.py"]
    reports = CACHE / f"autobahn-{file_name(name)}-reports"
    shutil.rmtree(reports, ignore_errors=True)
    all_results = {}
    for number, batch in enumerate(batches):
        folder = reports / str(number)
        folder.mkdir(parents=True)
        specification = {"outdir": str(folder), "cases": batch, "exclude-cases": []}
        try:
            test(wstest, environment, specification, folder, version)
        except processes.ProcessFailure as failure:
            report.fails(f"autobahn {name}", failure)
        index = folder / "index.json"
        found = json.loads(index.read_text()).get(AGENT, {}) if index.exists() else {}
        all_results |= {case: (folder / result["reportfile"], result) for case, result in found.items()}
    return all_results


def file_name(name):
    return name.lower().replace("/", "").replace(" over ", "-")


def batches_of_all(short, long):
    """Splits the cases: the suite keeps the bytes of each case in memory, so that long cases need fresh processes."""
    batches = [GROUPS + [f"{subgroup}.{case}" for subgroup in compression_subgroups() for case in short]]
    if long:
        for subgroup in compression_subgroups():
            batches += [[f"{subgroup}.{case}" for case in some] for some in LONG_CASES]
    return batches


def compression_subgroups():
    return [f"{group}.{number}" for group, count in COMPRESSION_GROUPS.items() for number in range(1, count + 1)]


def number_of_compression_cases(short, long):
    return sum(COMPRESSION_GROUPS.values()) * (ALL_CASES if long else len(short))


def test_server(wstest, environment, specification, reports, version):
    """The suite as client: `fuzzingclient` exits when it is done."""
    echo_server = [PROGRAMS / "examples" / "echo_server", "127.0.0.1:0", "--max-message-size", MESSAGE_SIZE]
    echo_server.append("--compression=takeover")
    with ExitStack() as stack:
        if version == "2":
            address = stack.enter_context(processes.server("autobahn-echo-server-http2", [*echo_server, "--http2"]))
            address = stack.enter_context(bridge("server", "http2", address))
        elif version == "3":
            serve = [PROGRAMS / "bowline", "serve", "127.0.0.1:0", "--http3", "--compress", "--max-size", MESSAGE_SIZE]
            url = stack.enter_context(processes.server("autobahn-echo-server-http3", serve))
            address = stack.enter_context(http3_bridge("server", url.removeprefix("wss://")))
        else:
            address = stack.enter_context(processes.server("autobahn-echo-server", echo_server))
        specification["servers"] = [{"agent": AGENT, "url": f"ws://{address}"}]
        fuzz = [*wstest, "-m", "fuzzingclient", "-s", write(specification, reports)]
        processes.run("autobahn-fuzzingclient", fuzz, SECONDS, environment)


def test_client(wstest, environment, specification, reports, version):
    """The suite as server: `fuzzingserver` runs the cases that the client asks for, until it is killed."""
    port = processes.free_port()
    address = f"127.0.0.1:{port}"
    specification["url"] = f"ws://{address}"
    fuzz = [*wstest, "-m", "fuzzingserver", "--webport", "0", "-s", write(specification, reports)]
    client = [PROGRAMS / "autobahn_client", "--agent", AGENT, "--max-message-size", MESSAGE_SIZE]
    client.append("--compression=takeover")
    with ExitStack() as stack:
        server = stack.enter_context(processes.background("autobahn-fuzzingserver", fuzz, environment))
        processes.wait_until(lambda: processes.is_listening(port), server, seconds=30)
        scheme = "wss" if version == "3" else "ws"
        if version == "2":
            address = stack.enter_context(bridge("client", "http1", address))
            client.append("--http2")
        elif version == "3":
            certificate = CACHE / "autobahn-http3-certificate.pem"
            address = stack.enter_context(http3_bridge("client", address, certificate))
            client += ["--http3", certificate]
        processes.run("autobahn-client", [*client, f"{scheme}://{address}"], SECONDS)


def bridge(role, version, target):
    """Runs the bridge from the other HTTP version to a target that speaks `version`."""
    return processes.server(f"autobahn-bridge-{role}", [PROGRAMS / "http2_bridge", version, target])


def http3_bridge(role, target, *certificate):
    """Runs the bridge between HTTP/1.1 and HTTP/3. Over HTTP/3, the role is that of bowline."""
    command = [install.h3(), SOURCE / "peers" / "h3_bridge.py", role, target, *certificate]
    return processes.server(f"autobahn-http3-bridge-{role}", command)


def write(specification, reports):
    path = reports / "specification.json"
    path.write_text(json.dumps(specification))
    return path


def judge(report, role, results, expected):
    """Counts each case once, with the worse of its two verdicts; prints one line for the role."""
    counts = Counter()
    for case, (details, result) in sorted(results.items(), key=lambda item: [int(part) for part in item[0].split(".")]):
        allowed = {"OK", "INFORMATIONAL"} if case in INFORMATIONAL else {"OK"}
        verdicts = {"behavior": result["behavior"], "behaviorClose": result["behaviorClose"]}
        if bad := [f"{name} {verdict}" for name, verdict in verdicts.items() if verdict not in allowed]:
            report.fails(f"autobahn {role} {case}", f"{', '.join(bad)}, see {details.relative_to(WORKSPACE)}")
        else:
            report.passes(f"autobahn {role} {case}", show=False)
        counts[next((verdict for verdict in verdicts.values() if verdict != "OK"), "OK")] += 1

    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    print(f"autobahn {role}: {len(results)} cases, {summary or 'none ran'}", flush=True)
    if expected and len(results) != expected:
        report.fails(f"autobahn {role}", f"{len(results)} cases ran, {expected} were expected")
    elif not results:
        report.fails(f"autobahn {role}", "no case ran")
