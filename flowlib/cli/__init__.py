"""The command line: `flow COMMAND`. Each command is a module of its own, imported when it is used.

This module imports nothing but click, so that `flow --help` and completion answer at once. It owns how errors are told:
one line on stderr, exit code 1, or 2 for a command line that cannot be understood; FLOW_DEBUG=1 shows the traceback.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import click

COMMANDS = {
    "dev": "Run an app here: a server of its own, workers, reload on save.",
    "worker": "Run the functions of an app.",
    "send": "Send an event.",
    "runs": "List runs, the newest first.",
    "show": "Show one run: its timeline, steps, attempts, outputs and errors.",
    "logs": "Show what a run has logged.",
    "cancel": "End runs that have not ended.",
    "retry": "Put failed runs back to the step that failed.",
    "replay": "Start a new run of the same event, anew or from a step on.",
    "promise": "Settle a promise that a run waits for.",
    "cron": "Look at cron schedules, trigger, pause and resume functions.",
    "check": "Look which unfinished runs this code would break, before it is deployed.",
    "functions": "List the functions that workers have declared.",
    "forget": "Forget an app that is gone for good: no event is kept for it any more.",
    "metrics": "Serve metrics to Prometheus.",
    "doctor": "Check the server, the workers and the runs.",
}


class _Flow(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        return cast(click.Command, import_module(f"{__name__}.{cmd_name}").command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not args[0].startswith("-") and args[0] not in COMMANDS:
            raise click.UsageError(f"there is no command {args[0]!r}: `flow --help` lists those that there are")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """What a command returns is the exit code."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # an id may be any Unicode, the terminal may be ASCII
        sys.exit(_told(lambda: super(_Flow, self).main(*args, **{**kwargs, "standalone_mode": False})))


def _told(command: Callable[[], Any]) -> int:
    """The exit code of the command, after its error was told."""
    try:
        code = command()
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        _tell(error.format_message())
        return error.exit_code
    except click.Abort:
        return 130
    except BrokenPipeError:  # whoever read has seen enough, as in `flow runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("FLOW_DEBUG"):
            raise
        _tell(_in_one_line(error))
        return 1


def _tell(message: str) -> None:
    click.echo("flow: error: " + "; ".join(line.strip() for line in message.splitlines() if line.strip()), err=True)


def _in_one_line(error: Exception) -> str:
    from flowlib.errors import FlowError

    if isinstance(error, FlowError):
        return f"{error}{_place(error.__cause__)}"
    return f"{type(error).__name__}: {error} (FLOW_DEBUG=1 shows where)"


def _place(cause: BaseException | None) -> str:
    """The line of the user's code that raised it."""
    import traceback

    frames = [f for f in traceback.extract_tb(cause.__traceback__) if not f.filename.startswith("<")] if cause else []
    if not frames or Path(frames[-1].filename).is_relative_to(Path(__file__).parents[1]):
        return ""
    file = Path(frames[-1].filename)
    shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    return f" ({shown}:{frames[-1].lineno})"


@click.group(cls=_Flow, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="flowlib-rq", prog_name="flow", message="%(prog)s %(version)s")
def main() -> None:
    """Durable functions on Redis and RQ."""
