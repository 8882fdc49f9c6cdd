"""A wrong command told like every other mistake: one line, with a hint that names what was probably meant."""

import difflib
import re
import sys
from typing import Any, cast

import typer

from attnprobe.errors import ConfigError

UsageError = cast(type[Exception], typer.BadParameter.__base__)  # Typer gives it no name of its own


def call(app: typer.Typer, arguments: list[str] | None) -> None:
    """Run the command and exit; what Typer would print in a box becomes a ConfigError."""
    try:
        code = app(args=arguments, standalone_mode=False)
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # nothing was asked for: the help is the answer
            sys.exit(2)
        raise as_config_error(error) from None
    sys.exit(code if isinstance(code, int) else 0)


def as_config_error(error: Any) -> ConfigError:
    """error: a UsageError, which knows the context in which it happened."""
    context = error.ctx
    message = " ".join(error.format_message().replace("Value error, ", "").split())
    message = re.sub(r"\.? (Did you mean .*|\(Possible options.*)$", "", message).rstrip(".")  # that is the hint's part
    command = context.command_path if context is not None else "attnprobe"
    return ConfigError(message[:1].lower() + message[1:], hint=suggestion(error) or f"see {command} --help")


def suggestion(error: Any) -> str:
    """The command, option or value nearest to the wrong one; empty if none is near."""
    context, message = error.ctx, error.format_message()
    if context is None:
        return ""
    quoted = message.split("'")[1::2]
    if message.startswith("No such command"):
        return near(quoted[0], context.command.commands)
    if hasattr(error, "option_name") and hasattr(error, "possibilities"):
        known = [name for p in context.command.params for name in (*p.opts, *p.secondary_opts) if name.startswith("-")]
        return near(error.option_name, known)
    if message.startswith("Missing"):
        return usage(context)
    if "is not one of" in message:
        return near(quoted[-len(quoted) + 1] if len(quoted) > 1 else "", quoted[2:])
    return ""


def near(word: str, known: Any) -> str:
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean {found[0]!r}?" if found else f"choose from {', '.join(sorted(known))}"


def usage(context: Any) -> str:
    """What must be written, options left out."""
    wanted = [p for p in context.command.params if p.param_type_name == "argument" and p.required]
    names = [p.name.upper() + ("" if p.nargs == 1 else " ...") for p in wanted]
    return " ".join(["write", context.command_path, *names]) + f"; see {context.command_path} --help"
