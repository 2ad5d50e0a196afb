"""Measures the RWKV backend: tokens a second of one sequence and of several in one batch, and of reading a prompt.

Run by hand, with nothing else running::

    python -m tests.benchmarks.rwkv FILE…            # any weights that the backend reads
    python -m tests.benchmarks.rwkv --package FILE…  # also the rwkv package, for .pth files; one sequence at a time

Without a file: a model with random weights in the shape of RWKV-7 0.1B, but for a small vocabulary. One thread. Every
figure is the best of three runs, each after a warm-up; the runs of a table take turns.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from local_llms.backends import rwkv
from local_llms.backends.base import Backend, Chunk, LoadOptions
from tests.unit.backends.rwkv.checkpoints import make, write_pth

BATCHES = (1, 4, 16, 32)
STEPS = 24
PROMPT = 512
RUNS = 3

PACKAGE = """
import os, sys, time
os.environ["RWKV_JIT_ON"] = "1"
if sys.argv[2] == "7":
    os.environ["RWKV_V7_ON"] = "1"
import torch
torch.set_num_threads(1)
import rwkv.model
name = sys.argv[1].removesuffix(".pth")
model = rwkv.model.RWKV_x070(name, "cpu fp32") if sys.argv[2] == "7" else rwkv.model.RWKV(name, "cpu fp32")
def best(work, runs=4):
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[1:])
def one():
    state = None
    for token in range(24):
        _, state = model.forward([token], state)
print("FOUND", 24 / best(one), 512 / best(lambda: model.forward([place % 250 for place in range(512)], None)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--package", action="store_true", help="also measure the rwkv package")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = arguments.files or [like_rwkv7(Path(folder) / "RWKV-7-random.pth")]
        for file in files:
            measure(file, package=arguments.package)


def like_rwkv7(path: Path) -> Path:
    return write_pth(path, make("7", layers=12, width=768, heads=12, hidden=3072))


def measure(file: Path, *, package: bool) -> None:
    backend = rwkv.load(file, LoadOptions(threads=1, max_parallel=max(BATCHES)))
    info = backend.info
    print(f"{file.name}: {info.architecture}, {info.parameters / 1e6:.1f} million weights, {info.quantization}")
    speeds = dict.fromkeys(BATCHES, 0.0)
    prompt = 0.0
    for _ in range(RUNS):
        for count in BATCHES:
            speeds[count] = max(speeds[count], count * STEPS / timed(lambda count=count: decode(backend, count)))
        prompt = max(prompt, PROMPT / timed(lambda: read(backend)))
    for count, speed in speeds.items():
        print(f"  {count:3} sequences: {speed:9.0f} tokens/s, {speed / speeds[1]:5.1f} times one")
    print(f"  a prompt:      {prompt:9.0f} tokens/s")
    version = info.architecture.removeprefix("rwkv")
    backend.close()
    if package and file.suffix == ".pth":
        run = subprocess.run([sys.executable, "-c", PACKAGE, file, version], capture_output=True, text=True, check=True)
        one, whole = map(float, run.stdout.split("FOUND", 1)[1].split())
        print(f"  rwkv package:  {one:9.0f} tokens/s, a prompt {whole:.0f} tokens/s")


def timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def decode(backend: Backend, count: int) -> None:
    """Steps of one token for each sequence; what was there before is forgotten."""
    for number in range(count):
        backend.free(number)
    for place in range(STEPS):
        backend.decode([Chunk(number, place, [(place + number) % 250]) for number in range(count)])


def read(backend: Backend) -> None:
    backend.free(0)
    backend.decode([Chunk(0, 0, [place % 250 for place in range(PROMPT)])])


if __name__ == "__main__":
    main()
