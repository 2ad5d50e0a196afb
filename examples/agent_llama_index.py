"""An agent of llama-index with two tools: the model calls one, is told its result, and answers."""

import asyncio
from typing import Literal

from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult

from local_llms.llama_index import LocalLLM


def price(item: Literal["bread", "milk"]) -> str:
    """The price of an item in the shop."""
    return {"bread": "3 euros", "milk": "1 euro"}[item]


def opening_hours(day: Literal["weekday", "sunday"]) -> str:
    """When the shop is open on a day of the week."""
    return "closed" if day == "sunday" else "from 8 to 18"


async def ask(question: str) -> tuple[str, list[ToolCallResult]]:
    with LocalLLM(temperature=0, max_tokens=120) as model:
        # A very small model talks rather than calls, so the first step must be a call.
        # One that may call several tools at once repeats itself.
        agent = FunctionAgent(
            tools=[price, opening_hours],
            llm=model,
            initial_tool_choice="required",
            allow_parallel_tool_calls=False,
            early_stopping_method="generate",
        )
        running = agent.run(question, max_iterations=3)
        calls = [event async for event in running.stream_events() if isinstance(event, ToolCallResult)]
        return str(await running), calls


def main() -> tuple[str, list[ToolCallResult]]:
    answer, calls = asyncio.run(ask("What is the price of bread?"))
    for call in calls:
        print(f"{call.tool_name}({call.tool_kwargs}) → {call.tool_output}")
    print(answer)
    return answer, calls


if __name__ == "__main__":
    main()
