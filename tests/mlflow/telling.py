"""Run a document's code blocks top to bottom, as its reader would in one terminal and one Python.

Needs the standard library alone, for it runs in the interpreter whose MLflow the document is
about. A Python statement whose line ends in a comment has that comment as its value; a shell
block's exports hold for all that follows; a block that serves goes on serving until another of
its program begins; a command whose line ends in `# refused: REASON` is refused so, one that ends
in `# prints: TEXT` prints that. `<!-- needs mlflow>=3.3 -->` before a block leaves it out where
MLflow is older, `<!-- not run: why -->` everywhere.
"""

from __future__ import annotations

import argparse
import ast
import http
import io
import itertools
import os
import re
import shlex
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import tokenize
import urllib.request
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

WAIT_SECONDS = 90.0
_BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n+)?^```(?P<language>python|sh)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_NEEDS = re.compile(r"needs mlflow>=(?P<least>[\d.]+)")
_SERVES = re.compile(r"(?:stagewire serve|mlflow server)\b")
_OLD, _NEW = "before", "after"
_CLAIM = re.compile(
    r"^(?P<command>stagewire .*?)[ ]+# (?P<claim>refused|prints): (?P<said>.*)$", re.MULTILINE
)
#: What a claim about a command is checked with: by its last word, or by all that it printed.
_CHECKS = """
refused() {
  if said=$("${@:2}" 2>&1); then echo "not refused: ${*:2}" >&2; return 1; fi
  [[ $said == *"($1)" ]] || { echo "$said" >&2; return 1; }
}
prints() {
  said=$("${@:2}")
  [[ $said == "$1" ]] || { echo "$said" >&2; return 1; }
}
"""


class Untrue(Exception):
    """The document says what is not so."""


@dataclass(frozen=True)
class Block:
    """Code as it stands in a document, and its first line's number there."""

    language: str
    code: str
    line: int


def blocks(text: str, mlflow: tuple[int, ...]) -> list[Block]:
    """Find the blocks that this release of MLflow can run."""
    found = []
    for match in _BLOCK.finditer(text):
        note = match["note"] or ""
        needs = _NEEDS.search(note)
        if note.startswith("not run:") or (needs and mlflow < _release(needs["least"])):
            continue
        line = text.count("\n", 0, match.start("code")) + 1
        found.append(Block(match["language"], match["code"], line))
    return found


def _release(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


class Reader:
    """Who types what the document says, into one Python and one shell."""

    def __init__(self, document: Path) -> None:
        self._document = document
        self._variables: dict[str, Any] = {"__name__": "__main__"}
        self._programs: dict[str, subprocess.Popen[bytes]] = {}
        #: The shell's environment: what Python sets for itself is not there.
        self._exports = dict(os.environ)
        self.expectations = 0

    def run(self, block: Block) -> None:
        """Run one block; refuse one that fails or says what is not so."""
        where = f"{self._document.name}:{block.line}"
        sys.stdout.write(f"--- {where} ({block.language})\n")
        sys.stdout.flush()
        try:
            if block.language == "python":
                self._run_python(block)
            elif _SERVES.match(block.code):
                self._serve(block.code)
            else:
                self._exports = _run_shell(self._claimed(block.code), self._exports)
        except Exception as error:
            raise Untrue(f"{where}: {error!r}\n{block.code}") from error

    def _claimed(self, code: str) -> str:
        """Have what lines claim of their commands checked."""
        code, count = _CLAIM.subn(
            lambda line: f"{line['claim']} {shlex.quote(line['said'])} {line['command']}", code
        )
        self.expectations += count
        return f"{_CHECKS}\n{code}" if count else code

    def _run_python(self, block: Block) -> None:
        comments = _comments(block.code)
        for statement in ast.parse(block.code).body:
            said = comments.get(statement.end_lineno or 0)
            ast.increment_lineno(statement, block.line - 1)
            if isinstance(statement, ast.Expr) and said is not None:
                expression = ast.Expression(statement.value)
                value = eval(compile(expression, self._document, "eval"), self._variables)  # noqa: S307  # the document's own code is what is run here
                self._expect(ast.unparse(statement), said, value)
            else:
                module = ast.Module([statement], type_ignores=[])
                exec(compile(module, self._document, "exec"), self._variables)  # noqa: S102  # as above

    def _expect(self, expression: str, said: str, value: object) -> None:
        if value != ast.literal_eval(said):
            raise Untrue(f"{expression} is {value!r}, not {said}")
        self.expectations += 1

    def _serve(self, command: str) -> None:
        program, *rest = shlex.split(command.replace("\\\n", " "))
        self._end(program)
        url, trusted = _health(rest)
        self._programs[program] = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], env=self._exports, start_new_session=True
        )
        deadline = time.monotonic() + WAIT_SECONDS
        while not _is_healthy(url, trusted):
            if self._programs[program].poll() is not None or time.monotonic() > deadline:
                raise Untrue(f"nothing answers at {url}")
            time.sleep(0.05)

    def _end(self, program: str) -> None:
        running = self._programs.pop(program, None)
        if running is not None:
            # MLflow's server leaves its workers behind where it ends alone.
            os.killpg(running.pid, signal.SIGTERM)
            running.wait(30)

    def leave(self) -> None:
        """End what still serves."""
        for program in list(self._programs):
            self._end(program)


def _comments(code: str) -> dict[int, str]:
    """Find the comments that follow code on their line, by line."""
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT and token.line[: token.start[1]].strip():
            found[token.start[0]] = token.string.removeprefix("#").strip()
    return found


def _run_shell(code: str, exports: dict[str, str]) -> dict[str, str]:
    """Run a block in a shell that has all exports so far, and give them with its own.

    Python sees them too, as it does where it is started from that shell.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder, "environment")
        script = f"set -euo pipefail\n{code}\nenv -0 > {shlex.quote(str(environment))}\n"
        subprocess.run(["bash", "-c", script], check=True, env=exports)
        pairs = environment.read_bytes().decode().split("\0")
    kept = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    for name in set(exports) - set(kept):
        os.environ.pop(name, None)
    os.environ.update({name: text for name, text in kept.items() if exports.get(name) != text})
    return kept


def _health(arguments: list[str]) -> tuple[str, str | None]:
    """Say where a server that is started so is asked for its health, and whom to trust there."""
    given = dict(itertools.pairwise(arguments))
    address = given.get("--http-address") or f"127.0.0.1:{given['--port']}"
    certificate = given.get("--tls-certificate-file")
    return f"{'https' if certificate else 'http'}://{address}/health", certificate


def _is_healthy(url: str, trusted: str | None) -> bool:
    context = ssl.create_default_context(cafile=trusted) if trusted else None
    try:
        with urllib.request.urlopen(url, timeout=5, context=context) as answer:  # noqa: S310  # the document's own server
            return bool(answer.status == http.HTTPStatus.OK)
    except OSError:
        return False


def main() -> None:
    """Run a document, or the part of it below one heading."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("document", type=Path)
    parser.add_argument("--below", default="", help="the heading to begin at")
    parser.add_argument(
        "--replace", nargs=2, action="append", default=[], metavar=(_OLD.upper(), _NEW.upper())
    )
    options = parser.parse_args()
    text = options.document.read_text(encoding="utf-8")
    if options.below:
        # Blank lines keep the numbers of those that follow.
        before, heading, part = text.partition(f"\n{options.below}\n")
        if not heading:
            parser.error(f"there is no {options.below!r}")
        part = re.split(r"^## ", part, maxsplit=1, flags=re.MULTILINE)[0]
        text = "\n" * (before.count("\n") + 2) + part
    for old, new in options.replace:
        text = text.replace(old, new)
    reader = Reader(options.document)
    told = blocks(text, _release(version("mlflow")))
    try:
        for block in told:
            reader.run(block)
    finally:
        reader.leave()
    sys.stdout.write(f"=== {len(told)} blocks, {reader.expectations} expectations\n")


if __name__ == "__main__":
    main()
