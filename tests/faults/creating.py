"""One process that creates versions of one model: `python creating.py ADDRESS MODEL COUNT`."""

from __future__ import annotations

import sys

from stagewire import pb
from stagewire.client import Client


def main(address: str, model: str, count: str) -> None:
    """Create so many versions, printing each one's number and revision."""
    with Client(address) as client:
        for _ in range(int(count)):
            answer = client.registry.CreateModelVersion(pb.CreateModelVersionRequest(model=model))
            print(answer.version.version, answer.revision)  # noqa: T201  # what was made


if __name__ == "__main__":
    main(*sys.argv[1:])
