"""The square wave: load the device for a second, rest for a second, and watch what its counter makes of it."""

from __future__ import annotations

from collections.abc import Callable

from layerprof.hooks.energy.clock import HostClock
from layerprof.hooks.energy.meter import Channel

from layerprof.energy.instruments import Clock, Sensor
from layerprof.energy.selftest import SelfTest, analyse

POLL_S = 0.01


def square_wave(
    sensor: Sensor,
    load: Callable[[float], None],
    clock: Clock | None = None,
    *,
    cycles: int = 4,
    half_s: float = 1.0,
) -> SelfTest:
    """Run `load(half_s)` and rest for as long, `cycles` times, reading the sensor throughout.

    `load` keeps the device busy for the seconds it is given and returns when the device is done.
    """
    clock = clock or HostClock()
    before = clock.now()
    for _ in range(5):
        sensor.read()
    read_s = (clock.now() - before) / 5
    channel = Channel(sensor, clock, POLL_S)
    stop = clock.repeat(channel.poll)
    loaded = []
    try:
        clock.sleep(half_s)
        for _ in range(cycles):
            start = clock.now()
            load(half_s)
            loaded.append((start, clock.now()))
            clock.sleep(half_s)
    finally:
        stop()
    return analyse(channel.record().reads, loaded, read_s)


def cuda_load(device: str) -> Callable[[float], None]:
    """Return a load of matrix products (4096 x 4096, half precision) for a CUDA device."""
    import torch

    a = torch.randn(4096, 4096, device=device, dtype=torch.float16)
    clock = HostClock()

    def load(seconds: float) -> None:
        end = clock.now() + seconds
        while clock.now() < end:
            for _ in range(10):
                torch.mm(a, a)
            torch.cuda.synchronize(device)

    load(0.2)
    return load


def cuda_self_test(device: str, sensor: Sensor) -> SelfTest:
    """Run the square wave on a CUDA device."""
    return square_wave(sensor, cuda_load(device))
