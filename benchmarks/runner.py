"""Running the peers in turn, round after round, and collecting what they measure."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.environments import Environment
from benchmarks.processes import NoLine, Process
from benchmarks.registry import SCRIPTS, Contestant
from benchmarks.workloads import Effort, Workload

__all__ = ["Failure", "Results", "number_of", "run"]

#: How long a server may take to say where it is, in seconds.
START = 20.0

#: What a peer measured of one workload: "value", and what it has to say beside it.
Figures = dict[str, float]


@dataclass(frozen=True)
class Failure:
    """Why there is no figure."""

    reason: str


@dataclass
class Results:
    rounds: list[dict[str, dict[str, Figures]]] = field(default_factory=list)
    """For each round, the figures by the names of workload and contestant."""
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    """Why a contestant has no figure for a workload, by both names."""

    def not_measured(self) -> list[str]:
        """What failed, in lines: one for all that a contestant could not for the same reason."""
        found: dict[tuple[str, str], list[str]] = {}
        for (contestant, workload), reason in self.failures.items():
            found.setdefault((contestant, reason), []).append(workload)
        return [f"{name} {', '.join(each)}: {reason}" for (name, reason), each in found.items()]

    def has_figures(self) -> bool:
        """Whether there is anything to report."""
        return any(figures for each in self.rounds for figures in each.values())

    def add(self, contestant: str, workload: str, outcome: Figures | Failure) -> None:
        """Take what the last round gave. What failed once has no figure: none of a part."""
        if isinstance(outcome, Failure):
            self.failures[contestant, workload] = outcome.reason
            for each in self.rounds:
                each.get(workload, {}).pop(contestant, None)
        else:
            self.rounds[-1].setdefault(workload, {})[contestant] = outcome


def run(
    contestants: Sequence[Contestant],
    environments: Mapping[str | None, Environment],
    workloads: Sequence[Workload],
    effort: Effort,
    rounds: int,
) -> Results:
    """Measure all of them, one after the other, and as often as that."""
    results = Results()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        for number in range(1, rounds + 1):
            results.rounds.append({})
            for contestant in contestants:
                chosen = [
                    each
                    for each in workloads
                    if each.name in contestant.peer.workloads
                    and (contestant.name, each.name) not in results.failures
                ]
                if not chosen:
                    continue
                environment = environments[contestant.peer.environment]
                told = []
                for each, outcome in measure(contestant, environment, chosen, effort, directory):
                    results.add(contestant.name, each.name, outcome)
                    if not isinstance(outcome, Failure):
                        told.append(f"{each.name} {number_of(outcome['value'])} {each.unit}")
                tell(f"round {number} of {rounds}: {contestant.name}: {', '.join(told) or 'none'}")
    return results


def number_of(value: float) -> str:
    """For people: three digits, and all those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def tell(line: str) -> None:
    """Say how it goes; stdout is for results."""
    print(line, file=sys.stderr, flush=True)


def measure(
    contestant: Contestant,
    environment: Environment,
    workloads: Sequence[Workload],
    effort: Effort,
    directory: str,
) -> Iterator[tuple[Workload, Figures | Failure]]:
    """One contestant's round: its server and its client, both ended when all is measured.

    After a workload that crashed or hung the others get processes of their own.
    """
    command = environment.command(SCRIPTS / contestant.peer.script)
    variables = {**_variables(environment), "TMPDIR": directory}
    pending = list(workloads)
    while pending:
        with Process([*command, "serve", contestant.transport], variables) as server:
            try:
                address = server.line(START)
            except NoLine as error:
                # Not served: nothing of it can be measured.
                for each in pending:
                    yield each, Failure(f"its server: {error}")
                return
            sizes = [f"{each.name}={effort.size(each)}" for each in pending]
            measuring = [*command, "measure", address, str(effort.seconds), *sizes]
            with Process(measuring, variables) as client:
                failed = False
                while pending and not failed:
                    outcome = _next(client, pending[0], effort)
                    failed = isinstance(outcome, Failure)
                    yield pending.pop(0), outcome


def _next(client: Process, workload: Workload, effort: Effort) -> Figures | Failure:
    try:
        line = client.line(effort.bound(workload))
    except NoLine as problem:
        return Failure(str(problem))
    try:
        said = json.loads(line)
        if "error" in said:
            return Failure(str(said["error"]))
        name = said.pop("workload")
        figures = {key: float(value) for key, value in said.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        return Failure(f"it said {line[:100]!r}")
    if name != workload.name or not figures.get("value", -1) >= 0:
        return Failure(f"it said {line[:100]!r}")
    return figures


def _variables(environment: Environment) -> dict[str, str]:
    """What is set for a peer: nothing of a proxy, which is not for connections to oneself."""
    proxies = (each for each in os.environ if each.lower().endswith("_proxy"))
    return {**dict.fromkeys(proxies, ""), **environment.variables}
