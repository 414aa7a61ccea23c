"""The command line: `conformance/coverage`."""

import argparse
import random
import sys

from . import mutations, pages
from .rows import Wrong


def main():
    options = parse_arguments()
    try:
        return COMMANDS[options.command](pages.load(), options)
    except Wrong as wrong:
        print(f"failed: {wrong}", file=sys.stderr)
        return 1


def generate(listed, _options):
    for page in listed:
        check_rows(page.rows)
        page.write()
    return 0


def check(listed, _options):
    for page in listed:
        check_rows(page.rows)
        page.check()
        print(f"{page.name}: {len(page.rows)} rows, each with its place, its test and its mutation, or a reason")
    return 0


def mutate(listed, options):
    held = [row for page in listed for row in page.rows if not row.gap]
    if options.row:
        held = [row for row in held if row.id in options.row]
    elif not options.full:
        seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1_000_000)
        held = random.Random(seed).sample(held, min(options.count, len(held)))
        print(f"rows {' '.join(row.id for row in held)} (--seed {seed} --count {options.count})", flush=True)
    failures = mutations.run(held, options.jobs)
    for row in failures:
        print(f"failed: {row}")
    print(f"{len(held) - len(failures)} mutations caught, {len(failures)} not")
    return 1 if failures or not held else 0


def check_rows(rows):
    failures = []
    for row in rows:
        try:
            row.check()
        except Wrong as wrong:
            failures.append(str(wrong))
    if failures:
        raise Wrong("\nfailed: ".join(failures))


COMMANDS = {"generate": generate, "check": check, "mutate": mutate}


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="conformance/coverage", description="Keeps the tables of requirements in docs/, and checks that their tests can fail."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("generate", help="write the tables")
    commands.add_parser("check", help="fail if a row lost its place or its test, or a table is not up to date")
    trying = commands.add_parser("mutate", help="break requirements one by one, and see their tests fail")
    trying.add_argument("--full", action="store_true", help="all rows")
    trying.add_argument("--count", type=int, default=20, help="how many rows at random (default: 20)")
    trying.add_argument("--seed", type=int, help="choose the same rows again")
    trying.add_argument("--row", action="append", metavar="ID", help="these rows, such as rfc6455:12 (repeatable)")
    trying.add_argument("--jobs", type=int, help="of cargo")
    return parser.parse_args()


sys.exit(main())
