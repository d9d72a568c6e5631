"""What is checked, and how: ``nox`` runs all of it, ``nox -s tests`` one session.

Sessions install what they need from the dependency groups of pyproject.toml.
"""

from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["tests", "lint", "types", "docs"]

PROJECT = nox.project.load_toml("pyproject.toml")

#: Where public names are defined. What implements them (the runtime's streams, the transports) has
#: its docstrings there; tests/docs/test_reference.py looks at each public name and its members.
DOCUMENTED = (
    "*.py",
    "contract/decorators.py",
    "dialects/__init__.py",
    "runtime/calls.py",
    "runtime/handshake.py",
    "runtime/interceptors.py",
    "runtime/proxies.py",
    "testing/*.py",
    "testing/strategies/*.py",
    "transports/base.py",
)

#: The parts without I/O: nothing excuses a branch that no test takes.
FULLY_COVERED = ("trio_streamrpc/protocol/*", "trio_streamrpc/contract/*")

#: Tests that go through many modules: their coverage says little, and costs as much time again.
THROUGH_ALL = (
    "tests/benchmarks",
    "tests/docs",
    "tests/end_to_end",
    "tests/properties",
    "tests/typing",
)

#: For pytest: what has nothing more to do takes over what another process has not begun.
SIDE_BY_SIDE = ("-n=logical", "--maxprocesses=8", "--dist=worksteal")


def group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, name))


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests, and judge the branch coverage of those of single modules.

    They run in a process for each processor. Arguments after ``--`` go to pytest, which then runs
    what they choose in one process.
    """
    session.install("-e", ".", *group("test"))
    session.run("coverage", "erase")
    if session.posargs:
        # A choice of tests covers a part: shown, and not judged.
        session.run("coverage", "run", "-m", "pytest", *session.posargs)
        session.run("coverage", "combine", "--quiet")
        session.run("coverage", "report", "--fail-under=0")
        return
    session.run("pytest", *SIDE_BY_SIDE, *THROUGH_ALL)
    others = [f"--ignore={each}" for each in THROUGH_ALL]
    session.run("coverage", "run", "-m", "pytest", *SIDE_BY_SIDE, *others)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")
    for files in FULLY_COVERED:
        session.run("coverage", "report", f"--include={files}", "--fail-under=100")


@nox.session
def lint(session: nox.Session) -> None:
    """Check the style, the format, the arrows between the layers, and that there are docstrings."""
    session.install("-e", ".", *group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-cache")
    package = Path("trio_streamrpc")
    files = [str(each) for pattern in DOCUMENTED for each in sorted(package.glob(pattern))]
    session.run("interrogate", *files)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types with mypy, and with pyright as users see them."""
    session.install("-e", ".", *group("test"))  # with `types`: the tests are checked as well
    session.run("mypy")
    session.run("pyright")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into docs/_build/html; a warning is an error, and so is a dead reference."""
    session.install("-e", ".[cli,testing]", *group("docs"))
    session.run("sphinx-build", "-n", "-W", "--keep-going", "docs", "docs/_build/html")


@nox.session
def tables(session: nox.Session) -> None:
    """Write the tables of the documents, and the page for machines, from the code."""
    session.install("-e", ".[cli,testing]")
    session.run("python", "docs/tables.py")
    session.run("python", "docs/llms.py")


@nox.session
def pictures(session: nox.Session) -> None:
    """Draw the pictures of the documents, of what the library does as it is."""
    session.install("-e", ".", *group("pictures"))
    session.run("python", "-m", "docs.pictures")


@nox.session
def fuzz(session: nox.Session) -> None:
    """Search for long: the properties, 10,000 simulations, and Atheris over the decoders.

    The first argument after ``--`` is how many minutes Atheris has, 10 by default; others go to
    pytest.
    """
    minutes, *arguments = session.posargs or ["10"]
    session.install("-e", ".", *group("fuzz"))
    session.run(
        "pytest",
        "--hypothesis-profile=long",
        *SIDE_BY_SIDE,
        "tests/properties",
        "tests/testing",
        *arguments,
    )
    limit = f"-max_total_time={float(minutes) * 60:.0f}"
    session.run("python", "-m", "tests.properties.garbage", limit)


@nox.session
def demo(session: nox.Session) -> None:
    """Run the demonstration; arguments after ``--`` go to it."""
    session.install("-e", ".[cli]")
    session.run("trio-streamrpc", "demo", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the library beside its peers; arguments after ``--`` go to the benchmarks."""
    session.install("-e", ".", *group("bench"))
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Much of everything, and nothing may grow; arguments after ``--`` go to the benchmark.

    Without any, what the tests only try a part of is tried in full as well.
    """
    session.install("-e", ".", *group("test"))
    session.run("python", "-m", "benchmarks.soak", *session.posargs)
    if not session.posargs:
        session.run("pytest", "--full")


@nox.session
def instructions(session: nox.Session) -> None:
    """Count the instructions of a call and of an item; arguments after ``--`` go to it."""
    session.install("-e", ".")
    session.run("python", "-m", "benchmarks.instructions", *session.posargs)
