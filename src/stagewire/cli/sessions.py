"""One run of one command: where the registry is, how answers are printed, and the client.

`command` gives every command the same four options, so that they may stand before or after
its name; what stands nearer to the end of the line wins.
"""

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from stagewire.cli import texts
from stagewire.cli.arguments import Format, refuse

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from stagewire.cli.views import View
    from stagewire.client import Client

    M = TypeVar("M", bound=Message)

F = TypeVar("F", bound=Callable[..., None])

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_NAMESPACE = "default"
PANEL = "Everywhere"
#: Leaves room for the prompt, the indent and a backslash in 80 columns.
EXAMPLE_WIDTH = 68


class UnreachableError(Exception):
    """No server answers."""

    reason = "UNAVAILABLE"

    def __init__(self, address: str) -> None:
        self.message = (
            f"no server answers at {address}; start one with `stagewire serve`, or say where it"
            " is with --address or STAGEWIRE_ADDRESS"
        )
        super().__init__(self.message)


@dataclass(frozen=True)
class Everywhere:
    """The options of the root command, which those of a subcommand override."""

    address: str = DEFAULT_ADDRESS
    namespace: str = DEFAULT_NAMESPACE
    token: str | None = None
    output: Format = Format.TABLE


Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="The server; STAGEWIRE_ADDRESS, else 127.0.0.1:50051.",
        rich_help_panel=PANEL,
        show_default=False,
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAME",
        help="Whose registry; STAGEWIRE_NAMESPACE, else 'default'.",
        rich_help_panel=PANEL,
        show_default=False,
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TOKEN",
        help="Who you are; better in STAGEWIRE_TOKEN than here.",
        rich_help_panel=PANEL,
        show_default=False,
    ),
]
Output = Annotated[
    Format | None,
    typer.Option(
        "--output",
        "-o",
        help="How to print; `name` is what scripts pass on.",
        rich_help_panel=PANEL,
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Session(Everywhere):
    """What a command works with."""

    @cached_property
    def client(self) -> "Client":
        """The registry's client, connected on first use: help and usage errors import no gRPC."""
        from stagewire.client import Client

        if "://" in self.address:
            refuse("--address", f"{self.address!r} is no HOST:PORT; leave out what ends with ://")
        texts.remark_logs()
        return Client(
            self.address,
            namespace=self.namespace,
            token=self.token,
            on_history_lost=lambda lost: texts.remark(f"warning: {lost}"),
        )

    def show(self, message: "M", view: "View[M]") -> None:
        """Print one resource or answer."""
        from stagewire.cli import output

        output.show(message, view, self.output)

    def show_all(self, messages: "Iterable[M]", view: "View[M]") -> None:
        """Print a list of resources."""
        from stagewire.cli import output

        output.show_all(list(messages), view, self.output)

    def close(self) -> None:
        """Close the client if there was need for one."""
        if "client" in self.__dict__:
            self.client.close()


def command(
    app: typer.Typer,
    name: str,
    *,
    examples: Sequence[str] = (),
    everywhere: Sequence[str] = ("address", "namespace", "token", "output"),
) -> Callable[[F], F]:
    """Make a function whose first parameter is the `Session` a command with these examples.

    The function itself is returned unchanged; the command also takes those options of
    `Everywhere` that mean something to it. A docstring is the help, its first line the summary.
    """

    def register(function: F) -> F:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        shared = [
            inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
            *(
                inspect.Parameter(
                    option, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
                )
                for option, annotation in _SHARED.items()
                if option in everywhere
            ),
        ]

        def run(context: typer.Context, **given: Any) -> None:
            nearer = {option: given.pop(option, None) for option in _SHARED}
            farther = context.find_object(Everywhere) or Everywhere()
            session = Session(
                **{option: value or getattr(farther, option) for option, value in nearer.items()}
            )
            try:
                function(session, **given)
            except Exception as error:
                if _unanswered(error):
                    raise UnreachableError(session.address) from error
                raise
            finally:
                session.close()

        functools.update_wrapper(run, function)
        del run.__wrapped__  # type: ignore[attr-defined]  # typer must see the signature below
        parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own
        ] + shared
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        shown = "\n".join(f"  $ {_folded(example)}" for example in examples)
        app.command(
            name,
            help=_unwrapped(inspect.getdoc(function) or ""),
            epilog=f"Examples:\n\n{shown}" if shown else None,
        )(run)
        return function

    return register


_SHARED: dict[str, Any] = {
    "address": Address,
    "namespace": Namespace,
    "token": Token,
    "output": Output,
}


def _unwrapped(docstring: str) -> str:
    """Join each paragraph's lines: the terminal's width decides where they break."""
    return "\n\n".join(" ".join(text.split()) for text in docstring.split("\n\n"))


def _folded(example: str) -> str:
    """Break a long command line before an option or a pipe, so that it can be copied whole."""
    lines = [""]
    for part in re.split(r" (?=--|\| )", example):
        if lines[-1] and len(lines[-1]) + len(part) > EXAMPLE_WIDTH:
            lines.append(part)
        else:
            lines[-1] = f"{lines[-1]} {part}".lstrip()
    return " \\\n      ".join(lines)


def _unanswered(error: Exception) -> bool:
    """Tell a call that reached no server from a server that says it is unavailable."""
    code = getattr(getattr(error, "code", None), "name", "")
    return code == "UNAVAILABLE" and not getattr(error, "reason", "")
