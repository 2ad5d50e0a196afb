"""A LangGraph graph whose nodes run side by side on one model, which decodes their requests in one batch.

Needs ``pip install langgraph`` beside the extra quickstart.
"""

import asyncio
from operator import add
from typing import Annotated, TypedDict

from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, StateGraph

from local_llms import ChatLocal
from local_llms.models import EngineStats

VIEWS = ("a child", "a scientist", "a poet")


class State(TypedDict):
    """What the nodes share."""

    subject: str
    views: Annotated[list[str], add]


def view_of(model: ChatLocal, who: str) -> RunnableLambda[State, dict[str, list[str]]]:
    async def node(state: State) -> dict[str, list[str]]:
        answer = await model.ainvoke(f"What would {who} say about {state['subject']}? One sentence.")
        return {"views": [f"{who}: {answer.text}"]}

    return RunnableLambda(node)


def main() -> tuple[list[str], EngineStats]:
    with ChatLocal(temperature=0, max_tokens=40) as model:
        graph = StateGraph(State)
        for who in VIEWS:
            graph.add_node(who, view_of(model, who))
            graph.add_edge(START, who)
            graph.add_edge(who, END)
        state = asyncio.run(graph.compile().ainvoke({"subject": "the moon", "views": []}))
        stats = model.loaded().stats()
    print(*state["views"], sep="\n")
    print(f"{stats.completion_tokens} tokens in {stats.steps} steps")
    return state["views"], stats


if __name__ == "__main__":
    main()
