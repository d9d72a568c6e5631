"""The environments of the peers: made from pinned requirements on first use, and kept.

They are under ``.bench/`` at the root of the tree, named after a hash of their requirements, so
that a change of those makes a new one.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

__all__ = [
    "REQUIREMENTS",
    "ROOT",
    "Environment",
    "NoEnvironment",
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
        return {each: importlib.metadata.version(each) for each in packages}
    path = requirements_of(name)
    if path.suffix == ".json":
        import json

        dependencies: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["dependencies"]
        return dependencies
    lines = path.read_text(encoding="utf-8").splitlines()
    pins = (line.partition("==") for line in lines if "==" in line)
    return {package.strip(): version.strip() for package, _, version in pins}


def the_prepared(names: Iterable[str]) -> dict[str, Environment | NoEnvironment]:
    """Those environments, made where they are missing: all at once."""
    chosen = sorted(set(names))
    with ThreadPoolExecutor(max_workers=max(1, len(chosen))) as pool:
        return dict(zip(chosen, pool.map(_prepared, chosen), strict=True))


def _prepared(name: str) -> Environment | NoEnvironment:
    try:
        path = requirements_of(name)
        if path.suffix == ".json":
            return _node(name, path)
        return _python(name, path)
    except NoEnvironment as error:
        return error
    except OSError as error:
        return NoEnvironment(str(error))


def _directory(name: str, requirements: Path, *made_by: str) -> Path:
    """Where it is: another place for other requirements, and for another interpreter."""
    content = requirements.read_bytes() + "".join(made_by).encode()
    return KEPT / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"


def _python(name: str, requirements: Path) -> Environment:
    directory = _directory(name, requirements, sys.version, sys.executable)
    scripts = "Scripts" if os.name == "nt" else "bin"
    python = str(directory / scripts / f"python{sysconfig.get_config_var('EXE') or ''}")
    if not (directory / READY).exists():
        shutil.rmtree(directory, ignore_errors=True)
        uv = shutil.which("uv")
        if uv is not None:
            _run(uv, "venv", "--quiet", "--python", sys.executable, str(directory))
            _run(uv, "pip", "install", "--quiet", "--python", python, "-r", str(requirements))
        elif importlib.util.find_spec("pip") is not None:
            # The pip that is here installs for another interpreter: none has to be unpacked there.
            _run(sys.executable, "-m", "venv", "--without-pip", str(directory))
            _run(sys.executable, "-m", "pip", "--python", python, *_install(requirements))
        else:
            _run(sys.executable, "-m", "venv", str(directory))
            _run(python, "-m", "pip", *_install(requirements))
        (directory / READY).touch()
    return Environment(python, directory)


def _install(requirements: Path) -> list[str]:
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    return ["install", *quiet, "--only-binary=:all:", "-r", str(requirements)]


def _node(name: str, requirements: Path) -> Environment:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NoEnvironment("Node.js with npm is not there")
    directory = _directory(name, requirements)
    if not (directory / READY).exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        shutil.copy(requirements, directory / "package.json")
        _run(npm, "install", "--no-audit", "--no-fund", "--loglevel=error", cwd=directory)
        (directory / READY).touch()
    return Environment(node, directory)


def _run(*command: str, cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            check=False,
            cwd=cwd,
            errors="replace",
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise NoEnvironment(f"{Path(command[0]).name} took over {PATIENCE:.0f} s") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it failed"]
        raise NoEnvironment(said[-1][:200])
