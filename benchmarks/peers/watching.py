"""How a client looks at its server from outside: what it does, its memory, its time.

Nothing of it goes over the connection that is measured, so that it is known at once and costs
nothing there, however much waits in that connection.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING or __package__:
    from benchmarks.peers import common
else:
    import common

__all__ = ["Board", "Production", "Watched"]

CELLS = 3
PROCESS, PRODUCED, ENDED = range(CELLS)

#: What a handler produces for ever, and what it produces once before it waits for ever.
ENDLESS = {"chunks": common.CHUNK, "busy": common.TEXT.encode()}
ONCE = {"idle": common.TEXT.encode()}


class Board:
    """A few numbers that two processes share: one writes them, and the other sees them at once.

    It is a file that is mapped into the memory of both. Times are those of ``perf_counter``, which
    all processes of a machine have in common.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), CELLS * 8)
        self._cells = memoryview(self._memory).cast("d")

    @classmethod
    @contextmanager
    def new(cls) -> Iterator[Self]:
        """A client's, which hands on its path."""
        number, path = tempfile.mkstemp(prefix="board-")
        try:
            with os.fdopen(number, "wb") as file:
                file.write(bytes(CELLS * 8))
            with cls(path) as board:
                yield board
        finally:
            os.unlink(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._cells.release()
        self._memory.close()

    def sign(self) -> None:
        """Note which process this is."""
        self._cells[PROCESS] = os.getpid()

    def clear(self) -> None:
        """Before something is produced anew."""
        self._cells[PRODUCED] = self._cells[ENDED] = 0.0

    def count(self) -> None:
        """Note that one more was produced."""
        self._cells[PRODUCED] += 1

    def end(self) -> None:
        """Note that no more is produced."""
        self._cells[ENDED] = perf_counter()

    @property
    def process(self) -> int:
        """The process that has signed."""
        return int(self._cells[PROCESS])

    @property
    def produced(self) -> int:
        return int(self._cells[PRODUCED])

    @property
    def ended(self) -> float:
        """When the producer's ``finally`` ran; 0 before."""
        return float(self._cells[ENDED])


class Production:
    """What a handler of any peer produces, and that it has ended::

    with Production(path) as production:
        for data in production.of(kind):
            yield data
        await sleep_forever()
    """

    def __init__(self, path: str) -> None:
        self._board = Board(path)

    def __enter__(self) -> Self:
        self._board.sign()
        return self

    def __exit__(self, *details: object) -> None:
        with self._board:
            self._board.end()

    def of(self, kind: str) -> Iterator[bytes]:
        """Each is counted when it is made, before it is sent."""
        if kind in ONCE:
            self._board.count()
            yield ONCE[kind]
            return
        data = ENDLESS[kind]
        while True:
            self._board.count()
            yield data


class Watched:
    """A process, looked at through Linux's ``/proc``: this one if it is not said which.

    Raises :exc:`OSError` on other systems.
    """

    def __init__(self, process: int | None = None) -> None:
        self._directory = Path("/proc") / (str(process) if process else "self")

    def _memory(self, name: str) -> int:
        text = (self._directory / "status").read_text(encoding="ascii")
        line = next(each for each in text.splitlines() if each.startswith(f"{name}:"))
        return int(line.split()[1]) * 1024

    def resident(self) -> int:
        """Its memory now, in bytes."""
        return self._memory("VmRSS")

    def forget_peak(self) -> None:
        """From now on :meth:`peak` is that of the time after this."""
        with contextlib.suppress(OSError):  # not where the system does not allow it
            (self._directory / "clear_refs").write_text("5", encoding="ascii")

    def peak(self) -> int:
        """The most memory that it had, in bytes."""
        return self._memory("VmHWM")

    def processor_time(self) -> float:
        """What it has used, in seconds."""
        text = (self._directory / "stat").read_text(encoding="ascii")
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def descriptors(self) -> int:
        return len(list((self._directory / "fd").iterdir()))
