"""The command: its verbs, and how it ends.

Exit codes: 0 success, 2 what the user can mend (one line, no traceback), 130 stopped by the user, 141 nobody reads what is
printed, 143 ended by SIGTERM, 1 a bug.
"""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from unetscope.base import (
    InvalidArgument,
    Terminated,
    UnetscopeError,
    end_at_signals,
    first_line,
    ignore_settings_of_current_folder,
)
from unetscope.cli.streams import UNREAD, discard_output, flush_output, is_unread, open_missing_streams
from unetscope.cli.terminal import one_line, print_json
from unetscope.cli.verbs_check import check_data, fetch, inspect, selfcheck
from unetscope.cli.verbs_report import export, report, view
from unetscope.cli.verbs_run import measure, run
from unetscope.cli.verbs_verdict import verdict
from unetscope.cli.verbs_verify import slim, verify

app = typer.Typer(
    name="unetscope",
    help="See how information flows through a U-Net, and which parts of it your task needs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="The public data set.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")
IN_A_LINE: dict[Callable[..., object], str] = {  # what `unetscope --help` says of each verb in a terminal of 80 columns
    run: "Train a network, measure its information and report it.",
    measure: "Measure kept checkpoints again, with other settings.",
    verdict: "Say which skips and levels the task needs.",
    verify: "Retrain variants over seeds and compare their Dice.",
    slim: "Write the smaller network, with weights carried over.",
    inspect: "Find the layers, merges and skips of any network.",
    check_data: "List every problem of a data set.",
    selfcheck: "Measure cases whose information is known.",
    report: "Draw the figures and write the page of a run again.",
    view: "Serve the page of a run, live while it trains.",
    export: "Write the estimates and scores as tables.",
}
for verb, in_a_line in IN_A_LINE.items():
    app.command(short_help=in_a_line)(verb)
data_app.command()(fetch)

# Of a path to write to: it is full, or may not be written, or is a folder where a file is expected.
MENDABLE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EEXIST,
}


# What typer raises for words that it cannot read: a class of click, or of typer's own copy of it.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def main() -> None:
    """Entry point of the `unetscope` command."""
    open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # characters outside the terminal's encoding are escaped
            stream.reconfigure(errors="backslashreplace")
    end_at_signals()
    ignore_settings_of_current_folder()
    try:
        _refuse_missing_folder()
        code = _called()
        flush_output()
    except Terminated:
        sys.stderr.write("unetscope: ended by SIGTERM\n")
        raise
    except UnetscopeError as mistake:
        _exit_with(str(mistake))
    except MemoryError:
        _exit_with("there is not enough memory: choose smaller or fewer images, or a smaller network")
    except RuntimeError as failure:
        if "DefaultCPUAllocator" not in str(failure) and "out of memory" not in str(failure):
            raise
        _exit_with(f"there is not enough memory ({first_line(failure)}): choose smaller images or a smaller network")
    except OSError as failure:
        if is_unread(failure):
            _end_unread()
        if failure.errno not in MENDABLE:
            raise
        path = failure.filename2 or failure.filename or "what was being written"
        _exit_with(f"{path}: {failure.strerror}: choose another place or make room in this one")
    else:
        raise SystemExit(code)


def _called() -> int:
    """Call the verb of the command line; returns the exit code."""
    try:
        return app(standalone_mode=False) or 0
    except SystemExit as end:
        if isinstance(end, Terminated) or not is_unread(end.__context__):  # for which typer ends with 1, as for a bug
            raise
        _end_unread()
    except UsageError as mistake:
        _exit_with_usage(mistake)
    except typer.Abort as end:
        raise end.__cause__ or end from None  # an end of input, of which typer says no more


def _refuse_missing_folder() -> None:
    """Raises: InvalidArgument where the current folder was deleted, in which no relative path leads anywhere."""
    try:
        Path.cwd()
    except OSError as failure:
        raise InvalidArgument(f"the current folder cannot be read ({failure.strerror}): go to another one") from None


def _end_unread() -> NoReturn:
    discard_output()
    raise SystemExit(UNREAD)


def _exit_with_usage(mistake: Any) -> NoReturn:
    """End with 2 and one line that names the flag; without any words, with the help that was raised."""
    if type(mistake).__name__ == "NoArgsIsHelpError":
        mistake.show()
        raise SystemExit(2)
    hint = "" if mistake.ctx is None else f" (see {mistake.ctx.command_path} {mistake.ctx.help_option_names[0]})"
    _exit_with(f"{mistake.format_message().rstrip('.')}{hint}")


def _exit_with(message: str) -> NoReturn:
    """End with 2 and one line on the standard error, and one JSON object on the standard output if that was asked for."""
    text = one_line(message)
    if "--json" in sys.argv:
        with suppress(OSError):  # where the standard output is what cannot be written, only the other one is left
            print_json({"error": text})
    with suppress(OSError):  # which is full, or has no reader
        sys.stderr.write(f"unetscope: {text}\n")
    discard_output()
    raise SystemExit(2)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from unetscope import __version__

        typer.echo(f"unetscope {__version__}")
        raise typer.Exit
