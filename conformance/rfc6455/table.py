"""Writes the table for people: `docs/rfc6455.md`."""

from .requirements import WORKSPACE, Wrong

PATH = WORKSPACE / "docs" / "rfc6455.md"

HEAD = """\
<!-- Made by `conformance/coverage generate` from conformance/rfc6455/requirements.toml: change that. -->

# RFC 6455, requirement by requirement

Every MUST and MUST NOT of [RFC 6455](https://www.rfc-editor.org/rfc/rfc6455), sections 4 to 8 and 10, that concerns an
endpoint: where it is implemented, and which test holds it. Where the RFC lists the parts of a message under one MUST, each
part has a row. What it asks of intermediaries and of those who design extensions is left out.

A test's name is no proof. For each row, `requirements.toml` names a change of one line that breaks the requirement, and
`conformance/coverage mutate` checks that the row's test fails then: a few rows at random, or all with `--full`.
"""


def make(requirements):
    gaps = [row for row in requirements if row.gap]
    count = f"{len(requirements)} requirements: {len(requirements) - len(gaps)} held by a test, {len(gaps)} not"
    lines = [HEAD, count + ".", "", "## What is not held by a test", "", "| § | who | requirement | why |", "|---|---|---|---|"]
    lines += [f"| {row.section} | {row.who} | {row.requires} | {row.gap} |" for row in gaps]
    chapter = None
    for row in requirements:
        if row.gap:
            continue
        if chapter != (chapter := row.section.split(".")[0]):
            lines += ["", f"## {chapter}. {CHAPTERS[chapter]}", ""]
            lines += ["| § | who | requirement | implemented in | test |", "|---|---|---|---|---|"]
        requires = row.requires + (f" ({row.note})" if row.note else "")
        lines.append(f"| {row.section} | {row.who} | {requires} | {link(row.place)} | {link(row.test)} |")
    return "\n".join(lines) + "\n"


CHAPTERS = {
    "4": "Opening handshake",
    "5": "Data framing",
    "6": "Sending and receiving data",
    "7": "Closing the connection",
    "8": "Error handling",
    "10": "Security considerations",
}


def link(item):
    crate, _, name = item.path.removesuffix(".rs").partition("/")
    name = name.removeprefix("src/").removeprefix("tests/")
    return f"[{crate} `{name.replace('/', '::')}::{item.name}`](../{item.path})"


def check(requirements):
    found = PATH.read_text() if PATH.exists() else ""
    if found != make(requirements):
        raise Wrong("docs/rfc6455.md is not what the sources make: run `conformance/coverage generate`")
