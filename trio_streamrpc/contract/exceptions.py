"""Exceptions that arrive as themselves: those in ``@rpc(errors=…)``, and no others (R22).

An attrs exception's fields travel as an object, any other exception's ``args`` as an array. The
name on the wire is looked up in the method's own list alone.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import msgspec

from trio_streamrpc.contract import hints

if TYPE_CHECKING:
    from trio_streamrpc.contract.payloads import Payloads

__all__ = ["ErrorCodec"]

Data = bytes | msgspec.Raw


class ErrorCodec:
    """The exceptions of one method, in one encoding."""

    def __init__(self, label: str, errors: tuple[type[Exception], ...], payloads: Payloads) -> None:
        self._codecs = {each.__name__: ClassCodec(label, each, payloads) for each in errors}
        self._classes = {each: each.__name__ for each in errors}

    def encode(self, error: BaseException) -> tuple[str, bytes | None] | None:
        """The name and the data of a listed exception; None for any other.

        An instance of a subclass arrives as the nearest base that is listed. The data is None if
        it cannot be encoded.
        """
        for cls in type(error).__mro__:
            name = self._classes.get(cls)
            if name is not None:
                return name, self._codecs[name].encode(error)
        return None

    def decode(self, name: str | None, message: str, data: Data | None) -> Exception | None:
        """The exception of this name, or None: an unlisted name, or data that does not make it.

        The message is not looked at: what an exception says follows from its data.
        """
        codec = self._codecs.get(name or "")
        return None if codec is None else codec.decode(data)


class ClassCodec:
    """One listed exception class."""

    def __init__(self, label: str, cls: type[Exception], payloads: Payloads) -> None:
        self.cls = cls
        self.fields = fields_of(cls)
        self.is_whole = payloads.has_hook(cls)
        """Whether a user's hook makes it, and not its fields or its args."""

        what = f"{label}(), @rpc(errors=…): {cls.__name__}"
        self._encode = payloads.encoder(cls if self.is_whole else Any)
        self._encoders = {}
        self._decoders = {}
        try:
            self._decode = payloads.compiled(cls) if self.is_whole else payloads.compiled()
            for name, (_, annotation) in (self.fields or {}).items():
                self._encoders[name] = payloads.encoder(annotation)
                self._decoders[name] = payloads.compiled(annotation)
        except Exception as problem:
            raise TypeError(f"{what}: {problem}") from problem
        self._splice = payloads.splice
        self._split_map = payloads.split_map
        self._split_list = payloads.split_list

    def encode(self, error: BaseException) -> bytes | None:
        """Its data; None where something in it cannot be encoded."""
        try:
            if self.is_whole:
                return self._encode(error)
            if self.fields is None:
                return self._encode(error.args)
            return self._splice(
                {
                    name: msgspec.Raw(encode(getattr(error, name)))
                    for name, encode in self._encoders.items()
                }
            )
        except Exception:
            return None

    def decode(self, data: Data | None) -> Exception | None:
        """The exception itself; None where the data does not make one."""
        if data is None:
            return None
        try:
            if self.is_whole:
                made = self._decode(data)
            elif self.fields is None:
                made = self.cls(*map(self._decode, self._split_list(data)))
            else:
                raw = self._split_map(data)
                made = self.cls(
                    **{
                        argument: self._decoders[name](raw[name])
                        for name, (argument, _) in self.fields.items()
                        if name in raw
                    }
                )
        except Exception:
            return None
        return made if isinstance(made, self.cls) else None


def fields_of(cls: type[Exception]) -> dict[str, tuple[str, Any]] | None:
    """The fields of an attrs or a dataclass exception: the argument for each, and its type."""
    found = getattr(cls, "__attrs_attrs__", None)
    if found is None:
        if not dataclasses.is_dataclass(cls):
            return None
        found = dataclasses.fields(cls)
    types = hints.class_hints(cls)
    return {
        each.name: (getattr(each, "alias", None) or each.name, types.get(each.name, Any))
        for each in found
        if each.init
    }
