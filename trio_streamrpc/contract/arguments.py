"""One method's arguments, results and errors ↔ payload bytes.

The common case costs one call into msgspec each way: all arguments by position, none left out. The
careful way, which tells what is wrong in Python's own words, is only walked where that fails.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from trio_streamrpc.contract.exceptions import ErrorCodec
from trio_streamrpc.contract.problems import escaped, explain, shown
from trio_streamrpc.contract.signatures import Kind, Parameter, Role
from trio_streamrpc.errors import InternalError, InvalidArgument
from trio_streamrpc.protocol.binary import BINARY_BYTES, Binary, Encoded, Payload

if TYPE_CHECKING:
    from trio_streamrpc.contract.method import Method
    from trio_streamrpc.contract.payloads import Decode, Encode, Payloads

__all__ = ["MethodCodec", "Reference"]

Data = bytes | msgspec.Raw
EncodeValue = Callable[[Any], Encoded]
DecodeValue = Callable[[Payload], Any]
Place = int | str
#: An argument that is no data: its place, its parameter in the role that it has there, and itself.
Reference = tuple[Place, Parameter, Any]
#: Makes what stands in the place of a reference, for the parameter that takes it.
Placeholder = Callable[[Parameter], Any]

POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class MethodCodec:
    """What one method sends and receives, in one encoding.

    Raises :exc:`TypeError`, when it is made, for types that neither msgspec nor the converter
    knows.
    """

    encode_result: EncodeValue
    """A result (a stream's item, what a context yielded) as bytes, or a long byte string as itself.

    Raises :exc:`TypeError` that names the method if it cannot be encoded.
    """

    decode_result: DecodeValue
    """The result that such bytes say.

    Raises :exc:`InternalError` if it is not of the method's type: the fault is the other side's.
    """

    def __init__(self, method: Method, payloads: Payloads) -> None:
        self.label = method.label or method.name
        self.name = self.label.rpartition(".")[2] if method.label else method.name
        self.result_type = method.result_type
        # A task status never travels: the callee's runtime fills it in by name (R20).
        self.parameters = [each for each in method.parameters if each.role is not Role.TASK_STATUS]
        self.positional = [each for each in self.parameters if each.kind in POSITIONAL]
        #: The names of the arguments that are given by position, as far as they have any.
        self.names = tuple(each.name for each in self.positional)
        self.named = {each.name: each for each in self.parameters if each.kind in NAMED}
        self.variadic = self._only(inspect.Parameter.VAR_POSITIONAL)
        self.variadic_named = self._only(inspect.Parameter.VAR_KEYWORD)
        self.is_plain = all(each.role is Role.DATA for each in self.parameters)
        #: Whether some parameter takes anything, and a stream or a function among it.
        self.is_open = any(takes_anything(each) for each in self.parameters)
        self.most = None if self.variadic else len(self.positional)
        self.least = sum(not each.has_default for each in self.positional)
        required = (each for each in self.named.values() if not each.has_default)
        self.needs_names = any(each.kind is inspect.Parameter.KEYWORD_ONLY for each in required)

        #: Whether the whole list may be encoded at once, since no converter asks for types.
        self.at_once = self.is_plain and all(
            payloads.is_native(each.annotation) for each in self.parameters
        )
        self._encode_any = payloads.encoder()
        self._splice = payloads.splice
        strict = method.options.strict
        self._encoders: dict[str, Encode] = {}
        self._decoders: dict[str, Decode] = {}
        #: How the callbacks are called that its parameters take, once that was asked for.
        self.callbacks: dict[str, Method] = {}
        for each in self.parameters:
            if each.role is Role.DATA:
                with_place = f"{self.label}(), parameter {each.name!r}"
                self._encoders[each.name] = payloads.encoder(each.annotation)
                self._decoders[each.name] = compiled(payloads, each.annotation, strict, with_place)
            elif each.role is Role.UPLOAD:
                with_place = f"{self.label}(), an item of {each.name!r}"
                self._encoders[each.name] = payloads.encoder(each.item_type)
                self._decoders[each.name] = compiled(payloads, each.item_type, strict, with_place)
        self._decode_list = payloads.split_list
        self._decode_map = payloads.split_map
        self._decode_whole = self._compile_whole(payloads, strict)
        self._errors = ErrorCodec(self.label, method.options.errors, payloads)
        self.encode_error = self._errors.encode
        self.decode_error = self._errors.decode
        # What a context yields may be a remote object: no data, its place holds null (R20).
        result_type = Any if method.yields_object else method.result_type
        encode = payloads.encoder(result_type)
        what = f"{self.label}(), its result"
        try:
            decode = compiled(payloads, result_type, False, what)
        except TypeError as error:
            if method.kind not in (Kind.CONTEXT, Kind.TASK):
                raise
            raise TypeError(
                f"{error}; for an object that is called, mark its methods with @rpc"
            ) from error
        keeps_bytes = payloads.keeps_bytes(result_type)
        self.encode_result = result_encoder(self.label, method.kind, encode, keeps_bytes)
        self.decode_result = result_decoder(self.label, method, decode, keeps_bytes)
        self._keeps_bytes = payloads.keeps_bytes

    def _only(self, kind: inspect._ParameterKind) -> Parameter | None:
        return next((each for each in self.parameters if each.kind is kind), None)

    def _compile_whole(self, payloads: Payloads, strict: bool) -> Decode | None:
        """A decoder for all arguments at once, where each is given, by position, as msgspec's."""
        types = tuple(each.annotation for each in self.positional)
        if not self.at_once or self.needs_names or strict or not types:
            return None
        return payloads.compiled(tuple.__class_getitem__(types))

    # Sending

    def encode_arguments(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[bytes, bytes | None, list[Reference]]:
        """The array of the positional arguments, the map of the others, or None if it is empty, and
        the references: what is no data is null in the payloads (R19).

        Raises :exc:`TypeError` before anything is sent: in Python's words if the arguments do not
        fit the method, else naming the argument that cannot be encoded.
        """
        count = len(args)
        if (
            kwargs
            or self.needs_names
            or count < self.least
            or (self.most is not None and count > self.most)
        ):
            problem = self.misfit(count, kwargs)
            if problem:
                raise TypeError(problem)
        references = self._references(args, kwargs)
        if self.at_once and not references:
            try:
                return self._encode_any(args), self._encode_any(kwargs) if kwargs else None, []
            except Exception:
                pass  # which argument it was is found out below
        elsewhere = {place for place, _, _ in references}
        places = [self._encode_one(index, value, elsewhere) for index, value in enumerate(args)]
        named = {name: self._encode_one(name, value, elsewhere) for name, value in kwargs.items()}
        return self._splice(places), self._splice(named) if named else None, references

    def by_position(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """The same arguments, with those by name in their places that follow without a gap."""
        placed, named = list(args), dict(kwargs)
        for parameter in self.positional[len(args) :]:
            if parameter.name not in named or parameter.name not in self.named:
                break
            placed.append(named.pop(parameter.name))
        return placed, named

    def _references(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Reference]:
        """The arguments that are no data; an optional one that is None is none (R19)."""
        if self.is_plain and not self.is_open:
            return []
        found: list[Reference] = []
        places: Iterable[tuple[Place, Any]] = [*enumerate(args), *kwargs.items()]
        for place, value in places:
            parameter = self.parameter_at(place)
            if parameter.role is Role.DATA:
                role = role_of(value) if takes_anything(parameter) else None
                if role is not None:
                    found.append((place, replace(parameter, role=role), value))
            elif value is not None or not parameter.optional:
                self._check_reference(parameter, value)
                found.append((place, parameter, value))
        return found

    def _check_reference(self, parameter: Parameter, value: Any) -> None:
        if parameter.role is Role.UPLOAD:
            fits, wanted = isinstance(value, AsyncIterable), "an async iterable"
        else:
            fits, wanted = callable(value), "an async function"
        if not fits:
            raise TypeError(
                f"{self.label}(): argument {parameter.name!r} is to be {wanted}, "
                f"and is {described(value)}"
            )

    def _encode_one(
        self, place: Place, value: Any, elsewhere: Iterable[Place]
    ) -> msgspec.Raw | None:
        parameter = self.parameter_at(place)
        if parameter.role is not Role.DATA or place in elsewhere:
            return None
        try:
            return msgspec.Raw(self._encoders[parameter.name](value))
        except Exception as error:
            name = f"{parameter.name}[{place!r}]" if parameter.is_variadic else parameter.name
            raise TypeError(
                f"{self.label}(): argument {name!r}, {described(value)}, cannot be encoded: {error}"
            ) from error

    # Receiving

    def decode_arguments(
        self,
        args: Data | None,
        kwargs: Data | None = None,
        placeholders: Mapping[Place, Placeholder] = {},
    ) -> tuple[list[Any], dict[str, Any]]:
        """The arguments that a call's payloads say, checked against the method's annotations.

        ``placeholders`` makes what stands in the places of ``refs``, by index or name (R19).
        Raises :exc:`InvalidArgument`: in Python's words, or with the path to what is wrong.
        """
        whole = self._decode_whole
        if whole is not None and args is not None and kwargs is None and not placeholders:
            try:
                return list(whole(args)), {}
            except Exception:
                pass  # a default may be wanted; what is wrong, if anything, is told below
        places = self._decode_container(args, self._decode_list, "args")
        named = self._decode_container(kwargs, self._decode_map, "kwargs")
        problem = self.misfit(len(places), named)
        if problem:
            raise InvalidArgument(problem)
        for place in placeholders:
            if place not in named and not (isinstance(place, int) and 0 <= place < len(places)):
                raise InvalidArgument(f"{self.name}() has no argument at {shown_place(place)}")
        return (
            [self._decode_one(index, raw, placeholders) for index, raw in enumerate(places)],
            {name: self._decode_one(name, raw, placeholders) for name, raw in named.items()},
        )

    def _decode_container(self, data: Data | None, decode: Decode, what: str) -> Any:
        if data is None:
            return () if what == "args" else {}
        try:
            return decode(data)
        except Exception as error:
            raise InvalidArgument(f"{self.name}(): {what}: {explain(error)}") from error

    def _decode_one(
        self, place: Place, raw: msgspec.Raw, placeholders: Mapping[Place, Placeholder]
    ) -> Any:
        parameter = self.parameter_at(place)
        if place in placeholders and (parameter.role is not Role.DATA or takes_anything(parameter)):
            return placeholders[place](parameter)
        if parameter.role is Role.DATA:
            if place in placeholders:
                raise InvalidArgument(
                    f"{self.name}() takes data for {parameter.name!r}, not a {NOUNS[Role.UPLOAD]} "
                    f"or a {NOUNS[Role.CALLBACK]}"
                )
            root = f"$.{parameter.name}" + (f"[{shown_place(place)}]" * parameter.is_variadic)
            try:
                return self._decoders[parameter.name](raw)
            except Exception as error:
                raise InvalidArgument(explain(error, root)) from error
        if parameter.optional and bytes(raw) in NULLS:
            return None
        raise InvalidArgument(
            f"{self.name}() takes a {NOUNS[parameter.role]} for {parameter.name!r}: "
            "its place holds null, and 'refs' says what it is"
        )

    # Both

    def item_encoder(self, parameter: Parameter) -> EncodeValue:
        """What encodes the items of an upload; it raises :exc:`TypeError` that names it."""
        encode = self._encoders[parameter.name]
        keeps_bytes = self._keeps_bytes(parameter.item_type)

        def encode_item(item: Any) -> Encoded:
            if keeps_bytes and type(item) is bytes and len(item) >= BINARY_BYTES:
                return Binary(item)
            try:
                return encode(item)
            except Exception as error:
                raise TypeError(
                    f"{self.label}(): an item of {parameter.name!r}, {described(item)}, cannot be "
                    f"encoded: {error}"
                ) from error

        return encode_item

    def item_decoder(self, parameter: Parameter) -> DecodeValue:
        """What decodes the items of one upload, in order: ``$.ticks[3]`` is the fourth of them.

        It raises :exc:`InvalidArgument` that names the item. One that it has refused may be asked
        for again, and is counted once.
        """
        decode = self._decoders[parameter.name]
        decode_binary = binary_decoder(decode, self._keeps_bytes(parameter.item_type))
        count = 0
        refused: Payload | None = None

        def decode_item(data: Payload) -> Any:
            nonlocal count, refused
            if data is not refused:
                count += 1
            try:
                if isinstance(data, Binary):
                    return decode_binary(data)
                return decode(data)
            except Exception as error:
                refused = data
                root = f"$.{parameter.name}[{count - 1}]"
                raise InvalidArgument(explain(error, root)) from error

        return decode_item

    def parameter_at(self, place: Place) -> Parameter:
        """The parameter of an argument, by index or name; that there is one was checked."""
        if isinstance(place, int):
            found = self.positional[place] if place < len(self.positional) else self.variadic
        else:
            found = self.named.get(place, self.variadic_named)
        assert found is not None  # misfit() tells of arguments that no parameter takes
        return found

    def misfit(self, count: int, names: Iterable[str]) -> str | None:
        """What is wrong with so many positional arguments and these names, as Python says it."""
        given = set(names)
        if self.most is not None and count > self.most:
            return f"{self.name}() {self._takes(count)}"
        by_place = {each.name for each in self.positional[:count]}
        for name in sorted(given):
            if name in self.named:
                if name in by_place:
                    return f"{self.name}() got multiple values for argument {name!r}"
            elif self.variadic_named is None:
                hint = "positional-only argument passed as a keyword argument: "
                if all(name != each.name for each in self.positional):
                    hint = "unexpected keyword argument "
                article = "a" if hint.startswith("p") else "an"
                return f"{self.name}() got {article} {hint}'{escaped(name)}'"
        missing = [
            each.name
            for each in (*self.positional[count:], *self._keyword_only())
            if not each.has_default and not (each.name in given and each.name in self.named)
        ]
        if missing:
            plural = "s" * (len(missing) > 1)
            return (
                f"{self.name}() missing {len(missing)} required argument{plural}: {listed(missing)}"
            )
        return None

    def _keyword_only(self) -> Iterable[Parameter]:
        return (each for each in self.parameters if each.kind is inspect.Parameter.KEYWORD_ONLY)

    def _takes(self, count: int) -> str:
        takes = str(self.most) if self.least == self.most else f"from {self.least} to {self.most}"
        plural = "s" * (self.most != 1)
        verb = "was" if count == 1 else "were"
        return f"takes {takes} positional argument{plural} but {count} {verb} given"


NOUNS: Final = {Role.UPLOAD: "stream", Role.CALLBACK: "callback"}
NULLS: Final = (b"\xc0", b"null")


def takes_anything(parameter: Parameter) -> bool:
    """Whether nothing is said about what it takes."""
    return parameter.role is Role.DATA and (
        parameter.annotation is Any or parameter.annotation is object
    )


def role_of(value: Any) -> Role | None:
    """What a value is to a parameter that takes anything; None for data."""
    if isinstance(value, str | bytes | int | float | list | dict | tuple | None):
        return None
    if isinstance(value, AsyncIterable):
        return Role.UPLOAD
    function = value
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function) or (
        callable(function) and inspect.iscoroutinefunction(type(function).__call__)
    ):
        return Role.CALLBACK
    return None


def compiled(payloads: Payloads, annotation: Any, strict: bool, what: str) -> Decode:
    """A decoder, or a TypeError that says for what there is none."""
    try:
        return payloads.compiled(annotation, strict=strict)
    except Exception as error:
        raise TypeError(f"{what}: {error}") from error


def result_encoder(label: str, kind: Kind, encode: Encode, keeps_bytes: bool) -> EncodeValue:
    what = "an item" if kind is Kind.SERVER_STREAM else "its result"

    def encode_result(value: Any) -> Encoded:
        if keeps_bytes and type(value) is bytes and len(value) >= BINARY_BYTES:
            return Binary(value)
        try:
            return encode(value)
        except Exception as error:
            raise TypeError(
                f"{label}(): {what}, {described(value)}, cannot be encoded: {error}"
            ) from error

    return encode_result


def result_decoder(label: str, method: Method, decode: Decode, keeps_bytes: bool) -> DecodeValue:
    what = "an item" if method.kind is Kind.SERVER_STREAM else "the result"
    # Not the method: it is bound to its service, and the codec is all services'.
    result_type = method.result_type
    decode_binary = binary_decoder(decode, keeps_bytes)

    def decode_result(data: Payload) -> Any:
        try:
            if isinstance(data, Binary):
                return decode_binary(data)
            return decode(data)
        except Exception as error:
            raise InternalError(
                f"{what} of {label}() does not match {shown(result_type)}: {explain(error)}"
            ) from error

    return decode_result


def binary_decoder(decode: Decode, keeps_bytes: bool) -> Callable[[Binary], Any]:
    """What decodes a long byte string: without a copy, where its type wants no more of it."""
    if keeps_bytes:
        return lambda data: data.body
    return lambda data: decode(data.joined())


def described(value: Any) -> str:
    """A value's type, for messages: values may be long, or secret."""
    return f"of type {shown(type(value))}"


def shown_place(place: Place) -> str:
    return str(place) if isinstance(place, int) else f"'{escaped(place)}'"


def listed(names: Sequence[str]) -> str:
    """``'a', 'b' and 'c'``."""
    quoted = [repr(each) for each in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
