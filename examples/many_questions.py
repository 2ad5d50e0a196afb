"""Many questions at once, as a web application would ask them: batched, and from async code."""

from __future__ import annotations

import asyncio
import time

from local_llms import ChatLocal

THINGS = ("rain", "snow", "wind", "fog", "hail", "thunder", "a rainbow", "frost")
QUESTIONS = tuple(f"Describe {thing} in one sentence." for thing in THINGS)


def in_one_batch(chat: ChatLocal) -> list[str]:
    """All questions are decoded together."""
    return [message.text for message in chat.batch(list(QUESTIONS))]


async def as_they_come(chat: ChatLocal) -> list[str]:
    """Independent tasks, each with its own stream; they are decoded together all the same."""

    async def ask(question: str) -> str:
        pieces = [chunk.text async for chunk in chat.astream(question)]
        return "".join(pieces)

    return await asyncio.gather(*(ask(question) for question in QUESTIONS))


def main() -> tuple[list[str], list[str]]:
    with ChatLocal(temperature=0, max_tokens=24) as chat:
        chat.invoke("Hello", max_tokens=1)  # load before measuring

        start = time.perf_counter()
        batched = in_one_batch(chat)
        print(f"batch: {len(batched)} answers in {time.perf_counter() - start:.1f} s")

        start = time.perf_counter()
        streamed = asyncio.run(as_they_come(chat))
        print(f"async: {len(streamed)} streams in {time.perf_counter() - start:.1f} s")

        for question, answer in zip(QUESTIONS, batched, strict=True):
            print(f"- {question} {answer}")
        return batched, streamed


if __name__ == "__main__":
    main()
