"""The `stagewire` command: its table of contents, and the one door through which errors leave.

A command's module is imported when the command runs: `--help` and completion import neither
gRPC nor protobuf. Every failure is one line on standard error and an exit code: 1 when the
server refused or does not answer, 2 when the command line is wrong; never a traceback.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from stagewire import __version__
from stagewire.cli import texts
from stagewire.cli.arguments import Format
from stagewire.cli.sessions import (
    DEFAULT_ADDRESS,
    DEFAULT_NAMESPACE,
    AllowPlaintext,
    CaFile,
    CertFile,
    Everywhere,
    KeyFile,
    Tls,
    TokenFile,
)

REFUSED = 1
MISUSED = 2
INTERRUPTED = 130


@dataclass(frozen=True)
class Entry:
    """A command or group: the module that has it, and what `--help` says before it is imported."""

    module: str
    summary: str
    panel: str


_MODELS = "Models and versions"
_STAGES = "Stages"
_RUNNING = "What runs, what happened"
_ACCESS = "Who may do what"
_SERVER = "The server"
_MOVING = "Moving in and out"

CONTENTS: dict[str, Entry] = {
    "model": Entry("models", "Register, find, rename and retire models.", _MODELS),
    "version": Entry("versions", "Register, find, describe, copy and retire versions.", _MODELS),
    "alias": Entry("aliases", "Point movable names at versions.", _MODELS),
    "resolve": Entry(
        "resolutions",
        "Show the version that a stage, an alias, a number or a URI means now; else the newest.",
        _MODELS,
    ),
    "metric": Entry("metrics", "Log and list measured values of versions.", _MODELS),
    "promote": Entry(
        "transitions",
        "Move a version into a stage; agents that follow the stage hear of it at once.",
        _STAGES,
    ),
    "transition": Entry(
        "transitions",
        "Move a version into any stage; `promote` under the name that the API gives it.",
        _STAGES,
    ),
    "batch": Entry(
        "transitions",
        "Make several moves in one revision, all or none: nobody sees a swap half done.",
        _STAGES,
    ),
    "rollback": Entry(
        "rollbacks", "Restore the holders that a stage had before its last change.", _STAGES
    ),
    "stage": Entry("stages", "Define stages, see their history, take versions out.", _STAGES),
    "watch": Entry(
        "watches",
        "Print changes as they happen, until interrupted; a broken connection is resumed.",
        _RUNNING,
    ),
    "agent": Entry("agents", "Keep a target running what a stage says.", _RUNNING),
    "deployment": Entry("deployments", "See what agents run against what is desired.", _RUNNING),
    "event": Entry("events", "List who did what, when and why.", _RUNNING),
    "webhook": Entry("webhooks", "Have events posted to a URL; see what became of them.", _RUNNING),
    "head": Entry("logs", "Show where the log stands: its identity and newest revision.", _RUNNING),
    "verify-log": Entry(
        "logs",
        "Recompute the log's hash chain and compare its copies; exit 1 if anything was altered.",
        _RUNNING,
    ),
    "whoami": Entry(
        "callers",
        "Show who you are to the server, how it knows, until when, and what you may do.",
        _ACCESS,
    ),
    "token": Entry("tokens", "Make, list and revoke what says who calls.", _ACCESS),
    "grant": Entry("grants", "Say who has which role on which part of the registry.", _ACCESS),
    "refusal": Entry("refusals", "See which calls were refused, whose and why.", _ACCESS),
    "admin": Entry("admins", "Make the first admin's token, on the server's machine.", _ACCESS),
    "serve": Entry("serving", "Run the registry's server until it is told to stop.", _SERVER),
    "health": Entry(
        "health", "Ask grpc.health.v1 whether the server serves; exit 1 unless it does.", _SERVER
    ),
    "export": Entry(
        "exports", "Write everything as lines of JSON, or into an MLflow server.", _MOVING
    ),
    "import": Entry(
        "imports", "Bring an export in, or a registry of MLflow; again without harm.", _MOVING
    ),
    "namespace": Entry("namespaces", "Keep one registry for each team or tenant.", _SERVER),
    "database": Entry(
        "serving", "Upgrade, check, back up and compact the server's database.", _SERVER
    ),
}


class Contents(TyperGroup):
    """The root command: knows every command by its entry, imports the one that runs."""

    def __init__(self, **settings: Any) -> None:
        """List the entries as commands that only have a summary."""
        super().__init__(**settings)
        for name, entry in CONTENTS.items():
            self.add_command(TyperCommand(name, help=entry.summary, rich_help_panel=entry.panel))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command that a line names, and import it."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in CONTENTS else found, rest


def load(name: str) -> Any:
    """Import and build one command or group."""
    module = importlib.import_module(f"stagewire.cli.{CONTENTS[name].module}")
    group = typer.main.get_group(module.app)
    found = group.commands.get(name, group)
    if isinstance(found, TyperGroup):
        found.name = name
        found.help = CONTENTS[name].summary
        found.no_args_is_help = True
    return found


app = typer.Typer(
    cls=Contents,
    name="stagewire",
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog=(
        "Examples:\n\n"
        "  $ stagewire serve &\n"
        "  $ stagewire model create churn\n"
        "  $ stagewire version create churn --source s3://models/churn/1 --metric auc=0.91\n"
        "  $ stagewire promote churn 1 --stage Production --reason 'first release'\n"
        "  $ stagewire resolve churn --stage Production -o json | jq -r .source\n"
        "  $ stagewire watch --model churn -o json"
    ),
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"stagewire {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    *,
    address: Annotated[
        str,
        typer.Option(
            "--address",
            metavar="HOST:PORT",
            envvar="STAGEWIRE_ADDRESS",
            help="The server; grpcs://HOST:PORT where it speaks TLS.",
        ),
    ] = DEFAULT_ADDRESS,
    namespace: Annotated[
        str,
        typer.Option(
            "--namespace",
            "-n",
            metavar="NAME",
            envvar="STAGEWIRE_NAMESPACE",
            help="Whose registry.",
        ),
    ] = DEFAULT_NAMESPACE,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
    tls: Tls = None,
    allow_plaintext: AllowPlaintext = None,
    output: Annotated[
        Format,
        typer.Option(
            "--output",
            "-o",
            envvar="STAGEWIRE_OUTPUT",
            help="How to print; `name` is what scripts pass on.",
        ),
    ] = Format.TABLE,
    version: Annotated[  # noqa: ARG001 - its callback answers and ends
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the release and exit."
        ),
    ] = False,
) -> None:
    """Talk to a model registry: models, versions, stages, and a log of every change.

    All these options may also stand after a command.
    """
    context.obj = Everywhere(
        address=address,
        namespace=namespace,
        token_file=token_file,
        ca_file=ca_file,
        cert_file=cert_file,
        key_file=key_file,
        tls=tls,
        allow_plaintext=allow_plaintext,
        output=output,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        result = app(args=arguments, prog_name="stagewire", standalone_mode=False)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the door: nothing leaves as a traceback
        return _leave(error)
    return result if isinstance(result, int) else 0


def run() -> NoReturn:
    """Run the command line of this process."""
    # gRPC's own lines, one for each handshake that fails, would stand among ours.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    sys.exit(main())


def _leave(error: Exception) -> int:
    match error:
        case typer.TyperException():
            return _misused(error)
        case UnicodeEncodeError():
            return _failed("an argument is not valid UTF-8 text; write it anew", code=MISUSED)
        case ModuleNotFoundError() if not str(error.name).startswith("stagewire"):
            return _failed(
                f"this needs {error.name}, which comes with the server;"
                " run: pip install 'stagewire[server]'"
            )
        case BrokenPipeError():  # whoever read our output has left, and knows
            return REFUSED
        case typer.Abort():
            return _failed("aborted")
    return _refused(error)


def _misused(misuse: typer.TyperException) -> int:
    """Say in one line which option is wrong and where help is."""
    text = " ".join(misuse.format_message().split()).rstrip(".")
    if not text:  # without any argument, help was printed instead
        return MISUSED
    context = getattr(misuse, "ctx", None)
    path = context.command_path if context else "stagewire"
    return _failed(f"{text}; see `{path} --help`", code=MISUSED)


#: What to do about a refusal that the server can't know: how this command is told who calls.
_REMEDIES = {
    "CREDENTIALS_MISSING": "give a token in STAGEWIRE_TOKEN, or the file that has it with "
    "--token-file",
    "CREDENTIALS_INVALID": "see whether STAGEWIRE_TOKEN or --token-file has the whole token",
    "CREDENTIALS_EXPIRED": "have another token made, and give it in STAGEWIRE_TOKEN or "
    "--token-file",
}


def _refused(error: Exception) -> int:
    """Say in one line what the server refused, or what failed here."""
    message = getattr(error, "message", "") or str(error)
    reason = getattr(error, "reason", "") or getattr(getattr(error, "code", None), "name", "")
    if reason and isinstance(reason, str):
        violations = getattr(error, "field_violations", ())
        beside = [f"{one.field}: {one.description}" for one in violations]
        unsaid = [text for text in beside if text.partition(": ")[2] not in message]
        remedy = [_REMEDIES[reason]] if reason in _REMEDIES else []
        return _failed("; ".join([message, *unsaid, *remedy]), reason)
    if isinstance(error, (ValueError, OSError)) and message:
        return _failed(message)
    return _failed(f"{type(error).__name__}: {message or 'no more is known'}", "INTERNAL")


def _failed(message: str, reason: str = "", *, code: int = REFUSED) -> int:
    texts.remark(f"{message} ({reason})" if reason else message)
    return code


if __name__ == "__main__":
    run()
