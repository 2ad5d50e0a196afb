"""Questions about documents with LangChain: an in-memory vector store, local embeddings and a local chat model."""

from __future__ import annotations

from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore

from local_llms import ChatLocal, LocalEmbeddings

DOCUMENTS = {
    "boat.txt": "The boat to Elmsea island leaves at nine in the morning and returns at five.",
    "museum.txt": "The museum of Elmsea shows old maps. It is closed on Mondays.",
    "lighthouse.txt": "The lighthouse of Elmsea is painted green and has two hundred steps.",
    "market.txt": "On Saturdays there is a market on the square with fish, bread and flowers.",
}
QUESTION = "Which colour is the lighthouse?"


def main() -> tuple[str, list[str]]:
    store = InMemoryVectorStore(LocalEmbeddings())
    store.add_documents([Document(text, metadata={"source": name}) for name, text in DOCUMENTS.items()])

    found = store.similarity_search_with_score(QUESTION, k=2)
    context = "\n".join(document.page_content for document, _ in found)

    prompt = ChatPromptTemplate.from_template("{context}\n\nAnswer in one sentence from the text above: {question}")
    chain = prompt | ChatLocal(temperature=0, max_tokens=32) | StrOutputParser()
    answer = chain.invoke({"context": context, "question": QUESTION})

    print(answer)
    for document, score in found:
        print(f"  {score:.3f} {document.metadata['source']}")
    return answer, [document.metadata["source"] for document, _ in found]


if __name__ == "__main__":
    main()
