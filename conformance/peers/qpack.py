"""Compares the field sections of bowline-http3 with those of pylsqpack: qpack.py PROGRAM [SEED]."""

import random
import subprocess
import sys

import pylsqpack

ROUNDS = 3_000
NAMES = [":method", ":path", ":status", "accept", "cookie", "content-type", "server", "x-frame-options", "x-a", "secret"]
VALUES = ["", "GET", "/", "200", "text/html; charset=utf-8", "sameorigin", "websocket", "a" * 126, "b" * 127, "c" * 400]


class Ours:
    """The program, which answers each line with one."""

    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, command, words):
        line = " ".join([command, *(f"-{word.hex()}" for word in words)])
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().removesuffix("\n")

    def encode(self, headers):
        return bytes.fromhex(self.ask("encode", [word for header in headers for word in header])[1:])

    def decode(self, section):
        """Returns the headers, or `None` if the section is malformed."""
        answer = self.ask("decode", [section])
        if answer.startswith("error"):
            return None
        words = [bytes.fromhex(word[1:]) for word in answer.split(" ") if word]
        return list(zip(words[::2], words[1::2], strict=True))


def decode(section):
    try:
        _, headers = pylsqpack.Decoder(0, 0).feed_header(0, section)
        return headers
    except (pylsqpack.DecompressionFailed, pylsqpack.StreamBlocked):
        return None


def encode(headers):
    encoder = pylsqpack.Encoder()
    encoder.apply_settings(max_table_capacity=0, blocked_streams=0)
    instructions, section = encoder.encode(0, headers)
    assert instructions == b"", instructions
    return section


def choose(rng):
    def value():
        if rng.random() < 0.5:
            return rng.choice(VALUES).encode()
        return bytes(rng.randrange(256) for _ in range(rng.randrange(40)))

    return [(rng.choice(NAMES).encode(), value()) for _ in range(rng.randrange(1, 12))]


def mutated(rng, section):
    section = bytearray(section)
    for _ in range(rng.randrange(1, 4)):
        kind, place = rng.randrange(4), rng.randrange(len(section) + 1)
        if kind == 0 and place < len(section):
            section[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            section.insert(place, rng.randrange(256))
        elif kind == 2:
            del section[place : place + rng.randrange(1, 4)]
        elif place < len(section):
            section[place] = rng.choice([0x00, 0x7F, 0x80, 0xFF, 0xC0, 0x3F])
    return bytes(section)


def is_disputed(section, lines):
    """Whether ls-qpack is known to differ: it refuses sections without lines (which RFC 9204 4.5 allows) and empty names
    (which are our next step's to refuse), and accepts a negative Base (which RFC 9204 4.5.1.2 forbids)."""
    if lines is None:
        return len(section) > 1 and section[1] & 0x80 != 0
    return lines == [] or any(name == b"" for name, _ in lines)


def check(name, differences):
    print(f"failed {name}: {differences[0]}" if differences else f"ok {name}", flush=True)


def main():
    ours = Ours(sys.argv[1])
    rng = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    theirs_wrong, ours_wrong, malformed_wrong = [], [], []
    for _ in range(ROUNDS):
        headers = choose(rng)
        section = encode(headers)
        if ours.decode(section) != headers:
            theirs_wrong.append((headers, section.hex()))
        own = ours.encode(headers)
        if decode(own) != headers:
            ours_wrong.append((headers, own.hex()))
        bad = mutated(rng, rng.choice([section, own]))
        if ours.decode(bad) != decode(bad) and not is_disputed(bad, ours.decode(bad)):
            malformed_wrong.append((bad.hex(), ours.decode(bad), decode(bad)))
    check("theirs are decoded", theirs_wrong)
    check("ours are decoded", ours_wrong)
    check("malformed ones are refused alike", malformed_wrong)


main()
