"""Random sessions of a host: valid ones, and the same with damaged frames."""

import random

from hpack import Encoder

from tests.http2.frames import (
    ACK,
    CALL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    SETTINGS,
    UNKNOWN,
    WITH_PRIORITY,
    frame,
    padded,
    reset,
    settings,
    window_update,
)

KINDS = [*range(10), 11]  # not 10, ALTSVC: h2 reads what a server ignores
VALUES = ["a", "b" * 60, "1S", "Jörg", ""]


class Session:
    """Frames that a correct host could send, one after the other.

    `respond` is a step of the server: it answers the stream and ends it.
    """

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.encoder = Encoder()
        self.next = 1
        self.open = []  # the host may send DATA
        self.unanswered = []
        self.windows = {}  # what the host has granted in addition

    def step(self):
        """("send", bytes) or ("respond", stream)."""
        choices = [self.request] * 3 + [self.control, self.limits]
        if self.open:
            choices += [self.data] * 4 + [self.trailers]
        if self.unanswered:
            choices += [self.cancel, self.window, "respond"]
        choice = self.random.choice(choices)
        if choice == "respond":
            number = self.take(self.random.choice(self.unanswered))
            return "respond", number
        return "send", choice()

    def take(self, number):
        self.unanswered.remove(number)
        if number in self.open:
            self.open.remove(number)
        return number

    def request(self):
        rng = self.random
        number, self.next = self.next, self.next + rng.choice([2, 2, 2, 4, 10])
        extra = [(f"x-{rng.randrange(4)}", rng.choice(VALUES)) for _ in range(rng.randrange(3))]
        if rng.random() < 0.2:
            self.encoder.header_table_size = rng.choice([0, 100, 4096])
        block = self.encoder.encode([(*pair, rng.random() < 0.2) for pair in [*CALL, *extra]])
        end = rng.random() < 0.3
        self.unanswered.append(number)
        if not end:
            self.open.append(number)
        return self.headers(number, block, end)

    def headers(self, number, block, end):
        rng, flags = self.random, END_STREAM if end else 0
        parts = sorted(rng.randrange(len(block) + 1) for _ in range(rng.choice([0, 0, 1, 3])))
        pieces = [block[a:b] for a, b in zip([0, *parts], [*parts, len(block)], strict=True)]
        first = pieces.pop(0)
        if rng.random() < 0.2:
            flags, first = flags | WITH_PRIORITY, bytes(4) + b"\x10" + first
        if first and rng.random() < 0.2:  # h2 refuses padding without a header (6.2 does not)
            flags, first = flags | PADDED, padded(first, rng.randrange(20))
        frames = frame(HEADERS, number, first, flags | (0 if pieces else END_HEADERS))
        for place, piece in enumerate(pieces, 1):
            last = END_HEADERS if place == len(pieces) else 0
            frames += frame(CONTINUATION, number, piece, last)
        return frames

    def data(self):
        rng = self.random
        number = rng.choice(self.open)
        data, flags = rng.randbytes(rng.choice([0, 1, 50, 3000])), 0
        if rng.random() < 0.3:
            flags, data = PADDED, padded(data, rng.randrange(256))
        if rng.random() < 0.3:
            flags |= END_STREAM
            self.open.remove(number)
        return frame(DATA, number, data, flags)

    def trailers(self):
        number = self.random.choice(self.open)
        self.open.remove(number)
        return self.headers(number, self.encoder.encode([("x-checksum", "1")]), True)

    def cancel(self):
        return reset(self.take(self.random.choice(self.unanswered)), self.random.randrange(20))

    def window(self):
        return window_update(self.random.choice(self.unanswered), self.random.randint(1, 70_000))

    def control(self):
        rng = self.random
        return rng.choice(
            [
                frame(PING, payload=rng.randbytes(8), flags=rng.choice([0, 0, ACK])),
                frame(UNKNOWN, rng.randrange(9), rng.randbytes(5), rng.randrange(256)),
                frame(PRIORITY, self.next, bytes(4) + b"\x10"),
                frame(SETTINGS, flags=ACK),
                window_update(0, rng.randint(1, 70_000)),
            ]
        )

    def limits(self):
        rng = self.random
        choices = [(1, 0), (1, 4096), (2, 0), (3, 100), (4, 0), (4, 65_535), (4, 200_000)]
        choices += [(5, 16_384), (5, 50_000), (6, 100_000), (0x77, 5)]
        return settings(*(rng.choice(choices) for _ in range(rng.randrange(4))))

    def damage(self, data):
        """The frames with a fault."""
        rng = self.random
        damaged = bytearray(data)
        kind = rng.randrange(6)
        if kind == 0:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            damaged[rng.choice([3, 4, 8])] = rng.choice(KINDS)  # type, flags or stream
        elif kind == 2:
            cut = rng.randrange(9, len(damaged) + 1)
            damaged[:3] = (cut - 9).to_bytes(3, "big")
            del damaged[cut:]
        elif kind == 3:
            damaged *= 2
        elif kind == 4:
            damaged[:0] = window_update(rng.randrange(12), rng.choice([0, 1, 2**31 - 1, 2**31]))
        else:
            damaged[:0] = frame(
                rng.choice(KINDS), rng.randrange(12), rng.randbytes(rng.randrange(9))
            )
        return bytes(damaged)
