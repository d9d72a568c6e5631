"""What a call is made with besides its arguments: ``with_options``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from trio_streamrpc.limits import Window
from trio_streamrpc.runtime.calls import EMPTY

if TYPE_CHECKING:
    from trio_streamrpc.contract.payloads import Payloads

__all__ = ["NO_OPTIONS", "Options"]

#: R12: what a priority may be.
PRIORITIES: Final = range(-128, 128)


@dataclass(frozen=True, slots=True)
class Options:
    """The options of calls.

    Raises :exc:`TypeError` or :exc:`ValueError` for what cannot be one.
    """

    metadata: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    window: Window | None = None
    priority: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.metadata, Mapping):
            raise TypeError(f"metadata must be a mapping, not {self.metadata!r}")
        if not all(isinstance(name, str) for name in self.metadata):
            raise TypeError("the names in metadata must be strings")
        if self.window is not None and not isinstance(self.window, Window):
            raise TypeError(f"the window of a stream must be a Window, not {self.window!r}")
        if type(self.priority) is not int:
            raise TypeError(f"a priority must be an integer, not {self.priority!r}")
        if self.priority not in PRIORITIES:
            raise ValueError(f"a priority lies between -128 and 127, not at {self.priority}")

    def over(
        self, metadata: Mapping[str, Any] | None, window: Window | None, priority: int | None
    ) -> Options:
        """These options, with those that are given in their place; metadata is added."""
        if metadata is not None and not isinstance(metadata, Mapping):
            raise TypeError(f"metadata must be a mapping, not {metadata!r}")
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
