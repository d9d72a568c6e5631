"""What a call is made with besides its arguments: ``with_options``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from trio_streamrpc.limits import Window, not_a_window
from trio_streamrpc.runtime.calls import EMPTY

if TYPE_CHECKING:
    from trio_streamrpc.contract.payloads import Payloads

__all__ = ["NO_OPTIONS", "Options", "check_metadata", "encoded_metadata"]

#: R12: what a priority may be.
PRIORITIES: Final = range(-128, 128)


def check_metadata(metadata: Any, payloads: Payloads | None = None) -> None:
    """Raise :exc:`TypeError` for what is no metadata; with ``payloads``, also if they cannot encode
    it."""
    if metadata is not None:
        _check_mapping(metadata)
        if payloads is not None:
            encoded_metadata(metadata, payloads)


def encoded_metadata(metadata: Mapping[str, Any], payloads: Payloads) -> bytes:
    """What a connection is opened with, as it travels.

    Raises :exc:`TypeError` if it cannot be encoded.
    """
    try:
        return payloads.encoder()(dict(metadata))
    except Exception as error:
        raise TypeError(f"the metadata cannot be encoded: {error}") from error


def _check_mapping(metadata: Any) -> None:
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a mapping, not {metadata!r}")
    if not all(isinstance(name, str) for name in metadata):
        raise TypeError("the names in metadata must be strings")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of calls.

    Raises :exc:`TypeError` or :exc:`ValueError` for what cannot be one.
    """

    metadata: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    window: Window | None = None
    priority: int = 0

    def __post_init__(self) -> None:
        _check_mapping(self.metadata)
        if self.window is not None and not isinstance(self.window, Window):
            raise TypeError(
                f"the window of a stream must be a Window, not {not_a_window(self.window)}"
            )
        if type(self.priority) is not int:
            raise TypeError(f"a priority must be an integer, not {self.priority!r}")
        if self.priority not in PRIORITIES:
            raise ValueError(f"a priority lies between -128 and 127, not at {self.priority}")

    def over(
        self, metadata: Mapping[str, Any] | None, window: Window | None, priority: int | None
    ) -> Options:
        """These options, with those that are given in their place; metadata is added."""
        if metadata is not None:
            _check_mapping(metadata)
        return Options(
            {**self.metadata, **(metadata or {})},
            self.window if window is None else window,
            self.priority if priority is None else priority,
        )

    def or_window(self, window: Window | None) -> Options:
        """These options, with that window where they have none."""
        return replace(self, window=window) if self.window is None and window else self

    def with_metadata(self, metadata: Mapping[str, Any]) -> Options:
        """The same with other metadata."""
        return self if metadata is self.metadata else replace(self, metadata=metadata)

    def encoded(self, payloads: Payloads) -> bytes:
        """The metadata as it travels. Raises :exc:`TypeError` if it cannot be encoded."""
        try:
            return payloads.encoder()(dict(self.metadata))
        except Exception as error:
            raise TypeError(f"the metadata of a call cannot be encoded: {error}") from error


NO_OPTIONS: Final = Options()
