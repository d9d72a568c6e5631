"""A process of a peer: its lines, each waited for within a bound, and its certain end."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

__all__ = ["NoLine", "Process"]

#: How long a process may take to end by itself when its stdin is closed, in seconds.
GRACE = 2.0


class NoLine(Exception):
    """The line that was waited for did not come; the message says why."""


class Process:
    """It runs while the block does: whatever ends the block, nothing is left of it.

    The process ends by itself when its stdin is closed, which is so too when this one is killed.
    """

    def __init__(self, command: Sequence[str], variables: Mapping[str, str]) -> None:
        self._command = command
        self._variables = variables
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        self._said = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(
                self._command,
                env={**os.environ, **self._variables},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                # Ctrl-C is for the runner, which ends the others.
                start_new_session=True,
            )
        except BaseException:
            self._said.close()
            raise
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def line(self, seconds: float) -> str:
        """The next line of its stdout; raises :exc:`NoLine` if none comes within that time."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise NoLine(f"nothing came for {seconds:g} s") from None
        if line is None:
            self._lines.put(None)
            code = self._process.wait()
            raise NoLine(f"it ended with {code}: {self._last_words()}")
        return line

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        try:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            if error is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(GRACE)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join(GRACE)
            self._said.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line.decode(errors="replace").rstrip("\r\n"))
        self._lines.put(None)

    def _last_words(self) -> str:
        """The last line of its stderr."""
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "no word")[:300]
