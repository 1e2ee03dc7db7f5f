"""One run of one command: where the registry is, how answers are printed, and the client.

`command` gives every command the same options, so that they may stand before or after its name;
what stands nearer to the end of the line wins. There is none for a token: whoever lists processes
reads command lines.
"""

import copy
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import typer

from stagewire.cli import texts
from stagewire.cli.arguments import Format, refuse

if TYPE_CHECKING:
    import grpc
    from google.protobuf.message import Message

    from stagewire.cli.views import View
    from stagewire.client import Client

    M = TypeVar("M", bound=Message)

F = TypeVar("F", bound=Callable[..., None])

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_NAMESPACE = "default"
PANEL = "Everywhere"
CONNECTION_PANEL = "Connection"
#: Leaves room for the prompt, the indent and a backslash in 80 columns.
EXAMPLE_WIDTH = 68


class UnreachableError(Exception):
    """No server answers."""

    reason = "UNAVAILABLE"

    def __init__(self, address: str, said: str = "") -> None:
        hint = next((hint for sign, hint in _HINTS.items() if sign in said), _ABSENT)
        self.message = hint.format(address=address)
        super().__init__(self.message)


_ABSENT = (
    "no server answers at {address}; start one with `stagewire serve`, or say where it is with"
    " --address or STAGEWIRE_ADDRESS"
)
#: What gRPC says of a connection that does not come about, and what to do then.
_HINTS = {
    "CERTIFICATE_VERIFY_FAILED": (
        "the certificate of {address} is of no authority that is trusted here; name whom to trust"
        " with --ca-file"
    ),
    "Hostname Verification": (
        "the certificate of {address} is another host's; say --address as the certificate does"
    ),
    "WRONG_VERSION_NUMBER": (
        "{address} speaks no TLS; leave out grpcs://, --tls and the files of TLS, or serve with a"
        " certificate"
    ),
    "Socket closed": (
        "{address} hangs up; if it speaks TLS say --tls, and if it wants to see a certificate"
        " --cert-file and --key-file"
    ),
}


@dataclass(frozen=True)
class Everywhere:
    """The options of the root command, which those of a subcommand override."""

    address: str = DEFAULT_ADDRESS
    namespace: str = DEFAULT_NAMESPACE
    token_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    tls: bool | None = None
    allow_plaintext: bool | None = None
    output: Format = Format.TABLE


Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="The server; STAGEWIRE_ADDRESS, else 127.0.0.1:50051. How to speak to it:"
        " `stagewire --help`.",
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
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="Holds the token that says who you are; else STAGEWIRE_TOKEN, STAGEWIRE_TOKEN_FILE.",
        rich_help_panel=CONNECTION_PANEL,
        show_default=False,
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        metavar="FILE",
        help="Speak TLS, and trust these authorities alone; STAGEWIRE_CA_FILE.",
        rich_help_panel=CONNECTION_PANEL,
        show_default=False,
    ),
]
CertFile = Annotated[
    Path | None,
    typer.Option(
        "--cert-file",
        metavar="FILE",
        help="Speak TLS, and show this certificate; STAGEWIRE_CERT_FILE.",
        rich_help_panel=CONNECTION_PANEL,
        show_default=False,
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        metavar="FILE",
        help="The certificate's private key; STAGEWIRE_KEY_FILE.",
        rich_help_panel=CONNECTION_PANEL,
        show_default=False,
    ),
]
Tls = Annotated[
    bool | None,
    typer.Option(
        "--tls",
        help="Speak TLS, as grpcs://HOST:PORT does; STAGEWIRE_TLS.",
        rich_help_panel=CONNECTION_PANEL,
        show_default=False,
    ),
]
AllowPlaintext = Annotated[
    bool | None,
    typer.Option(
        "--allow-plaintext",
        help="Let a token go to another host in clear; STAGEWIRE_ALLOW_PLAINTEXT.",
        rich_help_panel=CONNECTION_PANEL,
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

        texts.remark_logs()
        with self._refusing():
            return Client(
                self.address,
                namespace=self.namespace,
                on_history_lost=lambda lost: texts.remark(f"warning: {lost}"),
                **self._connection,
            )

    @contextmanager
    def channel(self) -> "Iterator[grpc.Channel]":
        """Connect for a call that is no registry's."""
        from stagewire.client import connections

        with self._refusing():
            found = connections.settle(self.address, **self._connection)
        with found.open() as channel:
            yield channel

    @property
    def _connection(self) -> dict[str, Any]:
        return {
            "token_file": self.token_file,
            "ca_file": self.ca_file,
            "certificate_file": self.cert_file,
            "key_file": self.key_file,
            "tls": self.tls,
            "allow_plaintext": self.allow_plaintext,
        }

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Refuse as a wrong command line what can't be connected so."""
        try:
            yield
        except OSError as error:
            raise typer.BadParameter(f"{error.filename} can't be read: {error.strerror}") from error
        except ValueError as error:
            refuse("--address", str(error))

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


def _unsaid(annotation: Any) -> Any:
    """Take an option that a command's own help leaves to the root's."""
    kind, option = get_args(annotation)
    quiet = copy.copy(option)
    quiet.hidden = True
    return Annotated[kind, quiet]


_SHARED: dict[str, Any] = {
    "address": Address,
    "namespace": Namespace,
    "token_file": _unsaid(TokenFile),
    "ca_file": _unsaid(CaFile),
    "cert_file": _unsaid(CertFile),
    "key_file": _unsaid(KeyFile),
    "tls": _unsaid(Tls),
    "allow_plaintext": _unsaid(AllowPlaintext),
    "output": Output,
}
#: What commands take that ask a server, whatever they print and of whichever namespace.
CONNECTED = tuple(option for option in _SHARED if option not in {"namespace", "output"})


def command(
    app: typer.Typer,
    name: str,
    *,
    examples: Sequence[str] = (),
    everywhere: Sequence[str] = tuple(_SHARED),
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
            # Those alone: `serve` has an option of its own that bears the name of one.
            nearer = {option: given.pop(option, None) for option in everywhere}
            farther = context.find_object(Everywhere) or Everywhere()
            session = Session(
                **{option: nearer.get(option) or getattr(farther, option) for option in _SHARED}
            )
            try:
                function(session, **given)
            except Exception as error:
                if _unanswered(error):
                    raise UnreachableError(session.address, str(error)) from error
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
