"""conformance/codecs.py: our codecs keep it all; codecs with one fault each are found out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from tests.protocol.wire import BOTH
from trio_streamrpc.errors import RemoteProtocolError
from trio_streamrpc.protocol.codecs import Codec, Encoding, JsonCodec, MsgpackCodec, codec_for
from trio_streamrpc.protocol.frames import ErrorInfo, Frame
from trio_streamrpc.testing import check_codec


@BOTH
@pytest.mark.parametrize(("max_bytes", "max_frames"), [(4096, 32), (1024 * 1024, 4096)])
def test_ours(encoding: Encoding, max_bytes: int, max_frames: int) -> None:
    """R2, R4, R28."""
    check_codec(codec_for(encoding, max_bytes=max_bytes, max_frames=max_frames))


class Loses(MsgpackCodec):
    def encode(self, batch: Iterable[Frame]) -> bytes | str:
        return super().encode([each for each in batch if each.kind != 7] or [*batch][1:])


class Leaks(MsgpackCodec):
    def decode(self, message: bytes | str) -> list[Frame] | None:
        found: list[Frame] | None = self._decoders[0](message)
        return found or None


class LeaksWhatItRead(JsonCodec):
    def decode(self, message: bytes | str) -> list[Frame] | None:
        try:
            return super().decode(message)
        except RemoteProtocolError:
            raise RemoteProtocolError(f"what is {message!r}?", close_code=1007) from None


class TakesTooMuch(JsonCodec):
    def decode(self, message: bytes | str) -> list[Frame] | None:
        return JsonCodec(max_bytes=10**9, max_frames=10**6).decode(message)


class TellsNothingOfNothing(MsgpackCodec):
    def decode(self, message: bytes | str) -> list[Frame] | None:
        return super().decode(message) or []


class Miscounts(MsgpackCodec):
    def length(self, value: str | ErrorInfo) -> int:
        return super().length(value) // 2


class TakesAnything(JsonCodec):
    def check(self, value: bytearray) -> None:
        pass


FAULTS: list[tuple[type[Any], str, type[BaseException]]] = [
    (Loses, "frames_come_back", AssertionError),
    (Leaks, "every_truncation_is_refused", msgspec.DecodeError),
    (LeaksWhatItRead, "every_truncation_is_refused", AssertionError),
    (TakesTooMuch, "limits_are_exact", AssertionError),
    (TellsNothingOfNothing, "the_empty_message_is_told_apart", AssertionError),
    (Miscounts, "lengths_are_true", AssertionError),
    (TakesAnything, "arguments_come_back_from_parts", AssertionError),
]


@pytest.mark.parametrize(("faulty", "check", "raised"), FAULTS, ids=lambda each: str(each))
def test_a_fault_is_found_and_named(
    faulty: type[Codec], check: str, raised: type[BaseException]
) -> None:
    with pytest.raises(raised) as caught:
        check_codec(faulty(max_bytes=100_000, max_frames=4096))
    assert any(f"in {check}():" in note for note in caught.value.__notes__)
