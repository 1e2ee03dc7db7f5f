"""Texts that climb: each has been a hole somewhere, by which files were read or names forged."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: What is in the file that must never be read.
SECRET = "nobody-may-read-this-4c1f9ab2"

#: Texts of a str can be sent anywhere; those of bytes are no UTF-8, and only a wire takes them.
Text = str | bytes

_UP = "../../../../../../../.."
CLIMBING: tuple[Text, ...] = (
    "..",
    ".",
    "../",
    "../..",
    f"{_UP}/etc/passwd",
    f"a/b/{_UP}/etc/passwd",
    "/../../etc/passwd",
    "//etc/passwd",
    "/etc/passwd",
    "/proc/self/environ",
    "/dev/zero",
    "~/.ssh/id_rsa",
    "....//....//etc/passwd",
    "..././..././etc/passwd",
    # Encoded once, twice, more often, in part, and in either case.
    "%2e%2e",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..%2f..%2fetc/passwd",
    "%2E%2E/%2E%2E/etc/passwd",
    "%252e%252e%252f%252e%252e%252fetc%252fpasswd",
    "%25252e%25252e%25252fetc",
    "%2525252525252525252e%2525252525252525252e/",
    "%u002e%u002e%u2215etc",
    "%%32%65%%32%65/etc/passwd",
    "%2e%2e%5cetc",
    "%00",
    "churn%00.txt",
    "%",
    "%2",
    "%zz",
    "churn%0d%0aset-cookie:%20a=b",
    # The other slash.
    "..\\..\\windows\\win.ini",
    "..\\/..\\/etc/passwd",
    "C:\\windows\\win.ini",
    "C:/windows/win.ini",
    "\\\\127.0.0.1\\share\\secret",
    "//127.0.0.1/share/secret",
    "\\\\?\\C:\\secret",
    "\\\\.\\pipe\\x",
    # What ends a path for one reader and not for another.
    "churn\0",
    "../../etc/passwd\0.txt",
    "..;/..;/etc/passwd",
    "/..;x=y/etc/passwd",
    "churn;../../etc/passwd",
    "#/../../../../etc/passwd",
    "s3://models/a#/../../etc/passwd",
    "s3://models/a?x=/../../etc/passwd",
    "?../../etc/passwd",
    "a\r\nb: c",
    "a\nb",
    # Who one talks to.
    "s3://models@127.0.0.1/../secret",
    "http://user:word@127.0.0.1:1/../../x",
    "http://127.0.0.1:1\\@localhost/x",
    "http://127.0.0.1:1#@localhost/",
    "http://[::1]:1/../x",
    "http://0x7f000001:1/",
    "http://[",
    "http://127.0.0.1:99999999/",
    # Schemes that open files, and those that lead back to us.
    "file:/etc/passwd",
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "file://127.0.0.1/etc/passwd",
    "FILE:///etc/passwd",
    "file:///./..//etc/passwd",
    "file:%2f%2f%2fetc%2fpasswd",
    "local-file:///etc/passwd",
    "netdoc:///etc/passwd",
    "jar:file:///etc/passwd!/",
    "data:text/plain,secret",
    "sqlite:////etc/passwd",
    "dbfs:/../../etc/passwd",
    "mlflow-artifacts:/../../etc/passwd",
    "mlflow-artifacts://127.0.0.1/%2e%2e/x",
    "runs:/../../etc/passwd",
    "runs:/0123456789abcdef0123456789abcdef/../x",
    "models:/../..",
    "models:/churn/../../etc/passwd",
    "models:/churn/%2e%2e",
    "models:/../1",
    "models:/m-../artifacts",
    "models:///etc/passwd",
    "models:churn/1",
    # Dots and slashes that become others once normalised or folded.
    "\N{TWO DOT LEADER}/etc/passwd",
    "\N{FULLWIDTH FULL STOP}\N{FULLWIDTH FULL STOP}\N{FULLWIDTH SOLIDUS}etc",
    "\N{ONE DOT LEADER}\N{ONE DOT LEADER}/etc",
    "..\N{DIVISION SLASH}etc\N{FRACTION SLASH}passwd",
    "..\N{FULLWIDTH REVERSE SOLIDUS}etc",
    "churn\N{RIGHT-TO-LEFT OVERRIDE}gpj",
    "ch\N{ZERO WIDTH SPACE}urn",
    "\N{BYTE ORDER MARK}churn",
    "\N{KELVIN SIGN}",
    "e\N{COMBINING ACUTE ACCENT}",
    "\uffff",
    "\U0010ffff",
    # For those who put texts into statements, shells, pages, formats and logs.
    "' OR '1'='1",
    "'; DROP TABLE models; --",
    '" UNION SELECT 1 --',
    "x') OR 1=1 --",
    "$(id)",
    "`id`",
    "| id",
    "{0.__class__}",
    "%(name)s %s %n",
    "${jndi:ldap://127.0.0.1/x}",
    "{{7*7}}",
    "<script>alert(1)</script>",
    "!!python/object/apply:os.system ['id']",
    "__proto__",
    "\x1b[2J",
    # Overlong, cut off, surrogate, too large: no UTF-8.
    b"\xc0\xae\xc0\xae/etc/passwd",
    b"\xe0\x80\xae\xe0\x80\xae/",
    b"\xf0\x80\x80\xaf",
    b"..\xc0\xaf..\xc1\x9c",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"churn\xff",
    b"\xe2\x80",
)


def climbing_to(secret: Path) -> tuple[Text, ...]:
    """Add what would lead to a file that is really there, from where the server runs."""
    return (
        *CLIMBING,
        str(secret),
        f"file://{secret}",
        f"file:{secret}",
        os.path.relpath(secret),
        f"models/{_UP}{secret}",
        str(secret).replace("/", "%2f"),
        f"mlflow-artifacts:/{_UP}{secret}",
    )


def as_bytes(text: Text) -> bytes:
    """Give a text as it goes over a wire."""
    return text if isinstance(text, bytes) else text.encode()
