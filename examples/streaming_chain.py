"""A LangChain chain that streams its answer, with the figures afterwards."""

from __future__ import annotations

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from local_llms import ChatLocal, TokenCallback
from local_llms.types import Completion


class Figures(TokenCallback):
    """Prints what an answer cost."""

    def on_end(self, completion: Completion) -> None:
        usage, timings = completion.usage, completion.timings
        print(f"\n{usage.prompt_tokens} + {usage.completion_tokens} tokens, ", end="")
        print(f"the first after {timings.first_token:.2f} s, {timings.tokens_per_second:.0f} tokens/s")


def main() -> str:
    prompt = ChatPromptTemplate.from_messages(
        [("system", "You answer in one short sentence."), ("human", "What is {thing}?")]
    )
    chat = ChatLocal(temperature=0, max_tokens=48, token_callbacks=[Figures()])
    chain = prompt | chat | StrOutputParser()

    answer = ""
    for text in chain.stream({"thing": "a lighthouse"}):
        print(text, end="", flush=True)
        answer += text
    return answer


if __name__ == "__main__":
    main()
