"""The README holds what it says: its example runs, its commands are the ones that are checked."""

import ast
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

import trio_streamrpc
from tests.end_to_end import test_api
from trio_streamrpc import PermissionDenied, Unauthenticated, connect, rpc
from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.interceptors import authorize

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_example_prints_what_the_readme_shows(tmp_path: Path) -> None:
    example, *_ = blocks("python")
    [output] = blocks("text")
    script = tmp_path / "example.py"
    script.write_text(example, encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-X", "utf8", script],
        capture_output=True,
        check=False,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=60,
    )

    assert done.stderr == ""
    assert done.stdout == output
    assert done.returncode == 0


def test_the_shapes_of_call_are_those_that_are_tested() -> None:
    """Each method of the second example is there, as it is called over a WebSocket elsewhere."""
    _, shapes, _ = blocks("python")
    names = dict(vars(test_api))
    exec(shapes, names)
    shown, tested = (MethodTable.of_contract(each) for each in (names["Market"], test_api.Market))
    assert len(shown) == 7
    for name, method in shown.items():
        assert method.kind is tested[name].kind
        assert method.result_type == tested[name].result_type
        assert [(each.name, each.annotation) for each in method.parameters] == [
            (each.name, each.annotation) for each in tested[name].parameters
        ]


class User:
    def __init__(self, *, is_admin: bool) -> None:
        self.is_admin = is_admin


class Users:
    """By their tokens."""

    async def find(self, token: str) -> User | None:
        known = {"first": User(is_admin=True), "second": User(is_admin=False)}
        return known.get(token)


class Settings:
    @rpc
    async def theme(self) -> str:
        return "dark"


async def test_who_may_call_is_decided_as_the_readme_shows() -> None:
    *_, gate = blocks("python")
    code = compile(gate, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    async with trio.open_nursery() as nursery:
        names = {
            **vars(trio_streamrpc),
            "Market": lambda: {"settings": Settings()},
            "User": User,
            "authorize": authorize,
            "nursery": nursery,
            "partial": partial,
            "users": Users(),
        }
        running = eval(code, names)
        await running
        url = names["server"].url
        async with connect(url, metadata={"token": "first"}) as connection:
            assert await connection.call("settings.theme") == "dark"
        async with connect(url, metadata={"token": "second"}) as connection:
            with pytest.raises(PermissionDenied):
                await connection.call("settings.theme")
        with pytest.raises(Unauthenticated, match=r"^there is no such token$"):
            async with connect(url):
                pytest.fail("the block must not begin")
        nursery.cancel_scope.cancel()


def test_ci_runs_the_command_that_the_readme_gives() -> None:
    lines = "".join(blocks("sh")).splitlines()
    [command] = [line for line in lines if line.endswith("nox -s tests")]
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
