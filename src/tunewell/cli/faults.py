"""What a user sees when something goes wrong: one clear message on stderr and an exit code that scripts can rely on.

With `--json` the message is a line of JSON, the last one on stderr:
{"error": {"kind", "what", "where", "expected", "remedy"}, "exit_code"}.

0 done    1 a fault of ours    2 the user's mistake    3 a gate not met    130 stopped    141 the reader has left
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import click

from tunewell.cli.base import DEBUG, in_colour
from tunewell.errors import EXIT_DONE, EXIT_GATE, EXIT_OURS, EXIT_USER, TunewellError, nearest

EXIT_STOPPED, EXIT_PIPE = 130, 141
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
STOPPED = "stopped; nothing half-written stays"
Show = Callable[[TunewellError, int], int]


class UsageError(TunewellError):
    """The command line cannot be understood."""


class LimitError(TunewellError):
    """Memory or disk space ran out."""


class InternalError(TunewellError):
    """A fault of ours."""


class StoppedError(TunewellError):
    """Ctrl-C."""


def guarded(work: Callable[[], None], *, as_json: bool = False) -> int:
    """Do `work`, show what went wrong in words (or as JSON), and return the exit code."""
    before, show = os.environ.get(DEBUG), _show_json if as_json else _show
    try:
        code = _guarded(work, show)
        try:
            sys.stdout.flush()
        except OSError as error:  # only at the end does a full disk or a closed pipe behind stdout show
            code = _closed() if error.errno == errno.EPIPE else show(_os_error(error), EXIT_USER)
        return code
    finally:
        if before is None:
            os.environ.pop(DEBUG, None)
        else:
            os.environ[DEBUG] = before


def _guarded(work: Callable[[], None], show: Show) -> int:
    try:
        work()
        return EXIT_DONE
    except click.exceptions.Exit as done:
        return done.exit_code
    except TunewellError as error:
        _trace()
        return show(error, error.exit_code)
    except click.ClickException as error:
        return show(_usage(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo(err=True)
        _trace()
        return show(StoppedError(STOPPED), EXIT_STOPPED)
    except BrokenPipeError:
        return _closed()
    except MemoryError:
        _trace()
        return show(_no_memory(""), EXIT_USER)
    except Exception as error:
        _trace()
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            return show(_os_error(error), EXIT_USER)
        if isinstance(error, RuntimeError) and ("can't allocate memory" in str(error) or "out of memory" in str(error)):
            return show(_no_memory(str(error)), EXIT_USER)
        return show(_ours(error), EXIT_OURS)


def _show(error: TunewellError, code: int) -> int:
    kind = "" if isinstance(error, StoppedError) else "gate" if code == EXIT_GATE else "error"
    with contextlib.suppress(OSError):  # nobody listens on stderr; the code still tells
        head = f"{kind}: " if kind else ""
        click.echo((click.style(head, fg="red", bold=True) if in_colour(sys.stderr) else head) + str(error), err=True)
    return code


def _show_json(error: TunewellError, code: int) -> int:
    told = {"kind": type(error).__name__}
    told |= {part: getattr(error, part) for part in ("what", "where", "expected", "remedy")}
    with contextlib.suppress(OSError):
        click.echo(json.dumps({"error": told, "exit_code": code}, ensure_ascii=False), err=True)
    return code


def _trace() -> None:
    if os.environ.get(DEBUG):
        click.echo(traceback.format_exc(), err=True)


def _closed() -> int:
    """The reader of our output has left (`| head`): say nothing, also not when Python closes its files."""
    with contextlib.suppress(OSError, ValueError):  # not a real file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_PIPE


def _usage(error: click.ClickException) -> TunewellError:
    """A mistake on the command line, with the nearest option."""
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else "tunewell"
    message, hint = error.message, ""
    if isinstance(error, click.NoSuchOption):
        params = ctx.command.get_params(ctx) if ctx is not None else []
        known = [option for p in params for option in (*p.opts, *p.secondary_opts)]
        message, hint = f"no such option `{error.option_name}`", nearest(error.option_name, known)
    elif type(error) is not click.UsageError:
        message = error.format_message()
    message = (message[:1].lower() + message[1:]).removesuffix(".")
    remedy = "; ".join(part for part in (hint, f"`{path} --help`") if part)
    return UsageError(message, where=path, remedy=remedy)


def _os_error(error: OSError) -> TunewellError:
    return LimitError(
        f"cannot write: {os.strerror(error.errno or 0)}",
        where=str(error.filename or ""),
        remedy="free some space, or write to another place",
    )


def _no_memory(text: str) -> TunewellError:
    detail = f": {text.splitlines()[0][:200]}" if text else ""
    return LimitError(
        f"not enough memory{detail}",
        remedy="a smaller --per_device_train_batch_size or --max_length, or a smaller model",
    )


def _ours(error: Exception) -> TunewellError:
    """A fault of ours in one line: what and where."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "tunewell" in Path(f.filename).parts]
    place = ""
    if frames:
        parts = Path(frames[-1].filename).parts
        place = f", in {'/'.join(parts[len(parts) - parts[::-1].index('tunewell') :])}:{frames[-1].lineno}"
    text = " ".join(str(error).split())[:300]
    return InternalError(
        f"this is a fault of tunewell ({type(error).__name__}{': ' + text if text else ''}{place})",
        remedy="the same command with --debug shows the whole trace; please report it with that",
    )


__all__ = ["EXIT_PIPE", "EXIT_STOPPED", "guarded"]
