"""A wrong command line is one line on standard error that names the remedy, and exit code 2."""

import re
import subprocess
import sys
import time

import pytest
import typer

from stagewire.cli import main
from tests.cli.conftest import Run

NOWHERE = "127.0.0.1:1"

COMMANDS = [
    (name, sub)
    for name in main.CONTENTS
    for sub in sorted(getattr(main.load(name), "commands", {"": None}))
]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (["modle"], "Did you mean 'model'"),
        (["model", "creat"], "Did you mean 'create'"),
        (["model", "create"], "'MODEL'"),
        (["model", "create", "churn", "--tag", "oops"], "--tag oops=value"),
        (["model", "create", "churn", "--colour", "red"], "--colour"),
        (["model", "update", "churn"], "nothing to change"),
        (["model", "purge", "17"], "--reason"),
        (["model", "list", "--limit", "-1"], "--limit"),
        (["version", "get", "churn", "three"], "'VERSION'"),
        (["version", "get", "churn", "0"], "'VERSION'"),
        (["version", "get", "churn", str(2**31)], "'VERSION'"),
        (["version", "create", "churn", "--metric", "auc=high"], "--metric auc=0.93"),
        (["version", "create", "churn", "--parent", "churn"], "MODEL/VERSION"),
        (["version", "create", "churn", "--parent", "churn/3:cloned"], "fine_tuned"),
        (["version", "create", "churn", "--signature", "no-such-file"], "can't be read"),
        (["version", "update", "churn", "1"], "nothing to change"),
        (["promote", "churn", "3"], "--stage"),
        (["promote", "churn", "3", "--stage", "Staging", "--displace", "all"], "--displace"),
        (["batch", "no-such-file"], "can't be read"),
        (["stage", "update", "Staging"], "nothing to change"),
        (["stage", "history", "churn", "--at", "yesterday"], "2026-05-01T12:00:00Z"),
        (["resolve"], "--uri"),
        (["resolve", "churn", "--stage", "a", "--alias", "b"], "only one of --stage, --alias"),
        (["metric", "log", "churn", "3", "auc"], "KEY=VALUE"),
        (["event", "list", "--kind", "birth"], "stages_changed"),
        (["watch", "--from", "tomorrow"], "--from"),
        (["watch", "--cursor", "?"], "--cursor"),
        (["watch", "--model", "a", "--prefix", "b"], "--prefix"),
        (["model", "list", "-o", "xml"], "--output"),
        (["health", "--timeout", "0"], "--timeout"),
    ],
)
def test_a_wrong_line_is_refused_in_one_line(run: Run, line: list[str], named: str) -> None:
    ran = run("--address", NOWHERE, *line)

    assert ran.code == 2
    assert ran.out == ""
    assert re.fullmatch(r"stagewire: [^\n]+; see `stagewire[^`]* --help`\n", ran.err)
    assert named in ran.err


def test_text_that_is_not_unicode_is_refused(run: Run) -> None:
    ran = run("--address", NOWHERE, "model", "get", "\udcff")

    assert (ran.code, ran.err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    "line",
    [
        ["model", "list"],
        ["version", "get", "churn", "1"],
        ["watch"],
        ["health"],
        ["verify-log"],
        ["deployment", "report", "m", "--stage", "s", "--target", "t", "--running", "1"],
    ],
)
def test_a_server_that_is_not_there_is_said_in_one_line_and_soon(run: Run, line: list[str]) -> None:
    began = time.monotonic()

    ran = run(*line, "--address", NOWHERE)

    assert ran.code == 1
    assert re.fullmatch(
        rf"stagewire: no server answers at {NOWHERE}; [^\n]+\(UNAVAILABLE\)\n", ran.err
    )
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(("name", "sub"), COMMANDS)
def test_every_command_teaches_by_example(run: Run, name: str, sub: str) -> None:
    ran = run(name, *([sub] if sub else []), "--help")

    assert ran.code == 0
    assert "Examples:" in ran.out
    assert f"stagewire {name} {sub}".rstrip() in ran.out.partition("Examples:")[2]


@pytest.mark.parametrize(("name", "sub"), COMMANDS)
def test_examples_fit_into_eighty_columns(name: str, sub: str) -> None:
    command = main.load(name)
    command = command.commands[sub] if sub else command

    assert max(map(len, command.epilog.splitlines())) <= 78


@pytest.mark.parametrize("name", main.CONTENTS)
def test_the_table_of_contents_says_what_the_command_says(name: str) -> None:
    command = main.load(name)
    first = " ".join(command.help.partition("\n\n")[0].split())

    assert first == main.CONTENTS[name].summary


def test_help_and_usage_errors_import_neither_grpc_nor_protobuf_nor_the_server() -> None:
    script = (
        "import sys; from stagewire.cli import main; code = main.main(sys.argv[1:]);"
        "heavy = {'grpc', 'google.protobuf', 'sqlalchemy', 'pydantic', 'yaml'} & set(sys.modules);"
        "sys.exit(code or str(heavy) if heavy else 0)"
    )

    ran = subprocess.run(
        [sys.executable, "-c", script, "--help"], capture_output=True, text=True, check=False
    )

    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_release_is_told(run: Run) -> None:
    ran = run("--version")

    assert ran.code == 0
    assert re.fullmatch(r"stagewire \d+\.\d+\.\d+\S*\n", ran.out)


def test_no_color_is_obeyed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    assert "\x1b[3" not in run("--help").out


def test_shell_completion_knows_the_commands() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "stagewire.cli.main"],
        env={
            "_STAGEWIRE_COMPLETE": "complete_bash",
            "COMP_WORDS": "stagewire version cr",
            "COMP_CWORD": "2",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.stdout.split() == ["create"]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 1, ""),
        (typer.Abort(), 1, "stagewire: aborted\n"),
        (ValueError("a\nb"), 1, "stagewire: a b\n"),
        (RuntimeError("odd"), 1, "stagewire: RuntimeError: odd (INTERNAL)\n"),
    ],
)
def test_nothing_leaves_as_a_traceback(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(main, "app", fail)

    ran = run("model", "list")

    assert (ran.code, ran.err) == (code, said)
