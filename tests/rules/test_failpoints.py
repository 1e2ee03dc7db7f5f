from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from stagewire import failpoints


def passages(value: str, place: str, count: int) -> list[bool]:
    point = failpoints.parse(value)[place]
    return [point.passage() for _ in range(count)]


def test_without_the_variable_nothing_happens_anywhere() -> None:
    assert not any(failpoints.hit(place) for place in failpoints.PLACES)


def test_a_place_is_skipped_always_or_once() -> None:
    assert passages("wake=skip", "wake", 3) == [True] * 3
    assert passages("wake=skip@2", "wake", 3) == [False, True, False]


def test_a_place_raises_what_nobody_foresaw() -> None:
    with pytest.raises(failpoints.Failure):
        passages("handler=raise", "handler", 1)


@pytest.mark.parametrize("value", ["nowhere=kill", "wake", "wake=explode", "wake=kill@often"])
def test_what_is_unknown_is_refused_with_what_there_is(value: str) -> None:
    with pytest.raises(ValueError, match=r"PLACE=ACTION.*head\.taken"):
        failpoints.parse(value)


def test_a_process_is_killed_where_the_variable_says() -> None:
    code = "from stagewire import failpoints; failpoints.hit('wake'); failpoints.hit('head.taken')"
    environment = {**os.environ, failpoints.VARIABLE: "wake=skip; head.taken=kill"}

    ended = subprocess.run([sys.executable, "-c", code], env=environment, check=False)

    assert ended.returncode == -signal.SIGKILL
