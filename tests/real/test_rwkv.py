"""RWKV from the one door and from both frameworks, on the small models of rwkv.cpp."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_llms import load_model
from local_llms.models import LoadedModel

QUESTION = "What is a recurrent network?"
WORDS = {"the", "and", "of", "to", "in", "a", "is"}


def path_of(data: Path, model: str) -> Path:
    return data / f"models/rwkv/tiny-rwkv-{model}-FP32.bin"


@pytest.fixture(scope="module")
def english(data: Path) -> Iterator[LoadedModel]:
    """The one that was trained on English."""
    with load_model(path_of(data, "5v2-730K"), template="plain", threads=1) as model:
        yield model


def test_version_5_2_writes_english_words(english: LoadedModel) -> None:
    answer = english.generate("In the ", temperature=0, max_tokens=120)
    words = answer.text.split()
    assert len(words) > 15
    assert WORDS.intersection(words), answer.text
    assert answer.usage.completion_tokens == 120
    assert english.info.architecture == "rwkv5.2"
    assert english.info.backend == "rwkv"
    assert english.info.backend_reason == "it is a file of rwkv.cpp"
    assert english.info.vocabulary == "single bytes, since it has 256 tokens"


@pytest.mark.parametrize("model", ["4v0-660K", "5v2-730K", "6v0-1m", "7v0-834K"])
def test_a_batch_answers_as_each_alone(model: str, data: Path) -> None:
    prompts = [f"{'In the beginning ' * (number % 4)}{number} " for number in range(12)]
    with load_model(path_of(data, model), template="plain", threads=1) as loaded:
        together = loaded.generate_many(prompts, temperature=0, max_tokens=24)
        alone = [loaded.generate(prompt, temperature=0, max_tokens=24) for prompt in prompts]
        assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]
        sampled = [loaded.generate(prompts[5], temperature=1.0, seed=7, max_tokens=24).token_ids for _ in range(2)]
        assert sampled[0] == sampled[1]


def test_a_shared_prefix_costs_one_copy(data: Path) -> None:
    """But for the first request, which may be read before there is another one to part from it."""
    context = "A long context that every question is about. " * 8
    with load_model(path_of(data, "7v0-834K"), template="plain", threads=1) as model:
        answers = model.generate_many([f"{context}{number}" for number in range(16)], temperature=0, max_tokens=4)
        cached = [answer.usage.cached_prompt_tokens for answer in answers]
        assert cached.count(0) <= 2
        assert min(sorted(cached)[2:]) >= len(context)
        again = model.generate(f"{context}and another", temperature=0, max_tokens=4)
        assert again.usage.cached_prompt_tokens >= len(context)
        fresh = model.generate(f" {context}and another", temperature=0, max_tokens=4)
        assert fresh.usage.cached_prompt_tokens == 0


def test_versions_4_and_7_answer_at_the_same_time(data: Path) -> None:
    with (
        load_model(path_of(data, "4v0-660K"), template="plain", threads=1) as four,
        load_model(path_of(data, "7v0-834K"), template="plain", threads=1) as seven,
    ):
        streams = [model.stream("In the ", temperature=0, max_tokens=20) for model in (four, seven)]
        both = [stream.result().token_ids for stream in streams]
        assert both == [model.generate("In the ", temperature=0, max_tokens=20).token_ids for model in (four, seven)]
        assert [model.info.architecture for model in (four, seven)] == ["rwkv4", "rwkv7"]


MEMORY = """
import resource, sys
from local_llms import load_model
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with load_model(sys.argv[1], template="plain", threads=1) as model:
    answers = [model.generate("In the end " * count, temperature=0, max_tokens=2) for count in (60, 60)]
    before = peak()
    answer = model.generate("In the end " * 2700, temperature=0, max_tokens=2)
    print(answer.usage.prompt_tokens, (peak() - before) // 1024)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="this system does not tell the peak of memory so")
def test_a_long_context_takes_no_more_memory(data: Path) -> None:
    """A KV cache of the same width and depth would take 60 MB for it, in 16-bit numbers."""
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, path_of(data, "4v0-660K")], capture_output=True, text=True, timeout=150
    )
    assert run.returncode == 0, run.stderr
    tokens, grown = map(int, run.stdout.split())
    assert tokens == 29_700
    assert grown < 20, f"{grown} MiB more for {tokens} tokens"


def test_langchain(data: Path) -> None:
    from local_llms import RWKVLLM, ChatRWKV

    path = str(path_of(data, "5v2-730K"))
    chat = ChatRWKV(model=path, threads=1, temperature=0, max_tokens=16)
    message = chat.invoke(QUESTION)
    assert message.usage_metadata["output_tokens"] <= 16
    assert message.response_metadata["model_provider"]
    streamed = "".join(chunk.content for chunk in chat.stream(QUESTION))
    assert streamed == message.content
    llm = RWKVLLM(model=path, threads=1, temperature=0, max_tokens=16)
    assert llm.batch([QUESTION] * 3) == [llm.invoke(QUESTION)] * 3
    assert RWKVLLM(model=path, threads=1, template="plain", temperature=0, max_tokens=16).invoke("In the ")


def test_llama_index(data: Path) -> None:
    from llama_index.core.llms import ChatMessage

    from local_llms.llama_index import RWKVLLM

    llm = RWKVLLM(model=str(path_of(data, "5v2-730K")), threads=1, temperature=0, max_tokens=16)
    answer = llm.chat([ChatMessage(role="user", content=QUESTION)])
    assert answer.message.content == "".join(
        part.delta or "" for part in llm.stream_chat([ChatMessage(role="user", content=QUESTION)])
    )
    assert isinstance(llm.complete(QUESTION).text, str)
