"""The command line: arguments, the plan, the run, the report."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import environments, report, runner
from benchmarks.registry import PEERS, Contestant, contestants
from benchmarks.workloads import WORKLOADS, Effort, Workload

TRANSPORTS = tuple(dict.fromkeys(each for peer in PEERS.values() for each in peer.transports))
QUICK_TRANSPORTS = ("ws", "tcp")
ROUNDS = 3

#: The load from which on it is said that the machine has other things to do.
BUSY = 0.7


@dataclass(frozen=True)
class Plan:
    """What is measured, how, and where the report goes."""

    workloads: list[Workload]
    contestants: list[Contestant]
    effort: Effort
    rounds: int
    json: str | None
    plot: str | None


def plan_of(arguments: Sequence[str]) -> Plan:
    """What the command line means; it ends the program where that is nothing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="a part of it, in less than a minute")
    add("--only", metavar="W3,W5", type=_names, help="these workloads")
    add("--peers", metavar="ours,grpc", type=_names, help="these peers, or all called so at first")
    add("--transport", metavar="ws,tcp,unix", type=_names, help="ours over these")
    add("--rounds", metavar="N", type=int, default=ROUNDS, help=f"{ROUNDS} or more")
    add("--scale", metavar="X", type=float, default=1.0, help="so many times the usual work")
    add("--json", metavar="FILE", help="write the figures as JSON; - for stdout")
    add("--plot", metavar="FILE.png", help="draw them; this needs matplotlib")
    given = parser.parse_args(arguments)
    if given.rounds < ROUNDS:
        parser.error(f"--rounds: fewer than {ROUNDS} say nothing of the spread")
    if not (given.scale > 0 and math.isfinite(given.scale)):
        parser.error("--scale: it has to be above 0, and finite")
    for option in ("only", "peers", "transport"):
        if getattr(given, option) == []:
            parser.error(f"--{option}: it names nothing")
    for option in ("json", "plot"):
        path = getattr(given, option)
        if path is not None and (option, path) != ("json", "-"):
            problem = _unwritable(Path(path))
            if problem is not None:
                parser.error(f"--{option}: {problem}")
    if given.plot is not None and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib: pip install matplotlib")
    try:
        workloads = _workloads(given.only, quick=given.quick)
        names = _peers(given.peers, quick=given.quick)
        transports = _transports(given.transport, quick=given.quick)
    except ValueError as error:
        parser.error(str(error))
    chosen = {each.name for each in workloads}
    found = [each for each in contestants(names, transports) if chosen & {*each.peer.workloads}]
    if not found:
        parser.error("no peer that is chosen measures a workload that is chosen")
    effort = Effort(given.quick, given.scale)
    return Plan(workloads, found, effort, given.rounds, given.json, given.plot)


def _unwritable(path: Path) -> str | None:
    """Why no file can be written there, as far as that can be told without doing so."""
    if path.is_dir():
        return f"{path} is a directory"
    if not path.parent.is_dir():
        return f"{path.parent} is no directory"
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        return f"{path} cannot be written"
    return None


def _names(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _workloads(names: list[str] | None, *, quick: bool) -> list[Workload]:
    if names is None:
        return [each for each in WORKLOADS.values() if each.in_quick or not quick]
    wanted = {name.lower() for name in names}
    found = [each for each in WORKLOADS.values() if each.name.lower() in wanted]
    _refuse("--only", wanted - {each.name.lower() for each in found}, WORKLOADS)
    return found


def _peers(names: list[str] | None, *, quick: bool) -> list[str]:
    if names is None:
        return [each.name for each in PEERS.values() if each.in_quick or not quick]
    matches = {name: [each for each in PEERS if _is_called(each, name)] for name in names}
    _refuse("--peers", {name for name, found in matches.items() if not found}, PEERS)
    return [each for each in PEERS if any(each in found for found in matches.values())]


def _is_called(peer: str, name: str) -> bool:
    """``grpc`` is grpc_aio, and not grpclib; ``floor`` is all floors."""
    return peer == name or peer.startswith(f"{name}_")


def _transports(names: list[str] | None, *, quick: bool) -> list[str]:
    if names is None:
        return list(QUICK_TRANSPORTS if quick else TRANSPORTS)
    _refuse("--transport", set(names) - {*TRANSPORTS}, TRANSPORTS)
    return names


def _refuse(option: str, unknown: set[str], known: Iterable[str]) -> None:
    if unknown:
        raise ValueError(f"{option}: {', '.join(sorted(unknown))} is none of {', '.join(known)}")


def prepared(
    found: list[Contestant],
) -> tuple[list[Contestant], dict[str | None, environments.Environment]]:
    """Those whose environment can be had, and the environments."""
    names = {each.peer.environment for each in found}
    ready: dict[str | None, environments.Environment] = {}
    made = environments.the_prepared(each for each in names if each is not None)
    for name, environment in made.items():
        if isinstance(environment, environments.NoEnvironment):
            runner.tell(f"without the peers in {name}: {environment}")
        else:
            ready[name] = environment
    if None in names:
        try:
            ready[None] = environments.the_own_one()
        except environments.NoEnvironment as error:
            runner.tell(f"without ours: {error}")
    return [each for each in found if each.peer.environment in ready], ready


def main(arguments: Sequence[str]) -> int:
    plan = plan_of(arguments)
    # Asked to stop, it stops as with Ctrl-C: what it started is ended first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    busy = report.load()
    if busy is not None and busy > BUSY:
        runner.tell(f"the machine is busy (load {busy} in the last minute): figures will be lower")
    try:
        found, ready = prepared(plan.contestants)
        if None in ready:
            for line in environments.other_than_pinned():
                runner.tell(line)
        runner.tell(f"the environments are there after {time.monotonic() - started:.1f} s")
        results = runner.run(found, ready, plan.workloads, plan.effort, plan.rounds)
    except KeyboardInterrupt:
        runner.tell("interrupted: nothing is left running")
        return 130
    runner.tell(f"measured after {time.monotonic() - started:.1f} s")
    for line in results.not_measured():
        runner.tell(f"no figure: {line}")
    written = write(plan, results, found)
    missing = missing_of(plan, results, found)
    if missing:
        runner.tell(f"missing, or in part: {', '.join(each.name for each in missing)}")
    if any(each.peer.name == "ours" for each in missing):
        return 1
    return 0 if written and results.has_figures() else 1


def write(plan: Plan, results: runner.Results, found: Sequence[Contestant]) -> bool:
    """Write what was asked for. Where that fails, what was measured is not lost: the JSON goes to
    stderr, and the answer is False."""
    # With the JSON on stdout, the tables go where the progress went.
    text = report.as_text(results, plan.workloads, found)
    print(text, file=sys.stderr if plan.json == "-" else sys.stdout)
    figures = report.as_json(results, plan.workloads, found, medians_only=plan.effort.quick)
    content = json.dumps(figures, indent=2, ensure_ascii=False)
    try:
        if plan.json == "-":
            print(content)
        elif plan.json is not None:
            Path(plan.json).write_text(f"{content}\n", encoding="utf-8")
        if plan.plot is not None:
            report.plot(results, plan.workloads, plan.plot)
    except (ImportError, OSError, ValueError) as error:
        runner.tell(f"not written: {error}")
        runner.tell(content)
        return False
    return True


def missing_of(
    plan: Plan, results: runner.Results, found: Sequence[Contestant]
) -> list[Contestant]:
    """Those that were to be measured and were not, or failed in something."""
    failed = {contestant for contestant, _ in results.failures}
    return [each for each in plan.contestants if each not in found or each.name in failed]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
