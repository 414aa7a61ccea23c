"""Child processes with time limits, none of which outlives this program."""

import contextlib
import itertools
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time

from .paths import LOGS, WORKSPACE


class ProcessFailure(Exception):
    """A child process exited when it should not have, or took too long."""

    def __init__(self, process, what):
        log = process.log.relative_to(WORKSPACE)
        super().__init__(f"{process.log.stem} {what}; {log} ends:\n{output(process)[-2000:]}")


def exit_on_termination():
    """Makes SIGTERM and SIGHUP unwind the stack, so that every `background` below kills its children."""

    def leave(number, _frame):
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)


class Groups:
    """The process groups that are running, for programs with threads: a signal unwinds only the main thread."""

    def __init__(self):
        self.lock = threading.Lock()
        self.leaders = set()
        self.is_ended = False

    def start(self, *arguments, **options):
        with self.lock:
            if self.is_ended:
                raise SystemExit("no process may start after the end")
            process = subprocess.Popen(*arguments, **options, start_new_session=True)
            self.leaders.add(process)
            return process

    def end(self, process):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        with self.lock:
            self.leaders.discard(process)

    def end_all(self):
        """Kills all processes, so that the threads that wait for them end as well. No process starts any more."""
        with self.lock:
            self.is_ended = True
            leaders = list(self.leaders)
        for process in leaders:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


GROUPS = Groups()


@contextlib.contextmanager
def background(name, command, environment=None, descriptors=()):
    """Runs `command` in a process group of its own, its output in a log file; kills the group at the end.

    The process inherits the open files of `descriptors`.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{name}.log"
    with log.open("wb") as log_file:
        process = GROUPS.start(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            pass_fds=descriptors,
        )
    process.log = log
    try:
        yield process
    finally:
        GROUPS.end(process)


def run(name, command, seconds, environment=None, statuses=(0,)):
    """Runs `command` to its end, which is one of `statuses`, and returns its output."""
    with background(name, command, environment) as process:
        try:
            status = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise ProcessFailure(process, f"was still running after {seconds} s") from None
        if status not in statuses:
            raise ProcessFailure(process, f"exited with {status}")
        return output(process)


@contextlib.contextmanager
def server(name, command, environment=None, seconds=20):
    """Runs a server that prints `listening on ADDRESS` when it is ready, and returns that address."""
    with background(name, command, environment) as process:
        ready = wait_until(lambda: re.search(r"listening on (\S+)\n", output(process)), process, seconds)
        yield ready[1]


def wait_until(condition, process, seconds):
    """Waits for `condition` to become true while `process` runs, and returns its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if process.poll() is not None:
            raise ProcessFailure(process, f"exited with {process.returncode}")
        if time.monotonic() > deadline:
            raise ProcessFailure(process, f"was not ready after {seconds} s")
        time.sleep(0.05)
    return value


def output(process):
    """Returns the output of `process` so far."""
    return process.log.read_text(errors="replace")


# Below the ports that the kernel assigns to clients, which could be faster. Each number is returned once.
PORTS = itertools.count(random.randrange(20_000, 30_000))


def free_port():
    """Returns a port for a program that can't pick one itself."""
    for port in PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port


def is_listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
