"""Whose turn it is to be written: by priority, and without leaving anybody out (R12).

Those of one priority stand in one line, and each turn goes to the first of the line with the
highest priority. While several lines wait, every eighth turn goes round all of them instead. So
whoever waits gets a turn, within a number of turns that depends on who stands in front of it and
on how many priorities there are, and not on how much the others have to say.

Most connections never use but one priority, and then this is one list.
"""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Turns"]

T = TypeVar("T")

#: Every so many turns, one goes round the lines.
ROUND = 8


class Turns(Generic[T]):
    """Those that have something to say, in the order in which they get to say it."""

    __slots__ = ("_lower", "_priority", "_resume", "_round", "_served", "_turn", "line")

    def __init__(self) -> None:
        #: The line of the highest priority; empty only if nobody waits at all.
        self.line: list[T] = []
        self._priority = 0
        #: The other lines, none of them empty, from the highest priority to the lowest.
        self._lower: list[tuple[int, list[T]]] = []
        self._turn = 0
        #: The priority that had the last turn, and the one to which the round has come.
        self._served = 0
        self._round = 128
        #: Whether the first of ``_served`` was given back.
        self._resume = False

    def add(self, entry: T, priority: int = 0) -> None:
        """Put it at the end of its line."""
        if priority == self._priority:
            self.line.append(entry)
        else:
            self._other_line(priority).append(entry)

    def take(self) -> T:
        """Whose turn it is; somebody has to wait."""
        if self._lower:
            return self._take_of_many()
        self._resume = False
        return self.line.pop(0)

    def give_back(self, entry: T, priority: int) -> None:
        """It could not use its turn, and has the next one."""
        line = self.line if priority == self._priority else self._other_line(priority)
        line.insert(0, entry)
        self._served = priority
        self._resume = True

    def _other_line(self, priority: int) -> list[T]:
        """The line of a priority that is not the highest so far; a new one if there is none."""
        if not self.line:
            # Nobody waits: this is the highest now.
            self._priority = priority
            return self.line
        if priority > self._priority:
            self._lower.insert(0, (self._priority, self.line))
            self._priority, self.line = priority, []
            return self.line
        place = sum(each > priority for each, _ in self._lower)
        if place == len(self._lower) or self._lower[place][0] != priority:
            self._lower.insert(place, (priority, []))
        return self._lower[place][1]

    def _take_of_many(self) -> T:
        if self._resume:
            self._resume = False
            priority = self._served
        else:
            self._turn += 1
            priority = self._next_of_round() if self._turn % ROUND == 0 else self._priority
        self._served = priority
        if priority == self._priority:
            entry = self.line.pop(0)
            if not self.line:
                self._priority, self.line = self._lower.pop(0)
            return entry
        place = next(i for i, (each, _) in enumerate(self._lower) if each == priority)
        line = self._lower[place][1]
        entry = line.pop(0)
        if not line:
            del self._lower[place]
        return entry

    def _next_of_round(self) -> int:
        """The next priority below the one to which the round has come, and then from the top.

        The one that had the last turn is passed over: as a rule the highest, whose seven turns
        were just before. It is not left out of the round for being the highest alone, or one that
        is so at every eighth turn, and at no other, would never be served.
        """
        waiting = [self._priority, *(each for each, _ in self._lower)]
        others = [each for each in waiting if each != self._served]
        self._round = next((each for each in others if each < self._round), others[0])
        return self._round
