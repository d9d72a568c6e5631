"""Environments: made once, named after what is in them, and done without where that fails."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from benchmarks import environments
from benchmarks.environments import Commands, Environment, NoEnvironment


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Requirements and environments in a directory of the test; no uv."""
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    monkeypatch.setattr(environments, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    return tmp_path


class Recorded(Commands):
    """Commands that are not run; those with a word in them fail."""

    def __init__(self, failing: str = "\0") -> None:
        super().__init__()
        self.failing = failing
        self.commands: list[str] = []

    def run(self, *command: str, cwd: Path | None = None) -> None:
        self.commands.append(" ".join(command))
        if self.failing in command:
            raise NoEnvironment(f"{self.failing} failed")
        if "venv" in command:
            Path(command[-1]).mkdir(parents=True)


def made(monkeypatch: pytest.MonkeyPatch, commands: Recorded, name: str = "one") -> object:
    monkeypatch.setattr(environments, "Commands", lambda: commands)
    return environments.the_prepared([name])[name]


def test_an_environment_is_made_once(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (places / "one.txt").write_text("msgspec==0.20.0\n")
    first, second = Recorded(), Recorded()
    environment = made(monkeypatch, first)
    assert isinstance(environment, Environment)
    assert len(first.commands) == 2
    assert str(places / "one.txt") in first.commands[1]
    assert made(monkeypatch, second) == environment
    assert second.commands == []


def test_other_requirements_make_another(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (places / "one.txt").write_text("msgspec==0.20.0\n")
    before = made(monkeypatch, Recorded())
    (places / "one.txt").write_text("msgspec==0.21.0\n")
    assert made(monkeypatch, Recorded()) != before


def test_what_was_not_finished_is_made_again(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (places / "one.txt").write_text("msgspec==0.20.0\n")
    failed = made(monkeypatch, Recorded(failing="install"))
    assert str(failed) == "install failed"
    again = Recorded()
    assert isinstance(made(monkeypatch, again), Environment)
    assert len(again.commands) == 2


def test_two_first_runs_at_once(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one installs, another does all of it: both have the one that was whole first."""
    (places / "one.txt").write_text("msgspec==0.20.0\n")
    others: list[object] = []

    class Slow(Recorded):
        def run(self, *command: str, cwd: Path | None = None) -> None:
            super().run(*command, cwd=cwd)
            if "install" in command:
                others.append(made(monkeypatch, Recorded()))
                kept = others[0]
                assert isinstance(kept, Environment)
                assert kept.directory is not None
                (kept.directory / "mark").touch()

    environment = made(monkeypatch, Slow())
    assert isinstance(environment, Environment)
    assert [environment] == others
    assert environment.directory is not None
    assert (environment.directory / "mark").exists()
    assert list((places / "kept").iterdir()) == [environment.directory]


def test_what_an_interrupted_run_left_is_replaced(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (places / "one.txt").write_text("msgspec==0.20.0\n")
    environment = made(monkeypatch, Recorded())
    assert isinstance(environment, Environment)
    assert environment.directory is not None
    (environment.directory / environments.READY).unlink()
    (environment.directory / "half").touch()
    assert made(monkeypatch, Recorded()) == environment
    assert [each.name for each in environment.directory.iterdir()] == [environments.READY]


def test_uv_is_used_where_it_is_there_and_pip_where_it_fails(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (places / "one.txt").write_text("msgspec==0.20.0\n")
    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/{name}")
    commands = Recorded()
    assert isinstance(made(monkeypatch, commands), Environment)
    assert [each.split()[0] for each in commands.commands] == ["/opt/uv"] * 2

    (places / "one.txt").write_text("msgspec==0.21.0\n")
    commands = Recorded(failing="/opt/uv")
    assert isinstance(made(monkeypatch, commands), Environment)
    assert [each.split()[0] for each in commands.commands] == ["/opt/uv", *[sys.executable] * 2]


def test_without_requirements(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(made(monkeypatch, Recorded())) == "there are no requirements called one"


def test_without_node(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (places / "one.package.json").write_text('{"dependencies": {"capnweb": "0.12.0"}}')
    assert str(made(monkeypatch, Recorded())) == "Node.js with npm is not there"


def test_a_peer_for_node(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its script is run beside the packages, where Node looks for them."""
    (places / "one.package.json").write_text('{"dependencies": {"capnweb": "0.12.0"}}')
    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/{name}")
    commands = Recorded()
    environment = made(monkeypatch, commands)
    assert isinstance(environment, Environment)
    assert environment.directory is not None
    assert [each.split()[:2] for each in commands.commands] == [["/opt/npm", "install"]]
    assert (environment.directory / "package.json").exists()
    assert environments.versions_of("one") == {"capnweb": "0.12.0"}
    (places / "peer.mjs").write_text("")
    (places / "common.mjs").write_text("")
    command = environment.command(places / "peer.mjs")
    assert command == ["/opt/node", str(environment.directory / "peer.mjs")]
    assert (environment.directory / "common.mjs").exists()


def test_ours_is_where_the_project_is() -> None:
    own = environments.the_own_one()
    assert own.interpreter == sys.executable
    assert os.path.isdir(os.path.join(own.variables["PYTHONPATH"], "trio_streamrpc"))


def test_without_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NoEnvironment, match="trio_streamrpc cannot be imported here"):
        environments.the_own_one()


def test_the_commit_is_that_of_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Environment(sys.executable, variables={"PYTHONPATH": str(tmp_path)})
    monkeypatch.setattr(environments, "the_own_one", lambda: own)
    assert environments.commit() is None
    who = ["-c", "user.name=A", "-c", "user.email=a@example.invalid"]
    for each in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run(["git", "-C", str(tmp_path), *each], check=True)
    found = environments.commit()
    assert found is not None
    assert re.fullmatch("[0-9a-f]{7,}", found)


def test_the_version_is_that_of_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Environment(sys.executable, variables={"PYTHONPATH": str(tmp_path)})
    monkeypatch.setattr(environments, "the_own_one", lambda: own)
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "9.8.7"\n')
    assert environments.versions_of(None)["trio-streamrpc"] == "9.8.7"


def test_a_version_that_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Environment(sys.executable, variables={"PYTHONPATH": str(tmp_path)})
    monkeypatch.setattr(environments, "the_own_one", lambda: own)
    monkeypatch.setattr("importlib.metadata.version", absent)
    assert set(environments.versions_of(None).values()) == {"unknown"}


def absent(package: str) -> str:
    raise PackageNotFoundError(package)


def test_versions_that_are_not_those_of_the_peers(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = environments.versions_of(None)
    pinned = {**own, "msgspec": "0.0.1"}
    (places / "trio.txt").write_text("".join(f"{each}=={pinned[each]}\n" for each in pinned))
    assert environments.other_than_pinned() == [
        f"msgspec is {own['msgspec']} for ours, and 0.0.1 for the peers on Trio"
    ]


def test_a_command_that_fails_is_told_in_a_line() -> None:
    with pytest.raises(NoEnvironment) as raised:
        Commands().run(sys.executable, "-c", "print('one'); print('two'); raise SystemExit(1)")
    assert str(raised.value) == f"{Path(sys.executable).name}: two"


def test_a_command_without_a_network_says_so() -> None:
    lines = [
        "WARNING: pip is old",
        "WARNING: Retrying (Retry(total=4)) after: Network is unreachable",
        "WARNING: Retrying (Retry(total=3)) after: Network is unreachable",
        "ERROR: No matching distribution found for grpcio==1.76.0",
    ]
    script = f"print({chr(10).join(lines)!r}); raise SystemExit(1)"
    with pytest.raises(NoEnvironment) as raised:
        Commands().run(sys.executable, "-c", script)
    assert str(raised.value) == f"{Path(sys.executable).name}: {lines[1]}"


def test_a_command_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "PATIENCE", 0.01)
    with pytest.raises(NoEnvironment, match="it took over 0 s"):
        Commands().run(sys.executable, "-c", "import time; time.sleep(1000)")


def test_commands_can_be_stopped(tmp_path: Path) -> None:
    commands = Commands()
    started = tmp_path / "started"
    os.mkfifo(started)
    script = f"import time; open({str(started)!r}, 'w').close(); time.sleep(1000)"
    failures: list[str] = []

    def run() -> None:
        try:
            commands.run(sys.executable, "-c", script)
        except NoEnvironment as error:
            failures.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    started.open().close()  # waits for the script to open it
    commands.stop()
    thread.join()
    assert failures == [f"{Path(sys.executable).name}: it ended with -9"]
    with pytest.raises(NoEnvironment, match="it was interrupted"):
        commands.run(sys.executable, "-c", "")
