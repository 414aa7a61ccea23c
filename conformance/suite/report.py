"""A report that counts passed checks and names failed ones. Several threads may report."""

import threading


class Report:
    def __init__(self):
        self.passed = 0
        self.failures = []
        self.lock = threading.Lock()

    def passes(self, name, show=True):
        with self.lock:
            self.passed += 1
            if show:
                print(f"{name}: ok", flush=True)

    def fails(self, name, reason):
        with self.lock:
            self.failures.append(name)
            print(f"{name}: FAILED: {reason}", flush=True)

    def judges(self, name, passes, reason):
        """Counts a check that passes or fails, for a reason of any type."""
        if passes:
            self.passes(name)
        else:
            self.fails(name, reason)

    def takes_over(self, name, output, expected):
        """Counts the checks of another program, which wrote a line for each: `ok CHECK` or `failed CHECK: REASON`."""
        missing = set(expected)
        for line in output.splitlines():
            result, _, rest = line.partition(" ")
            check, _, reason = rest.partition(": ")
            if check in missing and result in ("ok", "failed"):
                missing.remove(check)
                if result == "ok":
                    self.passes(f"{name}: {check}")
                else:
                    self.fails(f"{name}: {check}", reason)
        for check in sorted(missing):
            self.fails(f"{name}: {check}", "it did not run")

    def finish(self):
        """Repeats the failures, prints the totals, and returns the exit status."""
        for failure in self.failures:
            print(f"failed: {failure}")
        print(f"{self.passed} passed, {len(self.failures)} failed", flush=True)
        return 1 if self.failures or not self.passed else 0
