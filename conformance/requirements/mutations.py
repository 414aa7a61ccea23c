"""Applies mutations in a copy of the workspace, and checks that the tests notice."""

import json
import os
import shutil
import subprocess
import time

from .rows import WORKSPACE, Wrong

SCRATCH = WORKSPACE / "target" / "requirements"
COPY = SCRATCH / "workspace"

# Longer than any of the tests takes. A hanging test doesn't pass.
SECONDS = 60


def run(requirements, jobs):
    """Tries each mutation, and returns the failures."""
    copy_workspace()
    rows = [row for row in requirements if row.mutation]
    # A test that fails anyway would prove nothing.
    for test in sorted({row.test for row in rows}, key=str):
        if outcome := fails(test, jobs):
            raise Wrong(f"{test.path}: {test.name} fails without any mutation: {outcome}")
    print(f"{len({row.test for row in rows})} tests pass without mutations", flush=True)
    failures = []
    for row in rows:
        began = time.monotonic()
        try:
            outcome = f"caught: {try_out(row, jobs)}"
        except Wrong as wrong:
            failures.append(row)
            outcome = f"FAILED: {wrong}"
        print(f"{row}: {outcome} ({time.monotonic() - began:.1f} s)", flush=True)
    return failures


def try_out(row, jobs):
    path, before = row.mutation.apply(COPY)
    try:
        outcome = fails(row.test, jobs)
    finally:
        path.write_text(before)
    if not outcome:
        raise Wrong(f"the mutation survives {row.test.name}: {row.mutation.becomes!r} in {row.mutation.item.path}")
    return outcome


def fails(test, jobs):
    """Returns how a test of the copy fails, or `None` if it passes. Raises `Wrong` if the test can't run."""
    # `crate/tests/binary.rs`, or a module of it: `crate/tests/binary/module.rs`.
    crate, _, binary, *modules = test.path.removesuffix(".rs").split("/")
    folder = COPY / crate
    program = build(folder, binary, jobs)
    name = "::".join([*modules, test.name])
    try:
        done = subprocess.run([program, "--exact", name], cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return f"it did not end within {SECONDS} s"
    if "running 1 test\n" not in done.stdout:
        raise Wrong(f"{test.path} runs no test {name}")
    return None if done.returncode == 0 else "it fails"


def build(folder, binary, jobs):
    command = ["cargo", "test", "--locked", "--no-run", "--message-format=json", "--all-features", "--test", binary]
    environment = os.environ | {"CARGO_TARGET_DIR": str(SCRATCH / "target"), "CARGO_PROFILE_TEST_DEBUG": "0"}
    # A mutation may leave items unused.
    environment.pop("RUSTFLAGS", None)
    if jobs:
        command += ["--jobs", str(jobs)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0:
        errors = [message["message"]["message"] for message in messages if is_error(message)]
        raise Wrong(f"it does not compile: {errors[0] if errors else done.stderr.strip()}")
    programs = [message["executable"] for message in messages if message.get("executable")]
    if len(programs) != 1:
        raise Wrong(f"cargo built {len(programs)} programs for {binary}")
    return programs[0]


def is_error(message):
    return message["reason"] == "compiler-message" and message["message"]["level"] == "error"


def copy_workspace():
    """Updates the copy. Unchanged files keep their times, so that little is rebuilt."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=WORKSPACE,
        capture_output=True,
        check=True,
        text=True,
    )
    wanted = {name for name in listed.stdout.split("\0") if name and (WORKSPACE / name).is_file()}
    for name in wanted:
        source, target = WORKSPACE / name, COPY / name
        if not target.exists() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    for path in [path for path in COPY.rglob("*") if path.is_file()]:
        if str(path.relative_to(COPY)) not in wanted:
            path.unlink()
