"""A network of two hosts: this one, and a namespace at the other end of a cable that we are.

Both ends are TUN devices, so that real TCP runs over the cable, and every packet passes through
this process: it may be delayed, lost, or go nowhere, without a kernel that has netem.
"""

from __future__ import annotations

import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_TUNSETIFF = 0x400454CA
_TUN_WITHOUT_HEADER = 0x1001
_PACKET_BYTES = 65536
_TCP = 6
_number = itertools.count(os.getpid() * 4)


class Cable:
    """One namespace and the cable to it; `here` and `there` are its ends' addresses.

    `delay_seconds` is that of each direction, `loss` a share of packets; nothing passes while
    it is `cut`, and nothing to or from a TCP port of `cut_ports`.
    """

    def __init__(self) -> None:
        number = next(_number) % 60_000
        self.namespace = f"sw-{number}"
        # A range set aside for tests of networks, four addresses to a cable.
        third, fourth = divmod(number % 16_384, 64)
        self.here = f"198.18.{third}.{4 * fourth + 1}"
        self.there = f"198.18.{third}.{4 * fourth + 2}"
        self.delay_seconds = 0.0
        self.loss = 0.0
        self.cut = False
        self.cut_ports: frozenset[int] = frozenset()
        self.passed = 0
        self.dropped = 0
        self._names = (f"sw{number}a", f"sw{number}b")
        self._devices: list[int] = []
        self._chance = random.Random(number)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._carry, name="cable")

    @property
    def inside(self) -> tuple[str, ...]:
        """Words before a command that has it run at the other end."""
        return ("ip", "netns", "exec", self.namespace)

    def __enter__(self) -> Self:
        _run("ip", "netns", "add", self.namespace)
        try:
            self._lay()
        except BaseException:
            self._remove()
            raise
        self._thread.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self._remove()

    def mend(self) -> None:
        """Let everything pass at once."""
        self.delay_seconds, self.loss, self.cut, self.cut_ports = 0.0, 0.0, False, frozenset()

    def _lay(self) -> None:
        for name in self._names:
            self._devices.append(_tun(name))
        here, there = self._names
        _run("ip", "link", "set", there, "netns", self.namespace)
        _run("ip", "addr", "add", f"{self.here}/30", "dev", here)
        _run("ip", "link", "set", here, "up")
        _run(*self.inside, "ip", "addr", "add", f"{self.there}/30", "dev", there)
        _run(*self.inside, "ip", "link", "set", there, "up")
        _run(*self.inside, "ip", "link", "set", "lo", "up")

    def _remove(self) -> None:
        # The devices go with their files.
        for device in self._devices:
            os.close(device)
        subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True, check=False)

    def _carry(self) -> None:
        """Carry packets to the other end, each after its delay."""
        one, other = self._devices
        ends = {one: other, other: one}
        order = itertools.count()
        underway: list[tuple[float, int, int, bytes]] = []
        while not self._over.is_set():
            pause = underway[0][0] - time.monotonic() if underway else 0.1
            ready, _, _ = select.select(self._devices, [], [], min(max(pause, 0), 0.1))
            for device in ready:
                packet = os.read(device, _PACKET_BYTES)
                if self._loses(packet):
                    self.dropped += 1
                    continue
                due = time.monotonic() + self.delay_seconds
                heapq.heappush(underway, (due, next(order), ends[device], packet))
            while underway and underway[0][0] <= time.monotonic():
                _, _, device, packet = heapq.heappop(underway)
                os.write(device, packet)
                self.passed += 1

    def _loses(self, packet: bytes) -> bool:
        if self.cut or self._chance.random() < self.loss:
            return True
        return bool(self.cut_ports) and not self.cut_ports.isdisjoint(_ports(packet))


def _ports(packet: bytes) -> tuple[int, ...]:
    """Read the ports of a TCP packet; none of any other."""
    if packet[0] >> 4 != 4 or packet[9] != _TCP:
        return ()
    start = (packet[0] & 0x0F) * 4
    return struct.unpack_from(">HH", packet, start)


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        message = f"this test needs the tool `{command[0]}` (iproute2)"
        raise AssertionError(message) from None
    if done.returncode:
        message = f"`{' '.join(command)}` failed, which needs CAP_NET_ADMIN: {done.stderr}"
        raise AssertionError(message)


def _tun(name: str) -> int:
    try:
        device = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TUN_WITHOUT_HEADER))
    except OSError as error:
        message = f"this test needs TUN devices (/dev/net/tun, CAP_NET_ADMIN): {error}"
        raise AssertionError(message) from error
    return device
