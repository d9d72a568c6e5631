"""Where the command line starts, and how it ends: exit codes instead of tracebacks."""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["main"]

#: What the extra ``cli`` installs, by the names that are imported.
EXTRA = ("click", "psutil", "rich")

USAGE_ERROR = 2
INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line: what ``trio-streamrpc`` and ``python -m trio_streamrpc`` start.

    Exits with 0, with 1 if a command failed, with 2 if it was called wrongly or the extra ``cli``
    is not installed, with 3 if there is no connection, with 4 if the time was up, and with 130
    after Ctrl-C.
    """
    try:
        code = run()
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


def run() -> int:
    """Run the command that the arguments name, for its exit code."""
    try:
        # Not above: without the extra there is nothing to import.
        import click

        from trio_streamrpc.cli.commands import commands
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRA:
            raise
        print(
            f"trio-streamrpc: the command line needs {missing!r}, which is not installed: "
            "pip install 'trio-streamrpc[cli]'",
            file=sys.stderr,
        )
        return USAGE_ERROR
    try:
        code = commands.main(standalone_mode=False)
    except click.UsageError as error:
        where = "" if error.ctx is None else f" (see {error.ctx.command_path} --help)"
        click.echo(f"Error: {' '.join(error.format_message().split())}{where}", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    return code if isinstance(code, int) else 0
