"""loading.py: what ``serve`` finds by a name, and what it says where there is nothing to serve."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trio_streamrpc.cli.failures import Misuse
from trio_streamrpc.cli.loading import load

MODULE = """
class Market:
    pass

class Demanding:
    def __init__(self, what):
        pass

class Space:
    inner = Market()

market = Market()
mapping = {"a": 1}
"""


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The current directory, with a module in it."""
    (tmp_path / "loadable.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "broken.py").write_text("1 / 0\n", encoding="utf-8")
    (tmp_path / "needy.py").write_text("import not_there_at_all\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    monkeypatch.delitem(sys.modules, "loadable", raising=False)
    return tmp_path


@pytest.mark.usefixtures("modules")
def test_what_is_there() -> None:
    made = load("loadable:Market")
    assert type(made).__name__ == "Market"
    module = sys.modules["loadable"]
    assert load("loadable:market") is module.market
    assert load("loadable:mapping") is module.mapping
    assert load("loadable:Space.inner") is module.Space.inner
    assert sys.path.count("") == 1


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("loadable", r"'loadable': it is to be package\.module:Service"),
        (":Market", "it is to be"),
        ("loadable:", "it is to be"),
        ("loadable:Nothing", "loadable has no 'Nothing'"),
        ("loadable:Market.nothing", r"loadable has no 'Market\.nothing'"),
        ("no_such_module:Market", "there is no module 'no_such_module'"),
        ("no_such_package.module:Market", r"there is no module 'no_such_package\.module'"),
        ("needy:Market", "importing 'needy' raised ModuleNotFoundError: .*not_there_at_all"),
        ("broken:Market", "importing 'broken' raised ZeroDivisionError: division by zero"),
        ("loadable:Demanding", r"Demanding\(\) raised TypeError: .*'what' \(a service that needs"),
    ],
)
def test_what_is_not(name: str, said: str) -> None:
    with pytest.raises(Misuse, match=said):
        load(name)
