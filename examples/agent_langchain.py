"""An agent of LangChain with two tools: the model calls one, is told its result, and answers.

Needs ``pip install langchain langgraph`` beside the extra quickstart.
"""

from collections.abc import Callable

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from local_llms import ChatLocal


def price(item: str) -> str:
    """The price of an item in the shop."""
    return {"bread": "3 euros", "milk": "1 euro"}.get(item.lower(), "not for sale")


def opening_hours(day: str) -> str:
    """When the shop is open on a day of the week."""
    return "closed" if day.lower() == "sunday" else "from 8 to 18"


class CallFirst(AgentMiddleware):
    """A very small model talks rather than calls, so the first step must be a call."""

    def wrap_model_call(self, request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]) -> ModelResponse:
        """Force a call as long as no tool has answered."""
        answered = any(isinstance(message, ToolMessage) for message in request.messages)
        return handler(request.override(tool_choice="none" if answered else "any"))


def main() -> list[BaseMessage]:
    with ChatLocal(temperature=0, max_tokens=120) as model:
        agent = create_agent(model, [price, opening_hours], middleware=[CallFirst()])
        question = HumanMessage("What is the price of bread?")
        messages: list[BaseMessage] = agent.invoke({"messages": [question]})["messages"]
    for message in messages:
        calls = message.tool_calls if isinstance(message, AIMessage) else []
        print(f"{message.type}: {message.text or calls}")
    return messages


if __name__ == "__main__":
    main()
