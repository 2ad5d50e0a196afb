"""Measures what ``docs/performance.md`` shows. Run by hand, with nothing else running::

    python -m tests.benchmarks.speed            # everything that needs no other package
    python -m tests.benchmarks.speed --peer     # also ChatLlamaCpp: pip install langchain-community
    python -m tests.benchmarks.speed one batch  # some of the parts

Every comparison runs its sides in turn, each in a process of its own, one decoding at a time, and shows medians. A
model is loaded afresh for each run, so that no run profits from an earlier one's cached prefixes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from local_llms import ChatLocal, render_prompt
from local_llms.models import LoadedModel, load_model
from local_llms.paths import cache_dir
from tests.benchmarks import material
from tests.benchmarks.bare_loop import BareLoop

ANSWER_TOKENS = 48
LONG_TOKENS = 200

Result = TypeVar("Result")


def alone(function: Callable[..., Result], *arguments: Any) -> Result:
    """Run a side of a comparison in a process of its own: two OpenMP teams in one process slow each other down."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(function, *arguments).result()


class Suite:
    """One run of the benchmarks over one model file per quantization."""

    def __init__(self, model: Path, quantizations: list[str], runs: int, lengths: list[int], peer: bool) -> None:
        folder = cache_dir() / "benchmarks"
        self.files = {name: material.requantized(model, name, folder) for name in quantizations}
        self.runs = runs
        self.lengths = lengths
        self.peer = peer

    def one(self) -> None:
        """One stream, greedy."""
        sides = {"bare loop": bare_one, "ChatLocal.stream": our_stream, "ChatLocal.invoke": our_invoke}
        if self.peer:
            sides["ChatLlamaCpp.stream"] = peer_stream
        for name, file in self.files.items():
            figures: dict[str, list[float]] = {}
            for run in range(self.runs):
                question = material.QUESTIONS[run % len(material.QUESTIONS)]
                for side, function in sides.items():
                    add(figures, side, alone(function, file, question))
            table(
                f"one stream, {LONG_TOKENS} tokens, {name}, tokens a second", figures, "bare loop", more_is_better=True
            )

    def batch(self) -> None:
        """Sixteen unrelated questions at once."""
        sides = {"bare loop": bare_many, "ChatLocal.batch": our_batch, "ChatLocal.abatch": our_abatch}
        self._seconds("16 questions", sides, [material.QUESTIONS], ANSWER_TOKENS)

    def contexts(self) -> None:
        """Thirty-two questions on four contexts, and thirty-two others afterwards."""
        rounds = [material.context_questions(0), material.context_questions(1)]
        sides = {"bare loop": bare_many, "ChatLocal.batch": our_batch}
        for length in self.lengths:
            self._seconds("32 questions on 4 contexts", sides, rounds, length)

    def _seconds(self, title: str, sides: dict[str, Any], rounds: list[list[str]], length: int) -> None:
        """Seconds of each side for each round of prompts, with answers of at most ``length`` tokens.

        A side keeps what it has cached between rounds.
        """
        if self.peer:
            sides = {**sides, "ChatLlamaCpp, one by one": peer_each}
        for name, file in self.files.items():
            tables: list[dict[str, list[float]]] = [{} for _ in rounds]
            for _ in range(self.runs):
                for side, function in sides.items():
                    rounds_taken = alone(function, file, rounds, length)
                    print(f"{name}, {side}:", *(f"{taken:.2f} s" for taken in rounds_taken), flush=True)
                    for figures, taken in zip(tables, rounds_taken, strict=True):
                        add(figures, side, taken)
            for number, figures in enumerate(tables):
                which = "" if len(tables) == 1 else f", round {number + 1}"
                table(f"{title}{which}, {length} tokens, {name}, seconds", figures, "ChatLlamaCpp, one by one")
                if "ChatLlamaCpp, one by one" in figures:
                    table("  against the bare loop", figures, "bare loop")

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


def prompt_ids(loop: BareLoop, question: str) -> list[int]:
    """What the engine sends for a question, for the bare loop."""
    return loop.tokenize(render_prompt("smollm2", [{"role": "user", "content": question}]))


def bare_one(file: Path, question: str) -> float:
    """Tokens a second of the bare loop."""
    with BareLoop(file) as loop:
        loop.one(prompt_ids(loop, "Warm up."), 4)
        return loop.one(prompt_ids(loop, question), LONG_TOKENS).tokens_per_second


def bare_many(file: Path, rounds: list[list[str]], length: int) -> list[float]:
    """Seconds of the bare batched loop for each round."""
    with BareLoop(file, context=12288) as loop:
        loop.one(prompt_ids(loop, "Warm up."), 4)
        return [loop.many([prompt_ids(loop, text) for text in texts], length).seconds for texts in rounds]


def our_stream(file: Path, question: str) -> float:
    """Tokens a second through ``ChatLocal.stream``."""
    with loaded(file):
        return stream_speed(chat_model(file, LONG_TOKENS), question)


def our_invoke(file: Path, question: str) -> float:
    """Tokens a second through ``ChatLocal.invoke``."""
    with loaded(file):
        chat = chat_model(file, LONG_TOKENS)
        begin = time.perf_counter()
        usage = chat.invoke(question).usage_metadata
        return usage["output_tokens"] / (time.perf_counter() - begin)


def our_batch(file: Path, rounds: list[list[str]], length: int) -> list[float]:
    """Seconds of ``ChatLocal.batch`` for each round."""
    with loaded(file):
        chat = chat_model(file, length)
        return [seconds(partial(chat.batch, texts)) for texts in rounds]


def our_abatch(file: Path, rounds: list[list[str]], length: int) -> list[float]:
    """Seconds of ``ChatLocal.abatch`` for each round."""
    with loaded(file):
        chat = chat_model(file, length)
        return [seconds(lambda texts=texts: asyncio.run(chat.abatch(texts))) for texts in rounds]


def peer_stream(file: Path, question: str) -> float:
    """Tokens a second of the peer's stream."""
    other = peer_model(file, LONG_TOKENS)
    other.invoke("Warm up.")
    return stream_speed(other, question)


def peer_each(file: Path, rounds: list[list[str]], length: int) -> list[float]:
    """Seconds of the peer, prompts one after the other: two at once abort its process."""
    other = peer_model(file, length)
    other.invoke("Warm up.")
    return [seconds(lambda texts=texts: [other.invoke(text) for text in texts]) for texts in rounds]


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


def seconds(action: Callable[[], object]) -> float:
    """Wall time of a call."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def stream_speed(chat: Any, question: str) -> float:
    """Tokens a second of a stream; a chunk with text is a token in either wrapper."""
    begin = time.perf_counter()
    tokens = sum(1 for chunk in chat.stream(question) if chunk.content)
    return tokens / (time.perf_counter() - begin)


def resident() -> int:
    """Resident memory of this process in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def add(figures: dict[str, list[float]], name: str, value: float) -> None:
    """Note a figure."""
    figures.setdefault(name, []).append(value)


def table(title: str, figures: dict[str, list[float]], base: str | None, *, more_is_better: bool = False) -> None:
    """Print medians, and how many times as fast as the base each one is."""
    print(f"\n{title}")
    reference = statistics.median(figures[base]) if base in figures else None
    for name, values in figures.items():
        median = statistics.median(values)
        times = 0.0 if not reference else median / reference if more_is_better else reference / median
        ratio = f"   {times:6.2f} times as fast as the {base}" if reference and name != base else ""
        print(f"  {name:48} {median:9.3f}   [{min(values):.3f} … {max(values):.3f}]{ratio}", flush=True)


def main() -> None:
    """Read the command line and run the parts."""
    parts = ("one", "batch", "contexts", "first_token", "stall", "memory", "imports")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="default: all")
    parser.add_argument("--model", type=Path, help="a GGUF file of SmolLM2; default: the one of the catalog")
    parser.add_argument("--quantizations", nargs="+", default=["Q4_1", "Q4_0", "Q8_0"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--lengths", nargs="+", type=int, default=[24, 48], help="tokens of an answer in 'contexts'")
    parser.add_argument("--peer", action="store_true", help="compare with langchain-community's ChatLlamaCpp")
    arguments = parser.parse_args()
    model = arguments.model
    if model is None:
        with load_model("smollm2-135m-instruct") as catalog:
            model = catalog.info.path
    suite = Suite(model, arguments.quantizations, arguments.runs, arguments.lengths, arguments.peer)
    for part in arguments.parts or parts:
        getattr(suite, part)()


if __name__ == "__main__":
    main()
