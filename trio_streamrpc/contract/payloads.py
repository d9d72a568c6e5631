"""Typed values ↔ payload bytes, compiled once per type.

msgspec does everything that it knows; what it does not know, and everything where a user has given
a ``cattrs`` converter, goes by way of builtins (see ``conversions``). Either way a value that does
not fit its annotation is refused, with the path to it.

What an encoding cannot hold is refused when it is encoded. JSON has no NaN and no infinity: msgspec
writes null for them, so a null is looked into. What has no annotation comes as the encoding has it:
in JSON, bytes are base64 text and every key of an object is a string.

Equal values arrive, not always the same ones: msgpack gives aware datetimes back in UTC, and JSON
rounds the offsets that are no whole minutes, as RFC 3339 knows no others.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable
from typing import Any

import cattrs
import msgspec
import msgspec.inspect

from trio_streamrpc.contract.conversions import Conversion, Encoding
from trio_streamrpc.contract.problems import explain
from trio_streamrpc.contract.shapes import Survey, check_fields, check_finite, survey
from trio_streamrpc.errors import InvalidArgument

__all__ = ["Decode", "Encode", "Encoding", "Payloads", "payloads_for"]

Encode = Callable[[Any], bytes]
Decode = Callable[[bytes | msgspec.Raw], Any]


class Payloads:
    """The codecs of one encoding, with or without a user's converter.

    One is made for a server or a client and shared by its connections: what it compiles it keeps.
    """

    def __init__(self, encoding: Encoding, converter: cattrs.Converter | None = None) -> None:
        if encoding not in ("msgpack", "json"):
            raise ValueError(f"the encoding is 'msgpack' or 'json', not {encoding!r}")
        if converter is not None and not isinstance(converter, cattrs.Converter):
            raise TypeError(f"the converter must be a cattrs.Converter, not {converter!r}")
        self.encoding: Encoding = encoding
        self.converter = converter
        self._format: Any = msgspec.msgpack if encoding == "msgpack" else msgspec.json
        self._conversions = {
            strict: Conversion(converter, encoding, strict=strict) for strict in (False, True)
        }
        enc_hook = self._conversions[False].enc_hook
        self.splice: Encode = self._format.Encoder(enc_hook=enc_hook).encode
        """Encodes a list or a dict of values that are encoded already, as ``msgspec.Raw``."""

        self.split_list: Decode = self._format.Decoder(list[msgspec.Raw]).decode
        """Decodes an array to a list of its values' bytes; it raises what msgspec raises."""

        self.split_map: Decode = self._format.Decoder(dict[str, msgspec.Raw]).decode
        """Decodes a map to a dict of its values' bytes; it raises what msgspec raises."""

        self._decode_builtins: Decode = self._format.Decoder().decode
        self._encoders: dict[Any, Encode] = {}
        self._decoders: dict[Any, Decode] = {}

    def has_hook(self, annotation: Any) -> bool:
        """Whether the user's converter has a hook of its own for a type."""
        return self._conversions[False].is_users(annotation)

    def encoder(self, annotation: Any = Any) -> Encode:
        """What encodes values of a type.

        It raises :exc:`TypeError` or :exc:`ValueError` for what cannot be encoded.
        """
        encode: Encode = cached(self._encoders, annotation, self._new_encoder, annotation)
        return encode

    def decoder(self, annotation: Any = Any, *, strict: bool = False) -> Decode:
        """What decodes values of a type; ``strict`` refuses unknown fields at any depth.

        It raises :exc:`InvalidArgument` with the path to what is wrong, and nothing else. Raises
        :exc:`TypeError` at once for a type that neither msgspec nor the converter knows.
        """
        decode = self.compiled(annotation, strict=strict)

        def decode_checked(data: bytes | msgspec.Raw) -> Any:
            try:
                return decode(data)
            except Exception as error:
                raise InvalidArgument(explain(error)) from error

        return decode_checked

    def compiled(self, annotation: Any = Any, *, strict: bool = False) -> Decode:
        """As :meth:`decoder`, but what it returns raises whatever went wrong.

        For msgspec's own types it is the bare ``Decoder.decode``; see ``problems.explain`` for what
        it raises.
        """
        key = (strict, annotation)
        decode: Decode = cached(self._decoders, key, self._new_decoder, annotation, strict)
        return decode

    def is_native(self, annotation: Any) -> bool:
        """Whether msgspec alone is asked for a type, both ways: no converter has to know of it."""
        return is_any(annotation) or (
            self.converter is None and self._survey(annotation) is not None
        )

    def keeps_bytes(self, annotation: Any) -> bool:
        """Whether a byte string stands for itself in a type, so that a long one need not be copied.

        In JSON it does not: there, it is base64.
        """
        plain = annotation is bytes or annotation == bytes | None or is_any(annotation)
        return plain and self.encoding == "msgpack" and self.is_native(annotation)

    # Encoding

    def _new_encoder(self, annotation: Any) -> Encode:
        if self.is_native(annotation):
            return self._guarded(annotation)
        conversion = self._conversions[False]
        hashable = hashable_form(annotation)
        encode = self._guarded(Any)
        return lambda value: encode(conversion.unstructure(value, hashable))

    def _guarded(self, annotation: Any) -> Encode:
        encode = self.splice
        found = self._survey(annotation)
        if self.encoding == "msgpack" or (found is not None and found.is_floatless):
            return encode
        to_builtins, enc_hook = msgspec.to_builtins, self._conversions[False].enc_hook

        def encode_finite(value: Any) -> bytes:
            data = encode(value)
            if b"null" in data and value is not None:
                # A null may be None, a NaN, or four letters in a string.
                check_finite(to_builtins(value, enc_hook=enc_hook, str_keys=True), "$")
            return data

        return encode_finite

    # Decoding

    def _new_decoder(self, annotation: Any, strict: bool) -> Decode:
        if is_any(annotation):
            return self._decode_builtins
        conversion = self._conversions[strict]
        found = self._survey(annotation) if self.converter is None else None
        if found is None:
            structure = conversion.structure(hashable_form(annotation))
            decode_builtins = self._decode_builtins
            return lambda data: structure(decode_builtins(data))
        for custom in found.customs:
            conversion.structure(custom)
        decode: Decode = self._format.Decoder(annotation, dec_hook=conversion.dec_hook).decode
        return self._strict(decode, found.info) if strict and found.has_fields else decode

    def _strict(self, decode: Decode, info: msgspec.inspect.Type) -> Decode:
        decode_builtins = self._decode_builtins

        def decode_strict(data: bytes | msgspec.Raw) -> Any:
            value = decode(data)
            # msgspec forbids unknown fields for its Structs alone, so they are looked for apart.
            check_fields(info, decode_builtins(data), "")
            return value

        return decode_strict

    def _survey(self, annotation: Any) -> Survey | None:
        """What is in a type; None if msgspec cannot take all of it."""
        found = survey(annotation)
        return None if found is None or found.hides_fields else found


def payloads_for(encoding: Encoding, converter: cattrs.Converter | None) -> Payloads:
    """The codecs of an encoding; those without a converter are shared by all connections."""
    return _shared(encoding) if converter is None else Payloads(encoding, converter)


@functools.cache
def _shared(encoding: Encoding) -> Payloads:
    return Payloads(encoding)


def is_any(annotation: Any) -> bool:
    """Whether a value comes as it is."""
    return annotation is Any or annotation is object


def cached(cache: dict[Any, Any], key: Any, make: Callable[..., Any], *arguments: Any) -> Any:
    """What the cache holds for an annotation; one that is not hashable is compiled each time."""
    try:
        found = cache.get(key)
    except TypeError:
        return make(*arguments)
    if found is None:
        found = cache[key] = make(*arguments)
    return found


def hashable_form(annotation: Any) -> Any:
    """The annotation for cattrs, which looks types up: without ``Annotated`` where it must be."""
    try:
        hash(annotation)
    except TypeError:
        return typing.get_type_hints(types.SimpleNamespace(__annotations__={"it": annotation}))[
            "it"
        ]
    return annotation
