"""What a fuzzer feeds, bytes by bytes: the decoders, and endpoints that hear what was decoded.

``python -m tests.properties.garbage`` runs Atheris over it, which looks for new branches by itself;
arguments go to libFuzzer (``-max_total_time=60``, a directory of inputs). Without Atheris, or with
``--mutate SECONDS``, the inputs of the corpus are mutated blindly.

An input is one byte that says who hears it and in which encoding, and then messages, each with its
length in front of it in two bytes; what is short of a length is one message.
"""

from __future__ import annotations

import gc
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FunctionType
from typing import Any

from trio_streamrpc.errors import RemoteProtocolError
from trio_streamrpc.limits import Limits
from trio_streamrpc.protocol.codecs import Encoding, codec_for
from trio_streamrpc.protocol.endpoint import Endpoint, Side
from trio_streamrpc.protocol.frames import Frame, Overflow
from trio_streamrpc.testing.plain_frames import encode_message

__all__ = ["CORPUS", "check_input", "corpus", "make_input", "mutated"]

#: What is searched for branches.
CORE = ("trio_streamrpc.protocol",)

CORPUS = Path(__file__).parent / "corpus"

LIMITS = Limits(
    max_message_bytes=8_192, max_message_frames=64, max_value_bytes=16_384,
    max_partial_bytes=32_768, max_calls=4, max_uploads=4, violation_budget=10,
    violation_refill=1e-9,
)  # fmt: skip

#: The bits of the first byte.
ACCEPTING, JSON, GREETED = 1, 2, 4


def check_input(data: bytes) -> None:
    """Hear it all: frames or RemoteProtocolError, and nothing else, within what was granted."""
    if not data:
        return
    flags, rest = data[0], data[1:]
    encoding: Encoding = "json" if flags & JSON else "msgpack"
    side: Side = "accepting" if flags & ACCEPTING else "connecting"
    endpoint = Endpoint(side, encoding=encoding, limits=LIMITS)
    if flags & GREETED:
        hear(endpoint, encode_message(encoding, {"type": "hello", "version": 1}))
        if side == "connecting":
            endpoint.call("unary", b"[]" if flags & JSON else b"\x90")
            endpoint.call("stream", b"[]" if flags & JSON else b"\x90", window=LIMITS.window)
            endpoint.next_message()
    for message in messages(rest):
        said: bytes | str = message
        if encoding == "json":
            said = message.decode("utf-8", "surrogateescape")
        decode(encoding, said)
        hear(endpoint, said)


def decode(encoding: Encoding, message: bytes | str) -> None:
    codec = codec_for(encoding, max_bytes=LIMITS.max_message_bytes, max_frames=64)
    frames = None
    with suppress(RemoteProtocolError):
        frames = codec.decode(message)
    assert frames is None or all(isinstance(each, Frame) for each in frames)


def hear(endpoint: Endpoint, message: bytes | str) -> None:
    events: list[Any] = []
    try:
        events = endpoint.receive(message)
    except RemoteProtocolError:
        assert endpoint.failed
    assert all(isinstance(each, Frame | Overflow) for each in events)
    if endpoint.peer_hello is not None and not endpoint.ready and not endpoint.failed:
        with suppress(RemoteProtocolError):
            endpoint.accept()
    while endpoint.next_message() is not None:
        pass
    assert endpoint.partial_bytes <= LIMITS.max_partial_bytes
    assert endpoint.uploads <= 2 * LIMITS.max_uploads
    assert 0 <= endpoint.places.running <= LIMITS.max_calls
    assert len(endpoint.exchanges) <= 2 + 2 * LIMITS.max_uploads + LIMITS.max_calls * 65


def messages(data: bytes) -> Iterator[bytes]:
    """The messages of an input."""
    while len(data) >= 2:
        size = int.from_bytes(data[:2], "big")
        yield data[2 : 2 + size]
        data = data[2 + size :]
    if data:
        yield data


def make_input(flags: int, *said: bytes | str) -> bytes:
    """An input of these messages."""
    found = bytearray([flags])
    for each in said:
        message = each.encode() if isinstance(each, str) else each
        found += len(message).to_bytes(2, "big") + message
    return bytes(found)


def corpus() -> list[bytes]:
    """The inputs that are kept: what each kind of frame looks like, and what was once found."""
    return [each.read_bytes() for each in sorted(CORPUS.iterdir())]


def mutated(source: random.Random, inputs: list[bytes]) -> bytes:
    """One of the inputs with some damage, or pieces of two."""
    data = bytearray(source.choice(inputs))
    for _ in range(source.randint(1, 6)):
        at = source.randrange(len(data) + 1)
        how = source.randrange(7)
        if how == 0 and at < len(data):
            data[at] = source.randrange(256)
        elif how == 1 and at < len(data):
            data[at] ^= 1 << source.randrange(8)
        elif how == 2:
            del data[at : at + source.randint(1, 8)]
        elif how == 3:
            data[at:at] = source.randbytes(source.randint(1, 8))
        elif how == 4:
            other = source.choice(inputs)
            start = source.randrange(len(other) + 1)
            data[at:at] = other[start : start + source.randint(1, 60)]
        elif how == 5:
            data[at:at] = data[at : at + source.randint(1, 40)] * source.randint(1, 30)
        elif at + 4 <= len(data):
            edge = source.choice([0, 1, 2**31 - 1, 2**32 - 1])
            data[at : at + 4] = edge.to_bytes(4, "big")
    return bytes(data[:8_192])


def mutate_for(seconds: float, seed: int = 0) -> int:
    """Mutate blindly for so long; how many inputs that were."""
    source, inputs, count = random.Random(seed), corpus(), 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        data = mutated(source, inputs)
        try:
            check_input(data)
        except BaseException:
            sys.stderr.write(f"seed {seed}, input {count}: {data!r}\n")
            raise
        count += 1
    return count


def main() -> None:
    if "--mutate" in sys.argv:
        seconds = float(sys.argv[sys.argv.index("--mutate") + 1])
        sys.stdout.write(f"{mutate_for(seconds)} inputs\n")
        return
    try:
        import atheris
    except ModuleNotFoundError:
        sys.stdout.write(f"without Atheris: {mutate_for(60)} inputs, mutated blindly\n")
        return
    for each in gc.get_objects():
        # In place, wherever they are looked up: the core, and not what makes the inputs.
        if isinstance(each, FunctionType) and (each.__module__ or "").startswith(CORE):
            atheris.instrument_func(each)
    # What is new goes into the first directory, which is not to be the one that is kept.
    with tempfile.TemporaryDirectory() as found:
        atheris.Setup(
            [*sys.argv, "-timeout=5", "-rss_limit_mb=1024", found, str(CORPUS)], check_input
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
