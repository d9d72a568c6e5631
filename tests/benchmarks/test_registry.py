"""Each peer has its script, its pinned requirements, and a word on what was set."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from benchmarks.environments import REQUIREMENTS, requirements_of, versions_of
from benchmarks.peers import common
from benchmarks.registry import PEERS, SCRIPTS, Peer
from benchmarks.workloads import WORKLOADS

#: What the scripts of the peers have in common.
SHARED = {"common", "protobuf_messages", "special", "watching"}

peers = pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS)


@peers
def test_the_script_is_there(peer: Peer) -> None:
    script = SCRIPTS / peer.script
    assert script.is_file()
    assert script.stem == peer.name


@peers
def test_what_was_set_is_said(peer: Peer) -> None:
    assert peer.settings
    assert peer.documentation
    assert set(peer.workloads) <= set(WORKLOADS)


@peers
def test_versions_are_pinned(peer: Peer) -> None:
    versions = versions_of(peer.environment)
    assert versions
    assert all(re.fullmatch(r"\d[\w.+-]*", version) for version in versions.values())


@pytest.mark.parametrize("path", sorted(REQUIREMENTS.glob("*.txt")), ids=lambda path: path.name)
def test_requirements_are_pins_and_nothing_else(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    loose = [line for line in lines if not re.match(r"#|--no-binary |[\w.\[\]-]+==\d[\w.]*$", line)]
    assert loose == []


def test_all_requirements_are_used() -> None:
    used = {requirements_of(each.environment) for each in PEERS.values() if each.environment}
    assert used == set(REQUIREMENTS.iterdir())


@pytest.mark.parametrize("path", sorted(REQUIREMENTS.glob("*.json")), ids=lambda path: path.name)
def test_a_package_is_the_exact_version_of_some_and_nothing_else(path: Path) -> None:
    package = json.loads(path.read_text(encoding="utf-8"))
    assert package.keys() == {"private", "dependencies"}
    loose = [each for each in package["dependencies"].values() if not re.match(r"\d[\d.]*$", each)]
    assert loose == []


@pytest.mark.parametrize("name", ["CALLERS", "STREAMS", "CHUNK_BYTES", "TEXT"])
def test_the_peers_on_node_do_the_same_work(name: str) -> None:
    script = (SCRIPTS / "common.mjs").read_text(encoding="utf-8")
    found = re.search(rf"\bconst {name} = (.+);", script)
    assert found is not None
    assert ast.literal_eval(found[1]) == getattr(common, name)


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.name)
def test_no_script_hides_what_another_imports(path: Path) -> None:
    """Its directory is searched first."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).partition(".")[0])
    assert imported & {each.stem for each in SCRIPTS.glob("*.py")} <= SHARED
