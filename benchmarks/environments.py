"""The environments of the peers: made from pinned requirements on first use, and kept.

They are under ``.bench/`` at the root of the tree, named after a hash of their requirements, so
that a change of those makes a new one.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import tomllib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

__all__ = [
    "REQUIREMENTS",
    "ROOT",
    "Environment",
    "NoEnvironment",
    "commit",
    "other_than_pinned",
    "requirements_of",
    "the_own_one",
    "the_prepared",
    "versions_of",
]

ROOT = Path(__file__).parent.parent
REQUIREMENTS = Path(__file__).parent / "requirements"
KEPT = ROOT / ".bench"

#: Written last: an environment without it was not finished.
READY = "ready"

#: How long an installation may take, in seconds.
PATIENCE = 300.0

#: Words of installers on a network that is not there.
OF_NETWORK = ("connection", "retrying", "resolve", "unreachable")


class NoEnvironment(Exception):
    """An environment that cannot be made; its message fits in a line."""


@dataclass(frozen=True)
class Environment:
    """What a peer's script is run by."""

    interpreter: str
    directory: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    def command(self, script: Path) -> list[str]:
        if script.suffix != ".mjs":
            return [self.interpreter, str(script)]
        # Node looks for packages beside the script.
        assert self.directory is not None
        for each in script.parent.glob("*.mjs"):
            shutil.copy(each, self.directory)
        return [self.interpreter, str(self.directory / script.name)]


def the_own_one() -> Environment:
    """The environment that runs the benchmarks, where it has the project or runs in its tree.

    Raises :exc:`NoEnvironment` if it has not.
    """
    found = importlib.util.find_spec("trio_streamrpc")
    if found is None or found.origin is None:
        raise NoEnvironment("trio_streamrpc cannot be imported here")
    where = str(Path(found.origin).parent.parent)
    return Environment(sys.executable, variables={"PYTHONPATH": where})


def requirements_of(name: str) -> Path:
    """The file with the pinned versions: of Python packages, or of Node's."""
    for path in (REQUIREMENTS / f"{name}.txt", REQUIREMENTS / f"{name}.package.json"):
        if path.exists():
            return path
    raise NoEnvironment(f"there are no requirements called {name}")


def versions_of(name: str | None) -> dict[str, str]:
    """What is pinned in that environment, or what is installed beside the project."""
    if name is None:
        packages = ("trio", "trio-websocket", "wsproto", "msgspec", "cattrs")
        found = {each: _installed(each) for each in packages}
        return {"trio-streamrpc": _own_version(), **found}
    path = requirements_of(name)
    if path.suffix == ".json":
        dependencies: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["dependencies"]
        return dependencies
    lines = path.read_text(encoding="utf-8").splitlines()
    pins = (line.partition("==") for line in lines if "==" in line)
    return {package.strip(): version.strip() for package, _, version in pins}


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _own_version() -> str:
    """That of the tree it is imported from, or the one that is installed."""
    try:
        content = (_own_place() / "pyproject.toml").read_text(encoding="utf-8")
    except OSError:
        return _installed("trio-streamrpc")
    version: str = tomllib.loads(content)["project"]["version"]
    return version


def _own_place() -> Path:
    return Path(the_own_one().variables["PYTHONPATH"])


def commit() -> str | None:
    """The commit of the tree that is measured, in short; None where it is no repository."""
    try:
        place = _own_place()
        if not (place / ".git").exists():
            return None
        return subprocess.run(
            ["git", "-C", str(place), "rev-parse", "--short", "HEAD"],
            capture_output=True,
            check=True,
            encoding="utf-8",
            stdin=subprocess.DEVNULL,
        ).stdout.strip()
    except (NoEnvironment, OSError, subprocess.SubprocessError):
        return None


def other_than_pinned() -> list[str]:
    """In what ours and the peers that are built on the same libraries differ, a line each."""
    pinned, own = versions_of("trio"), versions_of(None)
    return [
        f"{each} is {own[each]} for ours, and {pinned[each]} for the peers on Trio"
        for each in ("trio", "msgspec", "wsproto", "trio-websocket")
        if own[each] != pinned[each]
    ]


def the_prepared(names: Iterable[str]) -> dict[str, Environment | NoEnvironment]:
    """Those environments, made where they are missing: all at once."""
    chosen = sorted(set(names))
    commands = Commands()
    with ThreadPoolExecutor(max_workers=max(1, len(chosen))) as pool:
        try:
            made = pool.map(lambda name: _prepared(name, commands), chosen)
            return dict(zip(chosen, made, strict=True))
        finally:
            commands.stop()


def _prepared(name: str, commands: Commands) -> Environment | NoEnvironment:
    try:
        path = requirements_of(name)
        if path.suffix == ".json":
            return _node(name, path, commands)
        return _python(name, path, commands)
    except NoEnvironment as error:
        return error
    except OSError as error:
        return NoEnvironment(str(error))


def _directory(name: str, requirements: Path, *made_by: str) -> Path:
    """Where it is: another place for other requirements, and for another interpreter."""
    content = requirements.read_bytes() + "".join(made_by).encode()
    return KEPT / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"


def _python(name: str, requirements: Path, commands: Commands) -> Environment:
    directory = _directory(name, requirements, sys.version, sys.executable)
    install = ["install", "--quiet", "--only-binary=:all:", "-r", str(requirements)]

    def build(place: Path) -> None:
        python = _interpreter(place)
        try:
            _with_uv(place, python, install, commands)
        except NoEnvironment:
            # It is not there, or what pip is configured with is unknown to it.
            _with_pip(place, python, install, commands)

    _make(directory, build)
    return Environment(_interpreter(directory), directory)


def _interpreter(directory: Path) -> str:
    scripts = "Scripts" if os.name == "nt" else "bin"
    return str(directory / scripts / f"python{sysconfig.get_config_var('EXE') or ''}")


def _make(directory: Path, build: Callable[[Path], None]) -> None:
    """Have it built where nobody looks, and put it in its place when it is whole: two runs may
    do so at once, and the first to end is the one that is kept."""
    if (directory / READY).exists():
        return
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{directory.name}-", dir=KEPT) as beside:
        # What is run in it is found from where the interpreter is: it may be moved.
        place = Path(beside) / "built"
        build(place)
        (place / READY).touch()
        try:
            place.rename(directory)
        except OSError:
            if (directory / READY).exists():
                return
            # Something is there that was never finished.
            shutil.rmtree(directory, ignore_errors=True)
            place.rename(directory)


def _with_uv(directory: Path, python: str, install: list[str], commands: Commands) -> None:
    uv = shutil.which("uv")
    if uv is None:
        raise NoEnvironment("there is no uv")
    shutil.rmtree(directory, ignore_errors=True)
    commands.run(uv, "venv", "--quiet", "--python", sys.executable, str(directory))
    commands.run(uv, "pip", *install, "--python", python)


def _with_pip(directory: Path, python: str, install: list[str], commands: Commands) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    install = [*install, "--disable-pip-version-check", "--no-input"]
    if importlib.util.find_spec("pip") is None:
        commands.run(sys.executable, "-m", "venv", str(directory))
        commands.run(python, "-m", "pip", *install)
    else:
        # The pip that is here installs for another interpreter: none has to be unpacked there.
        commands.run(sys.executable, "-m", "venv", "--without-pip", str(directory))
        commands.run(sys.executable, "-m", "pip", "--python", python, *install)


def _node(name: str, requirements: Path, commands: Commands) -> Environment:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NoEnvironment("Node.js with npm is not there")
    directory = _directory(name, requirements)

    def build(place: Path) -> None:
        place.mkdir(parents=True)
        shutil.copy(requirements, place / "package.json")
        commands.run(npm, "install", "--no-audit", "--no-fund", "--loglevel=error", cwd=place)

    _make(directory, build)
    return Environment(node, directory)


def _reason(lines: list[str]) -> str:
    """The line that says why. Without a network, an installer ends by saying that there is no
    such version: what it said of the connection comes before."""
    of_network = (each for each in lines if any(word in each.lower() for word in OF_NETWORK))
    return next(of_network, lines[-1])


class Commands:
    """What is run to install: from several threads, and all of it can be stopped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def run(self, *command: str, cwd: Path | None = None) -> None:
        """Run it to its end; raises :exc:`NoEnvironment` with a line of it if it fails."""
        with self._lock:
            if self._stopped:
                raise NoEnvironment("it was interrupted")
            process = subprocess.Popen(
                command,
                cwd=cwd,
                errors="replace",
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
            )
            self._running.add(process)
        try:
            said, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            said = f"it took over {PATIENCE:.0f} s"
        finally:
            with self._lock:
                self._running.discard(process)
        if process.returncode != 0:
            lines = said.strip().splitlines() or [f"it ended with {process.returncode}"]
            raise NoEnvironment(f"{Path(command[0]).name}: {_reason(lines)[:200]}")

    def stop(self) -> None:
        """End what runs, and start no more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()
