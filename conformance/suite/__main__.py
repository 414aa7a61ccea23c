"""The command line: `conformance/run`."""

import argparse
import sys

from . import autobahn, browser, build, cli, demo, deploying, peers, processes
from .report import Report

SUITES = {
    "autobahn": lambda report, options: autobahn.run(report, options.cases, options.long, options.http),
    "peers": lambda report, _options: peers.run(report),
    "cli": lambda report, _options: cli.run(report),
    "browser": lambda report, _options: browser.run(report),
    "demo": lambda report, _options: demo.run(report),
    "deploying": lambda report, _options: deploying.run(report),
}


def main():
    options = parse_arguments()
    processes.exit_on_termination()
    report = Report()
    try:
        if attempt(report, "build", build.release):
            for name in [options.suite] if options.suite else SUITES:
                attempt(report, name, lambda: SUITES[name](report, options))
    except KeyboardInterrupt:
        return 130
    return report.finish()


def attempt(report, name, run):
    """Runs a step. Returns whether the step completed."""
    try:
        run()
    except processes.ProcessFailure as failure:
        report.fails(name, failure)
        return False
    return True


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="conformance/run",
        description="Runs other people's test suites and clients against bowline, and installs what they need.",
    )
    parser.add_argument("suite", nargs="?", choices=SUITES, help="one of them; all when it is left out")
    parser.add_argument(
        "--cases",
        action="append",
        metavar="GLOB",
        help="Autobahn cases, such as '6.*' or 9.1.1 (repeatable; default: all, but see --long)",
    )
    parser.add_argument("--long", action="store_true", help="Autobahn's compression with messages over 8 KiB as well")
    parser.add_argument("--http", action="append", choices=["1.1", "2", "3"], help="Autobahn over this version, and whole")
    return parser.parse_args()


sys.exit(main())
