"""The paths of the suites. Runs create files only below `CACHE`, which git ignores."""

from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
WORKSPACE = SOURCE.parent
CACHE = WORKSPACE / "target" / "conformance"
LOGS = CACHE / "logs"
PROGRAMS = WORKSPACE / "target" / "release"
