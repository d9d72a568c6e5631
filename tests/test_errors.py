"""errors.py: the tree, the codes, and what stands for what (R22)."""

import inspect
import pickle
import re

import pytest

from trio_streamrpc import errors
from trio_streamrpc.errors import (
    ERRORS_BY_CODE,
    CleanupTimeout,
    Code,
    ConnectionLost,
    LocalProtocolError,
    NotFound,
    ProtocolError,
    RemoteError,
    RemoteProtocolError,
    RpcError,
    Unavailable,
)

CLASSES = {
    name: each
    for name, each in vars(errors).items()
    if inspect.isclass(each) and issubclass(each, RpcError)
}


def test_codes() -> None:
    """R22: gRPC's codes but OK, and two of this protocol's own, each spelt like its name."""
    assert [str(code) for code in Code] == [
        "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
        "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
        "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
        "UNAUTHENTICATED", "PROTOCOL_ERROR", "FLOW_CONTROL",
    ]  # fmt: skip
    assert all(code.name == code.value for code in Code)


def test_every_code_has_a_class_that_carries_it() -> None:
    assert list(ERRORS_BY_CODE) == list(Code)
    assert {code: each.code for code, each in ERRORS_BY_CODE.items()} == {c: c for c in Code}
    assert len(set(ERRORS_BY_CODE.values())) == len(Code)


def test_public_names() -> None:
    assert set(errors.__all__) == {*CLASSES, "Code", "ERRORS_BY_CODE"}


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    drawn: dict[str, tuple[str, str | None]] = {}
    parents = ["RpcError"]
    for line in errors.__doc__.splitlines():
        found = re.match(r"    ([│ ]*)[├└]── (\w+) *([A-Z_]{5,})?", line)
        if found:
            depth = len(found[1]) // 4 + 1
            drawn[found[2]] = (parents[depth - 1], found[3])
            parents[depth:] = [found[2]]
    assert drawn.keys() == CLASSES.keys() - {"RpcError"}
    for name, (parent, code) in drawn.items():
        [base] = CLASSES[name].__bases__
        assert base.__name__ == parent
        assert code is None or CLASSES[name].code == code
        assert code is not None or CLASSES[name].code == CLASSES[parent].code


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_any_error(kind: type[RpcError]) -> None:
    error = kind("why")
    assert (error.message, str(error)[-3:], error.args) == ("why", "why", ("why",))
    assert error.name == kind.__name__
    assert error.code is kind.code
    assert (error.data, error.traceback, error.causes, error.retry) == (None, None, (), False)
    assert kind.__doc__


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_errors_survive_pickling(kind: type[RpcError]) -> None:
    error = kind("why")
    error.retry = True
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert vars(again) == vars(error)


def test_an_error_without_a_message_shows_its_code() -> None:
    assert str(NotFound()) == "NOT_FOUND"
    assert NotFound().message == ""


def test_a_message_is_text_whatever_was_given() -> None:
    """``raise NotFound(key)``: what is no text would make an error that the other side refuses."""
    assert NotFound(5).message == "5"  # type: ignore[arg-type]
    assert ProtocolError(OSError("x")).message == "x"  # type: ignore[arg-type]


def test_code_and_data_may_be_chosen() -> None:
    error = RpcError("sold out", code=Code.ABORTED, data={"left": 0})
    assert error.code is Code.ABORTED
    assert error.data == {"left": 0}
    assert RpcError(code="NOT_FOUND").code is Code.NOT_FOUND  # type: ignore[arg-type]
    assert RpcError.code is Code.UNKNOWN
    with pytest.raises(ValueError, match="NO_SUCH"):
        RpcError(code="NO_SUCH")  # type: ignore[arg-type]


def test_a_subclass_chooses_its_code() -> None:
    class OutOfStock(RpcError):
        code = Code.FAILED_PRECONDITION

    assert OutOfStock("none left").code is Code.FAILED_PRECONDITION
    assert OutOfStock().name == "OutOfStock"


def test_a_remote_error_is_called_as_it_was_where_it_was_raised() -> None:
    error = RemoteError("'a'")
    error.name = "KeyError"
    assert str(error) == "KeyError: 'a'"
    bare = RemoteError()
    bare.name = "StopIteration"
    assert str(bare) == "StopIteration"


def test_what_shares_a_code() -> None:
    """Classes that say more than their code are not what the code is looked up as."""
    assert ConnectionLost.code is Unavailable.code
    assert CleanupTimeout.code is Code.DEADLINE_EXCEEDED
    assert ConnectionLost not in ERRORS_BY_CODE.values()
    assert CleanupTimeout not in ERRORS_BY_CODE.values()


def test_protocol_errors_say_how_the_transport_tells_it() -> None:
    assert RemoteProtocolError("no").close_code == 1002
    assert LocalProtocolError("no", close_code=1009).close_code == 1009
    assert not issubclass(LocalProtocolError, RemoteProtocolError)
