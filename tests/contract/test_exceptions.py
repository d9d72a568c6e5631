"""Exceptions that arrive as themselves (R22)."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import attrs
import cattrs
import pytest

from trio_streamrpc.contract.exceptions import ErrorCodec
from trio_streamrpc.contract.payloads import Encoding, Payloads
from trio_streamrpc.errors import Code, RpcError


class Plain(Exception):
    pass


class Derived(Plain):
    pass


@attrs.define
class NoSuchSymbol(Exception):
    symbol: str
    when: dt.date | None = None
    _hint: str = ""
    seen: int = attrs.field(default=0, init=False)


@attrs.define
class Delisted(NoSuchSymbol):
    since: int = 0


@dataclasses.dataclass
class Busy(Exception):
    load: float


class OutOfStock(RpcError):
    code = Code.FAILED_PRECONDITION


class Picky(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} {b}")


class Unknown:
    pass


@attrs.define
class Broken(Exception):
    value: Unknown


class Changeling(Exception):
    def __new__(cls, *args: object) -> Any:
        return 5 if args else super().__new__(cls)


@pytest.fixture(params=["msgpack", "json"])
def payloads(request: pytest.FixtureRequest) -> Payloads:
    encoding: Encoding = request.param
    return Payloads(encoding)


def as_any(value: Any) -> Any:
    return value


def travel(payloads: Payloads, errors: tuple[type[Exception], ...], error: Exception) -> Any:
    codec = ErrorCodec("Market.price", errors, payloads)
    encoded = codec.encode(error)
    if encoded is None:
        return None
    name, data = encoded
    return codec.decode(name, str(error), data)


@pytest.mark.parametrize(
    "error",
    [
        Plain(),
        Plain("a", 1, None, [2.5]),
        NoSuchSymbol("ACME"),
        NoSuchSymbol("ACME", dt.date(2020, 1, 1), "hint"),
        Busy(0.5),
        OutOfStock("none left"),
        KeyError("x"),
    ],
)
def test_listed_exceptions_arrive_as_themselves(payloads: Payloads, error: Exception) -> None:
    """R22: by the method's own list, with their fields or their args."""
    back = travel(payloads, (type(error),), error)
    assert type(back) is type(error)
    if isinstance(error, NoSuchSymbol):
        assert attrs.asdict(as_any(back)) == attrs.asdict(error)
    elif dataclasses.is_dataclass(error):
        assert back == error
    else:
        assert back.args == error.args


def test_unlisted_exceptions_do_not(payloads: Payloads) -> None:
    """R22: no name on the wire is looked up anywhere else."""
    codec = ErrorCodec("Market.price", (Plain,), payloads)
    assert codec.encode(KeyError("x")) is None
    for name in ("KeyError", "SystemExit", "Derived", "builtins.KeyError", "", None):
        assert codec.decode(name, "x", payloads.encoder()([])) is None


def test_a_subclass_arrives_as_the_nearest_listed_base(payloads: Payloads) -> None:
    assert type(travel(payloads, (Exception, Plain), Derived("a"))) is Plain
    assert type(travel(payloads, (Derived, Plain), Derived("a"))) is Derived
    back = travel(payloads, (NoSuchSymbol,), Delisted("ACME", since=5))
    assert attrs.asdict(back) == attrs.asdict(NoSuchSymbol("ACME"))
    assert type(back) is NoSuchSymbol


def test_data_that_does_not_make_the_exception(payloads: Payloads) -> None:
    """The runtime then raises a RemoteError with the name and the message."""
    encode = payloads.encoder()
    codec = ErrorCodec("f", (Plain, NoSuchSymbol, Picky, Changeling), payloads)
    for name, data in (
        ("Plain", None),
        ("Plain", b"\xc1"),
        ("Plain", encode({"a": 1})),
        ("NoSuchSymbol", encode(["ACME"])),
        ("NoSuchSymbol", encode({"symbol": 5})),
        ("NoSuchSymbol", encode({})),
        ("Picky", encode(["1 2"])),
        ("Changeling", encode([1])),
    ):
        assert codec.decode(name, "message", data) is None
    assert codec.encode(Picky(1, 2)) == ("Picky", encode(["1 2"]))


def test_unknown_fields_are_ignored(payloads: Payloads) -> None:
    codec = ErrorCodec("f", (NoSuchSymbol,), payloads)
    data = payloads.encoder()({"symbol": "A", "seen": 7, "__class__": "x"})
    made: Any = codec.decode("NoSuchSymbol", "", data)
    assert attrs.asdict(made) == attrs.asdict(NoSuchSymbol("A"))


def test_what_cannot_be_encoded_travels_without_data(payloads: Payloads) -> None:
    codec = ErrorCodec("f", (Plain,), payloads)
    assert codec.encode(Plain(Unknown())) == ("Plain", None)


def test_a_field_that_nothing_can_decode_is_told_at_once(payloads: Payloads) -> None:
    with pytest.raises(TypeError, match=r"^f\(\), @rpc\(errors=…\): Broken: Unknown is a type"):
        ErrorCodec("f", (Broken,), payloads)


def test_a_users_hook_for_the_class_makes_it() -> None:
    converter = cattrs.Converter()
    converter.register_unstructure_hook(Picky, lambda error: [1, 2])
    converter.register_structure_hook(Picky, lambda value, _: Picky(*value))
    back = travel(Payloads("json", converter), (Picky,), Picky(1, 2))
    assert str(back) == "1 2"


def test_fields_whose_types_are_not_there_are_taken_as_they_come(payloads: Payloads) -> None:
    @attrs.define
    class Local(Exception):
        value: NotThere  # type: ignore[name-defined]  # noqa: F821

    back = travel(payloads, (Local,), Local([1]))
    assert back.value == [1]
