"""A conversation that outgrows its context: LangChain's middleware has the model summarize the older turns.

Needs ``pip install langchain langgraph`` beside the extra quickstart.
"""

from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from local_llms import ChatLocal

TURNS = ["My name is Lena.", "I live in Oslo.", "I have a red boat.", "My boat is called Berta.", "What do I have?"]


def main() -> list[BaseMessage]:
    with ChatLocal(temperature=0, max_tokens=40) as model:
        summarize = SummarizationMiddleware(model, trigger=("messages", 6), keep=("messages", 3))
        agent = create_agent(model, [], middleware=[summarize], checkpointer=InMemorySaver())
        thread = RunnableConfig(configurable={"thread_id": "1"})
        for turn in TURNS:
            messages: list[BaseMessage] = agent.invoke({"messages": [HumanMessage(turn)]}, thread)["messages"]
            print(f"{len(messages)} messages; the last: {messages[-1].text}")
    return messages


if __name__ == "__main__":
    main()
