"""The rows of a table, and their items in the sources."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

WORKSPACE = Path(__file__).resolve().parent.parent.parent

HELD = {"section", "who", "requires", "place", "test", "line", "becomes"}
ALLOWED = HELD | {"in", "note"}
NOT_HELD = {"section", "who", "requires", "gap"}


class Wrong(Exception):
    """The data contradicts itself or the sources."""


@dataclass(frozen=True)
class Item:
    """An item of a source file, written as `path: name`."""

    path: str
    name: str

    @classmethod
    def parse(cls, text):
        path, separator, name = text.partition(": ")
        if not separator:
            raise Wrong(f"{text!r} is not of the form `path: name`")
        return cls(path, name)

    def lines(self, root=WORKSPACE):
        """Returns the numbers, from 0, of all lines of the items of this name."""
        numbers = []
        lines = read_lines(root / self.path)
        kinds = r"(?:const fn|async fn|fn|const|static|struct|enum)"
        start = re.compile(rf"^( *)(?:pub(?:\([^)]*\))? )?{kinds} {re.escape(self.name)}\b")
        for number, line in enumerate(lines):
            if found := start.match(line):
                numbers.extend(range(number, end_of(lines, number, found[1]) + 1))
        return numbers


@dataclass(frozen=True)
class Mutation:
    """A line and its replacement, with which the test has to fail."""

    item: Item
    line: str
    becomes: str

    def apply(self, root):
        """Changes the file. Returns its path and its previous content."""
        path = root / self.item.path
        before = path.read_text()
        lines = before.split("\n")
        number = self.find(root)
        indent = lines[number][: len(lines[number]) - len(lines[number].lstrip())]
        lines[number] = indent + self.becomes
        path.write_text("\n".join(lines))
        return path, before

    def find(self, root=WORKSPACE):
        lines = read_lines(root / self.item.path)
        found = [number for number in self.item.lines(root) if lines[number].strip() == self.line]
        if len(found) != 1:
            raise Wrong(f"{self.item.path}: {self.item.name} has the line {self.line!r} {len(found)} times, not once")
        return found[0]


@dataclass(frozen=True)
class Requirement:
    id: str
    section: str
    who: str
    requires: str
    place: Item | None = None
    test: Item | None = None
    mutation: Mutation | None = None
    note: str = ""
    gap: str = ""

    def __str__(self):
        return f"row {self.id} ({self.section}, {self.who}): {self.requires}"

    def check(self):
        """Raises `Wrong` if an item of the row is missing in the sources."""
        if self.gap:
            return
        if not self.place.lines():
            raise Wrong(f"{self}: {self.place.path} has no {self.place.name}")
        if self.test.name not in tests_in(self.test.path):
            raise Wrong(f"{self}: {self.test.path} has no test {self.test.name}")
        try:
            self.mutation.find()
        except Wrong as wrong:
            raise Wrong(f"{self}: the mutation does not apply: {wrong}") from wrong


def parse(id, row):
    keys = set(row)
    if not (HELD <= keys <= ALLOWED or keys == NOT_HELD):
        raise Wrong(f"row {id} has the keys {sorted(keys)}")
    if row["who"] not in ("client", "server", "both"):
        raise Wrong(f"row {id} is about {row['who']!r}")
    common = id, row["section"], row["who"], row["requires"]
    if "gap" in row:
        return Requirement(*common, gap=row["gap"])
    place = Item.parse(row["place"])
    mutated = Item.parse(row["in"]) if "in" in row else place
    mutation = Mutation(mutated, row["line"], row["becomes"])
    if mutation.line == mutation.becomes:
        raise Wrong(f"row {id} has a mutation that changes nothing")
    return Requirement(*common, place, Item.parse(row["test"]), mutation, row.get("note", ""))


def end_of(lines, start, indent):
    """Returns the number of the last line of the item that begins at `start`; the sources are formatted."""
    for number in range(start, len(lines)):
        line = lines[number].rstrip()
        if number == start and line.endswith((";", "}")):
            return number
        if line in (indent + "}", indent + "};", indent + ");"):
            return number
    return start


@cache
def tests_in(path):
    """Returns the names of the tests in a file that run by default."""
    text = "\n".join(read_lines(WORKSPACE / path))
    tests = re.finditer(r"^#\[(?:tokio::)?test\b[^\n]*\]\n((?:#\[[^\n]*\]\n)*)(?:async )?fn (\w+)", text, re.MULTILINE)
    return {test[2] for test in tests if "#[ignore" not in test[1]}


def read_lines(path):
    try:
        return path.read_text().split("\n")
    except FileNotFoundError:
        raise Wrong(f"there is no file {path}") from None
