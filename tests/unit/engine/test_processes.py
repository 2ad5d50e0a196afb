"""Forks, and the end of the interpreter: in processes of their own, since a mistake here hangs."""

import subprocess
import sys

import pytest

BEGINNING = """
import asyncio, contextlib, gc, os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads about, which is what is tested
from local_llms.engine import Engine, Request
from local_llms.errors import EngineForked, RequestCancelled
from local_llms.testing.scripted import BOS, ScriptedBackend
from local_llms.types import SamplingParams

def ask(engine, text, count):
    return engine.submit(Request((BOS, *text.encode()), SamplingParams(temperature=0.0, max_tokens=count)))

def refused(call):
    try:
        call()
    except EngineForked:
        return
    os._exit(7)

engine = Engine(ScriptedBackend(context_length=5000, cache_tokens=5000, step_seconds=0.001))
"""


def run(code: str) -> str:
    """What a process prints; fails where it hangs, or ends badly, or says anything on standard error."""
    done = subprocess.run([sys.executable, "-c", BEGINNING + code], capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_a_fork_is_told_so_and_the_parent_goes_on() -> None:
    code = """
running = ask(engine, "world", 100)
future = engine.embed([[1]])

# The worst moment: whatever lock the engine has is held by a thread that will not live in the child.
held, go_on = threading.Event(), threading.Event()

def hold():
    with engine._worker._changed, engine._worker._computing:
        held.set()
        go_on.wait()

threading.Thread(target=hold).start()
held.wait()
child = os.fork()
go_on.set()
if child == 0:
    refused(lambda: ask(engine, "again", 3))
    refused(lambda: engine.embed([[1]]))
    refused(engine.stats)
    refused(engine.idle_seconds)
    refused(running.result)
    refused(lambda: list(running))
    refused(lambda: asyncio.run(running.aresult()))
    running.cancel()
    engine.close()
    del running
    gc.collect()
    sys.exit(0)
_, status = os.waitpid(child, 0)
print(status, len(running.result().text), future.result().shape)
engine.close()
"""
    assert run(code).split() == ["0", "100", "(1,", "8)"]


def test_forks_at_any_moment_end() -> None:
    # Whatever lock the engine's thread holds when the process forks, the child gets to its end.
    code = """
streams = [ask(engine, f"{number}", 4000) for number in range(8)]

def read(stream):
    with contextlib.suppress(RequestCancelled):
        stream.result()

readers = [threading.Thread(target=read, args=(stream,), daemon=True) for stream in streams[:4]]
for reader in readers:
    reader.start()
for _ in range(30):
    child = os.fork()
    if child == 0:
        for stream in streams:
            stream.cancel()
        streams.clear()
        del stream
        gc.collect()
        engine.close()
        os._exit(0)
    deadline = time.monotonic() + 20
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, 9)
            sys.exit("a child hangs")
        time.sleep(0.001)
    time.sleep(0.003)
for stream in streams:
    stream.cancel()
engine.close()
print("done")
"""
    assert run(code) == "done\n"


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "del engine",
        "del streams, engine; gc.collect()",
        "for stream in streams: stream.cancel()",
        "next(iter(streams[0]))",
        "kept = iter(streams[0]); next(kept)",
        "engine.close()",
        "sys.last_value = streams[0]; threading.Thread(target=streams[1].result, daemon=True).start()",
        "raise SystemExit(0)",
    ],
)
def test_the_interpreter_ends_while_requests_are_under_way(ending: str) -> None:
    run(f"streams = [ask(engine, str(number), 4000) for number in range(8)]\ntime.sleep(0.05)\n{ending}\n")


def test_the_interpreter_ends_while_a_task_reads() -> None:
    code = """
async def main():
    async def read():
        async for event in ask(engine, "hello", 4000):
            pass
    asyncio.create_task(read())
    await asyncio.sleep(0.05)

asyncio.run(main())
"""
    run(code)


def test_an_interrupted_reader_stops_the_computing() -> None:
    code = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
stream = ask(engine, "hello", 4000)

def interrupt():
    while not stream._channel._wakes_for_outcome:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)

try:
    threading.Thread(target=interrupt).start()
    stream.result()
except KeyboardInterrupt:
    pass
while engine.stats().running:
    time.sleep(0.001)
print(engine.stats().running, engine.stats().cancelled)
engine.close()
"""
    assert run(code) == "0 1\n"
