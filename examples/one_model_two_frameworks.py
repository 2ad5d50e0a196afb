"""A LangChain chain and a llama-index model at the same time, on one set of weights and in one batch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from local_llms import ChatLocal, load_model
from local_llms.llama_index import LocalLLM
from local_llms.models import EngineStats


def main() -> EngineStats:
    chat = ChatLocal(temperature=0, max_tokens=24)
    llm = LocalLLM(temperature=0, max_tokens=24)

    with ThreadPoolExecutor() as threads:
        from_langchain = threads.submit(chat.invoke, "Name a fruit.")
        from_llama_index = threads.submit(llm.complete, "Name a vegetable.")
        print("LangChain:", from_langchain.result().text)
        print("llama-index:", from_llama_index.result().text)

    # Equal model and loading options: this handle is on the same engine, too.
    with load_model() as model:
        stats = model.stats()
    print(f"{stats.finished} answers by one engine, {stats.completion_tokens} tokens in {stats.steps} steps")
    return stats


if __name__ == "__main__":
    main()
