"""The demonstration of the hub (demo/), with pages in Chromium, while its nodes and its broker are killed."""

import contextlib
import http.client
import os
import re
import signal
import time
from pathlib import Path

from . import install, processes, webdriver
from .paths import CACHE, PROGRAMS

# A run takes about 28 s, of which a ghost stays for 12.
SECONDS = 60
BROKERS = ["redis", "nats"]
# The rooms of the robots, which publish this many messages a second each.
ROOMS = ["lobby", "garden", "harbour"]
RATE = 5

COUNTS = "return demo.client.sequence.counts"
NODE = "return document.querySelector('#programs .mine')?.id ?? null"
HEARD = "return demo.heard(arguments[0])"
PRESENT = "return [...demo.client.present].sort()"

# A client that never comes back, beside that of the page.
GHOST = """
    window.ghost = new WebSocket(location.href.replace(/^http/, 'ws').replace(/[?#].*/, '') + 'rooms/lobby');
    ghost.onopen = () => ghost.send(JSON.stringify({ kind: 'hello', name: 'ghost', publisher: 'ghost' }));
"""

# A message of the room is missing, then one of the publisher, then a message comes again. A loss is told.
FAULTS = """
    const { Sequence } = await import('/room.js');
    const sequence = new Sequence();
    const receive = (place, number) =>
        sequence.receive({ at: `${place}`, before: `${place - 1}`, publisher: 'ada', number });
    sequence.start('1');
    for (const [place, number] of [[2, 1], [4, 2], [5, 4], [5, 4]]) receive(place, number);
    sequence.lose('20');
    receive(21, 30);
    return sequence.counts;
"""


def run(report):
    install.demo()
    with webdriver.browser() as browser:
        for broker in BROKERS:
            port = processes.free_port()
            command = [PROGRAMS / "bowline-demo", "--broker", broker, "--port", str(port), "--load", str(RATE)]
            try:
                with processes.background(f"demo-{broker}", command) as process:
                    processes.wait_until(lambda: "listening on" in processes.output(process), process, SECONDS)
                    Demonstration(report, broker, browser, process, port).run()
            except processes.ProcessFailure as failure:
                report.fails(f"demo: {broker}", failure)


class Demonstration:
    def __init__(self, report, broker, browser, process, port):
        self.report, self.broker, self.browser, self.process, self.port = report, broker, browser, process, port

    def run(self):
        self.check_origins()
        self.first, self.second = self.open("lobby", "ada"), self.open("lobby", "bob")
        node = self.first.run(NODE)
        self.judges("a room is on one node", self.second.run(NODE) == node, self.second.run(NODE))
        self.other = self.open_elsewhere(node)
        self.pages = [self.first, self.second, self.other]
        found = self.first.run(FAULTS)
        expected = {"received": 5, "gaps": 2, "doubles": 1, "losses": 1}
        self.judges("the counters of a page notice faults", found == expected, found)

        self.first.run(GHOST)
        self.waits_for_present("ghost")
        self.judges("all who are here are shown", True, None)
        self.kill_node(node)
        self.kill_broker("kept", losses=0)
        self.first.screenshot(CACHE / f"demo-{self.broker}.png")
        self.waits_for_present()
        departures = self.second.run("return demo.departures")
        self.judges("a client that died with its node leaves, and nobody else", departures == ["ghost"], departures)
        self.kill_broker("lost", losses=1)
        self.waits_for_present()
        self.judges("all who are here are shown again", True, None)
        self.settle()
        self.check_end()

    def check_origins(self):
        """The buttons are for this machine's own pages."""
        here = f"127.0.0.1:{self.port}"
        cases = {
            "the page": (here, f"http://{here}", 101),
            "a foreign page": (here, "http://example.com", 403),
            "a foreign name of this machine": (f"example.com:{self.port}", f"http://example.com:{self.port}", 403),
        }
        for name, (host, origin, expected) in cases.items():
            status = self.handshake(host, origin)
            self.judges(f"the buttons and {name}", status == expected, f"the status is {status}")

    def handshake(self, host, origin):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        headers = {"Host": host, "Origin": origin, "Connection": "Upgrade", "Upgrade": "websocket"}
        headers |= {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
        with contextlib.closing(connection):
            connection.request("GET", "/control", headers=headers)
            return connection.getresponse().status

    def open(self, room, name):
        page = self.browser.open(f"http://127.0.0.1:{self.port}/?name={name}#{room}")
        self.waits(lambda: page.run(NODE) and page.run(COUNTS)["received"] > 0)
        return page

    def open_elsewhere(self, node):
        """Opens a room on another node."""
        for room in ROOMS[1:]:
            page = self.open(room, "cleo")
            if page.run(NODE) != node:
                return page
            page.command("DELETE", "/window", None)
        raise processes.ProcessFailure(self.process, f"has all rooms on {node}")

    def kill_node(self, node):
        """The pages of a node that dies go to another one, and miss nothing. All others notice nothing."""
        said = "said while the node died"
        before = self.connections()
        # The message may reach the node, and its answer be lost.
        self.first.run(f"document.querySelector('#{node} button').click(); demo.client.say(arguments[0])", said)
        self.waits(lambda: self.connections()[:2] == [count + 1 for count in before[:2]])
        heard = lambda: [page.run(HEARD, said) for page in self.pages[:2]]
        self.waits(lambda: min(heard()) > 0)
        self.check_history(said)
        self.flows()
        self.judges("a message during the death of a node comes once", heard() == [1, 1], heard())
        self.judges("a room on another node notices nothing", self.connections()[2] == before[2], before)
        self.judges_counts("the death of a node", losses=0)
        self.waits(lambda: self.first.run(f"return document.getElementById('{node}').className.includes('up')"))

    def check_history(self, said):
        """A new page begins with the last messages."""
        # Another window of somebody who is here already.
        page = self.open("lobby", "bob")
        self.waits(lambda: page.run(HEARD, said))
        counts = page.run(COUNTS)
        page.command("DELETE", "/window", None)
        clean = counts["gaps"] == counts["doubles"] == counts["losses"] == 0
        self.judges("a new page shows the last messages", clean, counts)

    def kill_broker(self, data, losses):
        """The pages stay connected and miss nothing, or are told of a loss and load their rooms again."""
        before = self.connections()
        button = 1 if data == "kept" else 2
        self.first.run(f"document.querySelector('#broker button:nth-of-type({button})').click()")
        self.waits(lambda: self.first.run("return document.getElementById('broker').className.includes('down')"))
        said = f"said without a broker, its data {data}"
        self.first.run("demo.client.say(arguments[0])", said)
        self.waits(lambda: self.second.run(HEARD, said))
        self.flows()
        # A page that is told of a loss loads its room again.
        expected = [count + losses for count in before]
        self.waits(lambda: all(now >= then for now, then in zip(self.connections(), expected)))
        self.judges(f"connections when the broker dies, its data {data}", self.connections() == expected, expected)
        self.judges_counts(f"the death of the broker, its data {data}", losses)

    def waits_for_present(self, *guests):
        """Waits until both pages of the lobby show the same people: each other, two robots, and guests."""
        here = sorted(["ada", "bob", "robot 1", "robot 4", *guests])
        self.waits(lambda: self.first.run(PRESENT) == here == self.second.run(PRESENT))

    def connections(self):
        """The number of times that each page was live in its room."""
        return [page.run("return demo.client.connections") for page in self.pages]

    def flows(self):
        """Waits until all pages have received more messages."""
        before = [page.run(COUNTS)["received"] for page in self.pages]
        self.waits(lambda: all(page.run(COUNTS)["received"] > at + 5 for page, at in zip(self.pages, before)))

    def judges_counts(self, what, losses):
        for number, page in enumerate(self.pages, 1):
            counts = page.run(COUNTS)
            expected = {"gaps": 0, "doubles": 0, "losses": losses}
            self.judges(f"page {number} after {what}", counts == {**counts, **expected}, counts)

    def settle(self):
        """Without load, all pages of a room have got equally far, and the robots have found nothing either."""
        self.first.run("document.querySelector('#load button').click()")
        last = lambda page: page.run("return demo.client.sequence.last")
        self.waits(lambda: self.first.run("return demo.robots?.rate") == 0)
        self.waits(lambda: last(self.first) == last(self.second))
        self.judges("both pages of a room have the same messages", True, None)
        robots = self.first.run("return demo.robots")
        clean = robots["gaps"] == robots["doubles"] == 0 and robots["losses"] == robots["robots"]
        self.judges("the robots", clean and robots["received"] > 100, robots)

    def check_end(self):
        """Nothing outlives the demonstration, not even if it is killed."""
        folder = Path(re.search(r"files in (\S+)", processes.output(self.process))[1])
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        deadline = time.monotonic() + SECONDS
        gone = lambda: not folder.exists() and not processes.is_listening(self.port)
        while not gone() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.judges("nothing outlives the demonstration", gone(), folder)

    def waits(self, condition):
        return processes.wait_until(condition, self.process, SECONDS)

    def judges(self, name, passes, reason):
        self.report.judges(f"demo: {self.broker}: {name}", passes, reason)
