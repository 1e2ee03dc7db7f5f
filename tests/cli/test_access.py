"""Tokens, grants and refusals from the command line, against a server that asks who calls."""

import re
import shlex
import stat
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.conftest import Ran, Run, serving
from tests.factories import eventually, sql

SECRET = re.compile(r"sw_[0-9a-f]{16}_[A-Za-z0-9_-]{43}\n")


@dataclass(frozen=True)
class Guarded:
    """A server that asks who calls."""

    address: str
    admin: str
    folder: Path


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Make the first admin's token with the command, then serve."""
    folder = tmp_path_factory.mktemp("guarded")
    url = f"sqlite:///{folder / 'registry.sqlite3'}"
    made = subprocess.run(
        [sys.executable, "-m", "stagewire.cli.main", "admin", "bootstrap", "--database-url", url],
        capture_output=True,
        text=True,
        check=True,
    )
    with serving(folder) as address:
        yield Guarded(address, made.stdout.strip(), folder)


As = Callable[..., Ran]


@pytest.fixture
def as_(run: Run, guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> As:
    """Run a command line as whoever has a token; in a namespace of this test's own."""
    namespace = f"t-{uuid.uuid4().hex[:12]}"
    monkeypatch.setenv("STAGEWIRE_ADDRESS", guarded.address)
    monkeypatch.setenv("STAGEWIRE_NAMESPACE", namespace)

    def ran(token: str, line: str, *arguments: object) -> Ran:
        monkeypatch.setenv("STAGEWIRE_TOKEN", token)
        return run(line, *arguments)

    assert ran(guarded.admin, "namespace create", namespace).code == 0
    return ran


@pytest.fixture
def admin(as_: As, guarded: Guarded) -> Run:
    """Run a command line as the admin."""
    return lambda line, *arguments: as_(guarded.admin, line, *arguments)


def subject() -> str:
    return f"s-{uuid.uuid4().hex[:12]}"


def test_a_tokens_secret_stands_alone_on_standard_output(admin: Run) -> None:
    for form in ("", "-o name"):
        made = admin(f"token create ci {form}")

        assert made.code == 0
        assert SECRET.fullmatch(made.out)
        assert "shown this once" in made.err
        assert made.out.strip() not in made.err


def test_a_token_and_its_secret_are_one_object_for_programs(admin: Run) -> None:
    made = admin("token create ci --description builds --scope viewer@* --expires 12h -o json").json

    left = datetime.fromisoformat(made["token"]["expire_time"]) - datetime.now(UTC)
    assert made["secret"].startswith(f"sw_{made['token']['id']}_")
    assert made["token"]["description"] == "builds"
    assert made["token"]["scopes"][0]["role"] == "ROLE_VIEWER"
    assert timedelta(hours=11) < left <= timedelta(hours=12)


def test_a_token_for_whom_nothing_is_granted_is_remarked(admin: Run) -> None:
    name = subject()
    before = admin("token create", name).err
    admin("grant create", name, "--role", "viewer")

    assert f"nothing is granted to {name} yet" in before
    assert "nothing is granted" not in admin("token create", name).err


def test_tokens_are_listed_by_subject_and_the_ended_ones_only_when_asked_for(admin: Run) -> None:
    name = subject()
    kept = admin("token create --scope editor@ml/churn/Staging -o json", name).json["token"]["id"]
    ended = admin("token create -o json", name).json
    revoked = admin("token revoke", ended["secret"], "--reason", "leaked")

    assert revoked.out == f"revoked token {ended['token']['id']} of {name}\n"
    assert admin("token list -o name --subject", name).out == f"{kept}\n"
    table = admin("token list --all --subject", name).out
    assert re.search(rf"^{ended['token']['id']} .* REVOKED\b", table, re.MULTILINE)
    assert "editor@ml/churn/Staging" in table
    again = admin("token revoke nothing")
    assert (again.code, again.err.count("\n")) == (1, 1)
    assert again.err.endswith("(TOKEN_NOT_FOUND)\n")


def test_a_revoked_token_is_refused_with_what_to_do(as_: As, admin: Run) -> None:
    made = admin("token create ci -o json").json
    before = as_(made["secret"], "whoami -o name")

    admin("token revoke", made["token"]["id"])
    after = as_(made["secret"], "whoami")

    assert before.out == "ci\n"
    assert (after.code, after.out, after.err.count("\n")) == (1, "", 1)
    assert "STAGEWIRE_TOKEN or --token-file" in after.err
    assert after.err.endswith("(CREDENTIALS_INVALID)\n")


def test_nobody_is_told_how_to_say_who_calls(as_: As) -> None:
    ran = as_("", "model list")

    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "STAGEWIRE_TOKEN" in ran.err
    assert "--token-file" in ran.err
    assert ran.err.endswith("(CREDENTIALS_MISSING)\n")


def test_the_command_in_a_refusal_allows_what_was_refused(as_: As, admin: Run) -> None:
    admin("model create", "it's a $(model)")
    admin("version create", "it's a $(model)", "--source", "s3://m/1")
    name = f"it's {subject()}"
    token = admin("token create", name).out.strip()
    admin("grant create --role viewer", name)
    tried = ("promote", "it's a $(model)", "1", "--stage", "Production")

    refused = as_(token, *tried)
    command = re.search(
        r"an admin can allow it: stagewire (.*) \(PERMISSION_DENIED\)$", refused.err
    )

    assert refused.code == 1
    assert command is not None, refused.err
    granted = admin(command[1])
    assert granted.code == 0, granted.err
    assert as_(token, *tried).code == 0
    assert as_(token, *tried[:-1], "Staging").code == 1


def test_a_grant_is_shown_listed_where_it_holds_and_taken_back(admin: Run) -> None:
    name = subject()
    here = admin(
        "grant create --role approver --model 'churn*' --stage production -o json", name
    ).json
    everywhere = admin("grant create --role viewer -n '*' -o name", name).out.strip()
    elsewhere = admin("grant create --role viewer -n default -o name", name).out.strip()

    assert here["scope"]["stage"] == "Production"
    assert set(admin("grant list -o name --subject", name).out.split()) == {here["id"], everywhere}
    assert set(admin("grant list -n '*' -o name --subject", name).out.split()) == {
        here["id"],
        everywhere,
        elsewhere,
    }
    assert "churn*" in admin("grant list").out
    assert admin("grant delete", elsewhere).out == f"deleted grant {elsewhere}\n"
    again = admin("grant delete", elsewhere)
    assert (again.code, again.err.endswith("(GRANT_NOT_FOUND)\n")) == (1, True)


def test_a_dry_run_grants_nothing(admin: Run) -> None:
    name = subject()

    assert admin("grant create --role viewer --dry-run", name).code == 0
    assert admin("grant list -n '*' -o name --subject", name).out == ""


def test_whoami_says_who_how_until_when_and_what(as_: As, admin: Run) -> None:
    name = subject()
    made = admin("token create --expires 2d -o json", name).json
    nothing = as_(made["secret"], "whoami").out
    admin("grant create --role approver --model churn --stage Production", name)
    said = as_(made["secret"], "whoami").out

    assert "do and see nothing yet" in nothing
    assert said.startswith(f"{name}\n")
    assert f"token {made['token']['id']}" in said
    assert "(in 47 h)" in said or "(in 1 d)" in said
    assert re.search(r"^approver +t-\w+ +churn +production$", said, re.MULTILINE)
    assert as_(made["secret"], "whoami -o json").json["scopes"][0]["stage"] == "production"


def test_without_access_control_whoami_says_so(
    run: Run, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGEWIRE_ADDRESS", address)

    said = run("whoami").out

    assert said.startswith("anonymous\n")
    assert "access control is off" in said


def test_refusals_are_listed_to_admins_alone(as_: As, admin: Run) -> None:
    name = subject()
    token = admin("token create", name).out.strip()
    denied = as_(token, "refusal list")

    def listed() -> list[dict[str, object]]:
        found: list[dict[str, object]] = admin(
            "refusal list --since 1h -o json --caller", name
        ).json
        return found

    assert denied.err.endswith("(PERMISSION_DENIED)\n")
    eventually(listed)
    assert listed()[0]["reason"] == "PERMISSION_DENIED"
    assert "ListRefusals" in admin("refusal list --caller", name).out


def test_the_log_tells_of_tokens_and_grants_and_of_no_secret(admin: Run) -> None:
    name = subject()
    secret = admin("token create", name).out.strip()
    admin("grant create --role viewer --model churn", name)

    said = admin("event list -n '*' --since 1h").out

    assert re.search(rf"token \w+ of {name}: created", said)
    assert re.search(rf"grant of viewer@t-\w+/churn to {name}: created", said)
    assert secret not in said


def test_the_last_admin_stays(admin: Run) -> None:
    (grant,) = admin("grant list --subject admin -o name").out.split()

    ran = admin("grant delete", grant)

    assert (ran.code, ran.err.endswith("(LAST_ADMIN)\n")) == (1, True)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("token create ci --scope owner@ml", "'--scope'"),
        ("token create ci --expires soon", "a span such as 90d"),
        ("token create", "'SUBJECT'"),
        ("grant create ci", "--role"),
        ("grant create ci --role owner", "viewer"),
        ("refusal list --since soon", "an age such as 2h"),
    ],
)
def test_a_wrong_line_is_a_usage_error(run: Run, line: str, named: str) -> None:
    ran = run(line)

    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert named in ran.err


Process = Callable[..., "subprocess.CompletedProcess[str]"]


def test_bootstrapping_prints_the_secret_once_and_keeps_none(
    process: Process, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'data' / 'registry.db'}"
    file = tmp_path / "data" / "registry.db.bootstrap"

    made = process("admin bootstrap --database-url", url)
    again = process("admin bootstrap --database-url", url)

    assert SECRET.fullmatch(made.stdout)
    assert f"stagewire: next: stagewire serve --database-url {shlex.quote(url)}\n" in made.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert made.stdout.split("_")[-1].strip() not in file.read_text()
    assert (again.returncode, again.stdout, again.stderr.count("\n")) == (1, "", 1)
    assert f"{file} is there already" in again.stderr


def test_bootstrapping_is_refused_where_somebody_is_an_admin(
    process: Process, guarded: Guarded
) -> None:
    url = f"sqlite:///{guarded.folder / 'registry.sqlite3'}"
    file = guarded.folder / "second"

    ran = process("admin bootstrap --database-url", url, "--file", file)

    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert "has an admin already" in ran.stderr
    assert not file.exists()


def test_bootstrapping_for_postgresql_needs_to_be_told_where(process: Process) -> None:
    ran = process("admin bootstrap --database-url postgresql://127.0.0.1:1/registry")

    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert "--file" in ran.stderr


def test_whoever_lost_every_admins_token_may_bootstrap_again(
    process: Process, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'registry.sqlite3'}"
    first = process("admin bootstrap --database-url", url).stdout.strip()
    with serving(tmp_path) as address:
        monkeypatch.setenv("STAGEWIRE_ADDRESS", address)
        monkeypatch.setenv("STAGEWIRE_TOKEN", first)
        assert run("whoami").code == 0
    # As if the token's 90 days were over.
    sql(url, "UPDATE tokens SET expire_time = 1")
    (tmp_path / "registry.sqlite3.bootstrap").unlink()

    second = process("admin bootstrap --database-url", url).stdout.strip()

    with serving(tmp_path) as address:
        monkeypatch.setenv("STAGEWIRE_ADDRESS", address)
        monkeypatch.setenv("STAGEWIRE_TOKEN", second)
        assert run("token create ci").code == 0
