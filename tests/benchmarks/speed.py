"""Measures what ``docs/performance.md`` shows. Run by hand, with nothing else running::

    python -m tests.benchmarks.speed            # everything that needs no other package
    python -m tests.benchmarks.speed --peer     # also ChatLlamaCpp: pip install langchain-community
    python -m tests.benchmarks.speed one batch  # some of the parts

Every comparison runs both sides in turn in one process, one decoding at a time, and shows medians. A model is loaded
afresh for each run, so that no run profits from an earlier one's cached prefixes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local_llms import ChatLocal
from local_llms.models import LoadedModel, load_model
from local_llms.paths import cache_dir
from tests.benchmarks import material
from tests.benchmarks.bare_loop import BareLoop

MAX_TOKENS = 48
LONG_TOKENS = 200


class Suite:
    """One run of the benchmarks over one model file per quantization."""

    def __init__(self, model: Path, quantizations: list[str], runs: int, peer: bool) -> None:
        folder = cache_dir() / "benchmarks"
        self.files = {name: material.requantized(model, name, folder) for name in quantizations}
        self.runs = runs
        self.peer = peer

    def one(self) -> None:
        """One stream, greedy."""
        for name, file in self.files.items():
            figures: dict[str, list[float]] = {}
            for run in range(self.runs):
                question = material.QUESTIONS[run % len(material.QUESTIONS)]
                with loaded(file) as model, BareLoop(file) as loop:
                    ids = loop.tokenize(model.render(question))
                    bare = loop.one(ids, LONG_TOKENS)
                    add(figures, "bare loop", bare.tokens_per_second)
                    chat = chat_model(file, LONG_TOKENS)
                    add(figures, "ChatLocal.stream", speed(lambda: consume(chat.stream(question)), bare.tokens))
                with loaded(file):
                    chat = chat_model(file, LONG_TOKENS)
                    add(figures, "ChatLocal.invoke", speed(lambda: chat.invoke(question), bare.tokens))
                if self.peer:
                    other = peer_model(file, LONG_TOKENS)
                    add(figures, "ChatLlamaCpp.stream", speed(lambda: consume(other.stream(question)), bare.tokens))
                    del other
                    gc.collect()
            table(f"one stream, {LONG_TOKENS} tokens, {name}, tokens a second", figures, "bare loop")

    def batch(self) -> None:
        """Sixteen unrelated questions at once."""
        for name, file in self.files.items():
            figures: dict[str, list[float]] = {}
            for _ in range(self.runs):
                with loaded(file) as model, BareLoop(file) as loop:
                    prompts = [loop.tokenize(model.render(question)) for question in material.QUESTIONS]
                    add(figures, "bare loop", loop.many(prompts, MAX_TOKENS).seconds)
                    chat = chat_model(file, MAX_TOKENS)
                    add(figures, "ChatLocal.batch", seconds(lambda: chat.batch(material.QUESTIONS)))
                with loaded(file):
                    chat = chat_model(file, MAX_TOKENS)
                    add(figures, "ChatLocal.abatch", seconds(lambda: asyncio.run(chat.abatch(material.QUESTIONS))))
                if self.peer:
                    add(figures, "ChatLlamaCpp, one by one", peer_seconds(file, material.QUESTIONS))
            table(f"16 questions, {MAX_TOKENS} tokens, {name}, seconds", figures, "ChatLlamaCpp, one by one")

    def contexts(self) -> None:
        """Thirty-two questions on four contexts, and thirty-two others afterwards."""
        first, second = material.context_questions(0), material.context_questions(1)
        for name, file in self.files.items():
            figures: dict[str, list[float]] = {}
            for _ in range(self.runs):
                with loaded(file) as model, BareLoop(file, context=12288) as loop:
                    prompts = [loop.tokenize(model.render(question)) for question in first]
                    add(figures, "bare loop", loop.many(prompts, MAX_TOKENS).seconds)
                    chat = chat_model(file, MAX_TOKENS)
                    add(figures, "ChatLocal.batch", seconds(lambda: chat.batch(first)))
                    add(figures, "ChatLocal.batch, others on the same contexts", seconds(lambda: chat.batch(second)))
                if self.peer:
                    add(figures, "ChatLlamaCpp, one by one", peer_seconds(file, first))
            table(f"32 questions on 4 contexts, {name}, seconds", figures, "ChatLlamaCpp, one by one")

    def first_token(self) -> None:
        """Time to the first token with a long prefix, cold and seen."""
        file = next(iter(self.files.values()))
        figures: dict[str, list[float]] = {}
        prefix = material.long_prompt(1500)
        for run in range(self.runs):
            with loaded(file) as model:
                tokens = model.count_tokens(prefix)
                for name, question in (("cold", "What is it about?"), ("seen", f"Which word is number {run}?")):
                    answer = model.generate(f"{prefix}\n\n{question}", temperature=0, max_tokens=4)
                    add(figures, f"{name} ({tokens} tokens)", 1000 * answer.timings.first_token)
        table("time to first token, milliseconds", figures, next(iter(figures)))

    def stall(self) -> None:
        """Longest time the event loop was held up while eight streams ran."""
        file = next(iter(self.files.values()))
        figures: dict[str, list[float]] = {}
        for _ in range(self.runs):
            with loaded(file):
                add(figures, "longest stall", 1000 * asyncio.run(longest_stall(chat_model(file, LONG_TOKENS))))
        table("event loop while 8 streams run, milliseconds", figures, None)

    def memory(self) -> None:
        """Resident memory of twenty objects over one model, beyond that of one."""
        file = next(iter(self.files.values()))
        with loaded(file):
            first = chat_model(file, 8)
            first.invoke("hello")
            before = resident()
            others = [chat_model(file, 8) for _ in range(19)]
            for other in others:
                other.invoke("hello")
            figures = {"19 more objects": [(resident() - before) / 2**20]}
        table("resident memory, MiB", figures, None)

    def imports(self) -> None:
        """Time of ``import local_llms``, beyond that of an empty interpreter."""
        figures: dict[str, list[float]] = {}
        for _ in range(max(self.runs, 5)):
            for name, code in (("python -c pass", "pass"), ("python -c 'import local_llms'", "import local_llms")):
                add(figures, name, seconds(lambda code=code: subprocess.run([sys.executable, "-c", code], check=True)))
        table("import, seconds", figures, None)


@contextmanager
def loaded(file: Path) -> Iterator[LoadedModel]:
    """A model in memory; ChatLocal objects inside the block share it, and nothing is left of it afterwards."""
    gc.collect()
    with load_model(file, template="smollm2", max_parallel=32) as model:
        model.generate("Warm up.", max_tokens=4)
        yield model
    gc.collect()


def chat_model(file: Path, max_tokens: int) -> ChatLocal:
    """A LangChain model that shares what ``loaded`` holds."""
    return ChatLocal(model=str(file), template="smollm2", max_parallel=32, temperature=0, max_tokens=max_tokens)


def peer_model(file: Path, max_tokens: int) -> Any:
    """The wrapper of langchain-community, as its documentation builds it."""
    from langchain_community.chat_models import ChatLlamaCpp

    return ChatLlamaCpp(
        model_path=str(file),
        n_ctx=2048,
        n_threads=len(os.sched_getaffinity(0)),
        n_batch=512,
        temperature=0.0,
        max_tokens=max_tokens,
        verbose=False,
    )


def peer_seconds(file: Path, prompts: list[str]) -> float:
    """Seconds of the peer for the prompts one after the other: two at once abort its process."""
    other = peer_model(file, MAX_TOKENS)
    other.invoke("Warm up.")
    try:
        return seconds(lambda: [other.invoke(prompt) for prompt in prompts])
    finally:
        other.client.close()
        gc.collect()


async def longest_stall(chat: ChatLocal) -> float:
    """Seconds by which the event loop was late at most, looking every millisecond."""
    worst = 0.0
    running = True

    async def watch() -> None:
        nonlocal worst
        while running:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            worst = max(worst, time.perf_counter() - before - 0.001)

    async def read(question: str) -> None:
        async for _ in chat.astream(question):
            pass

    watcher = asyncio.create_task(watch())
    await asyncio.gather(*(read(question) for question in material.QUESTIONS[:8]))
    running = False
    await watcher
    return worst


def consume(stream: Any) -> None:
    """Read a stream to its end."""
    for _ in stream:
        pass


def seconds(action: Callable[[], object]) -> float:
    """Wall time of a call."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def speed(action: Callable[[], object], tokens: int) -> float:
    """Tokens a second of a call that makes ``tokens`` tokens."""
    return tokens / seconds(action)


def resident() -> int:
    """Resident memory of this process in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def add(figures: dict[str, list[float]], name: str, value: float) -> None:
    """Note a figure."""
    figures.setdefault(name, []).append(value)


def table(title: str, figures: dict[str, list[float]], base: str | None) -> None:
    """Print medians, and each one's ratio to the base."""
    print(f"\n{title}")
    reference = statistics.median(figures[base]) if base in figures else None
    for name, values in figures.items():
        median = statistics.median(values)
        ratio = f"   {reference / median:6.2f} (base / this)" if reference and name != base else ""
        print(f"  {name:48} {median:9.3f}   [{min(values):.3f} … {max(values):.3f}]{ratio}", flush=True)


def main() -> None:
    """Read the command line and run the parts."""
    parts = ("one", "batch", "contexts", "first_token", "stall", "memory", "imports")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="default: all")
    parser.add_argument("--model", type=Path, help="a GGUF file of SmolLM2; default: the one of the catalog")
    parser.add_argument("--quantizations", nargs="+", default=["Q4_1", "Q4_0", "Q8_0"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peer", action="store_true", help="compare with langchain-community's ChatLlamaCpp")
    arguments = parser.parse_args()
    model = arguments.model
    if model is None:
        with load_model("smollm2-135m-instruct") as catalog:
            model = catalog.info.path
    suite = Suite(model, arguments.quantizations, arguments.runs, arguments.peer)
    for part in arguments.parts or parts:
        getattr(suite, part)()


if __name__ == "__main__":
    main()
