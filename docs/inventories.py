"""Where other projects describe what the reference names, for Sphinx's intersphinx.

Nothing is fetched when the documents are built: the few names that they use stand here, with the
pages that describe them, and are written as the inventories that intersphinx reads. A name that
stands in a docstring and not here is a dead reference, at which ``nox -s docs`` fails.
"""

from __future__ import annotations

import zlib
from pathlib import Path

__all__ = ["PROJECTS", "write"]

#: For each project where its documents are, and for each page of them the names that it describes,
#: by the kind of thing that they are.
PROJECTS: dict[str, tuple[str, dict[str, dict[str, str]]]] = {
    "python": (
        "https://docs.python.org/3/",
        {
            "library/collections.abc.html": {
                "class": "collections.abc.AsyncIterable collections.abc.AsyncIterator "
                "collections.abc.Awaitable collections.abc.Callable collections.abc.Coroutine "
                "collections.abc.Iterable collections.abc.Iterator collections.abc.Mapping "
                "collections.abc.Sequence",
            },
            "library/collections.html": {"class": "collections.deque"},
            "library/contextlib.html": {"class": "contextlib.AbstractAsyncContextManager"},
            "library/exceptions.html": {
                "exception": "AssertionError AttributeError Exception IndexError "
                "KeyboardInterrupt OSError RuntimeError TypeError ValueError"
            },
            "library/hmac.html": {"function": "hmac.compare_digest"},
            "library/logging.html": {"module": "logging", "class": "logging.Logger"},
            "library/os.html": {"class": "os.PathLike"},
            "library/ssl.html": {
                "class": "ssl.SSLContext",
                "method": "ssl.SSLSocket.getpeercert",
            },
            "library/subprocess.html": {"class": "subprocess.Popen"},
        },
    ),
    "trio": (
        "https://trio.readthedocs.io/en/stable/",
        {
            "reference-core.html": {
                "class": "trio.CancelScope trio.Nursery trio.TaskStatus",
                "exception": "trio.BrokenResourceError trio.BusyResourceError "
                "trio.ClosedResourceError trio.EndOfChannel",
            },
            "reference-io.html": {
                "class": "trio.abc.AsyncResource trio.abc.ReceiveChannel trio.abc.Stream",
            },
            "reference-testing.html": {
                "class": "trio.testing.MockClock",
                "function": "trio.testing.check_two_way_stream",
            },
        },
    ),
    "cattrs": (
        "https://catt.rs/en/stable/",
        {"cattrs.html": {"class": "cattrs.Converter"}},
    ),
    "hypothesis": (
        "https://hypothesis.readthedocs.io/en/latest/",
        {
            "reference/strategies.html": {
                "class": "hypothesis.strategies.SearchStrategy",
                "function": "hypothesis.strategies.from_type",
            },
        },
    ),
}

#: Modules in which a class is defined, where its project describes it under another name.
DEFINED = {"cattrs.Converter": "cattrs.converters.Converter"}


def inventory(project: str) -> bytes:
    """The inventory of one project, in version 2 of Sphinx's format."""
    _, pages = PROJECTS[project]
    lines = []
    for page, kinds in pages.items():
        for kind, names in kinds.items():
            for name in names.split():
                anchor = f"module-{name}" if kind == "module" else name
                # In a signature it is clear what a Mapping is.
                shown = name.removeprefix("collections.abc.").removeprefix("contextlib.")
                lines += [
                    f"{each} py:{kind} 1 {page}#{anchor} {shown}\n"
                    for each in {name, DEFINED.get(name, name)}
                ]
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    return head.encode() + zlib.compress("".join(sorted(lines)).encode())


def write(directory: Path) -> dict[str, tuple[str, str]]:
    """Write them into a directory; gives what Sphinx calls its ``intersphinx_mapping``."""
    directory.mkdir(parents=True, exist_ok=True)
    mapping = {}
    for project, (url, _) in PROJECTS.items():
        file = directory / f"{project}.inv"
        file.write_bytes(inventory(project))
        mapping[project] = (url, str(file))
    return mapping
