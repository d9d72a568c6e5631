"""Where the command line starts: in processes as a user starts it, and in place for each branch."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import click
import pytest

from trio_streamrpc.cli import commands, entry, main


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        capture_output=True,
        check=False,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def outcome_of(monkeypatch: pytest.MonkeyPatch, *args: str) -> object:
    monkeypatch.setattr(sys, "argv", ["trio-streamrpc", *args])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_help_names_the_command_to_start_with() -> None:
    done = run("-m", "trio_streamrpc", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: python -m trio_streamrpc ")
    assert "Start with: trio-streamrpc demo" in done.stdout
    assert done.stderr == ""


def test_version() -> None:
    done = run("-m", "trio_streamrpc", "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("trio-streamrpc ")
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_importing_the_module_starts_nothing() -> None:
    done = run("-c", "import trio_streamrpc.__main__")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("missing", entry.EXTRA)
def test_without_the_extra(missing: str) -> None:
    blocked = (
        f"import sys; sys.modules[{missing!r}] = None; "
        "from trio_streamrpc.cli import main; sys.argv[1:] = ['demo']; main()"
    )
    done = run("-c", blocked)
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert missing in line
    assert "pip install 'trio-streamrpc[cli]'" in line


def test_without_the_extra_in_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "click", None)
    assert outcome_of(monkeypatch, "--version") == 2
    assert "'trio-streamrpc[cli]'" in capsys.readouterr().err


def test_another_module_that_is_missing_is_a_fault_and_shows_as_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "trio_streamrpc.cli.commands")
    monkeypatch.setitem(sys.modules, "trio_streamrpc.cli.demo", None)
    with pytest.raises(ModuleNotFoundError, match=r"trio_streamrpc\.cli\.demo"):
        main()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nothing"], "No such command 'nothing'"),
        (["demo", "--nothing"], "No such option"),
        (["demo", "--file"], "requires an argument"),
    ],
)
def test_a_call_that_cannot_be_understood(
    args: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert outcome_of(monkeypatch, *args) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_options_that_answer(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome_of(monkeypatch, option) == 0
    assert capsys.readouterr().out != ""


def test_the_version_is_that_of_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "version", {"trio-streamrpc": "1.2.3"}.__getitem__)
    assert outcome_of(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == "trio-streamrpc 1.2.3\n"


def test_a_source_tree_that_is_not_installed_has_no_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(commands, "version", absent)
    assert outcome_of(monkeypatch, "--version") == 0
    assert "not installed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "code"), [(None, 0), (0, 0), (3, 3), ("a command's own result", 0)]
)
def test_what_a_command_gives_back(
    answer: object, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands.commands, "main", lambda *, standalone_mode: answer)
    assert outcome_of(monkeypatch) == code


@pytest.mark.parametrize("raised", [click.Abort, KeyboardInterrupt])
def test_ctrl_c_where_nothing_is_open(
    raised: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*, standalone_mode: bool) -> None:
        raise raised

    monkeypatch.setattr(commands.commands, "main", interrupted)
    assert outcome_of(monkeypatch) == 130
    assert capsys.readouterr() == ("", "")
