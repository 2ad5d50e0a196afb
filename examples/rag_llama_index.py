"""Questions about documents with llama-index. The documents are Python's own manual, which every CPython carries."""

from __future__ import annotations

from pydoc_data.topics import topics

from llama_index.core import Document, PromptTemplate, Settings, VectorStoreIndex
from llama_index.core.node_parser import SentenceSplitter

from local_llms.llama_index import LocalEmbedding, LocalLLM

NAMES = ["assert", "break", "continue", "del", "global", "lambda", "nonlocal", "pass", "return", "while"]
TEMPLATE = PromptTemplate(
    "Here are passages from a manual.\n---\n{context_str}\n---\n"
    "Answer the question from these passages alone, in one sentence.\nQuestion: {query_str}"
)


def main() -> tuple[str, list[str]]:
    llm = LocalLLM(temperature=0, max_tokens=64)
    embedding = LocalEmbedding()
    # llama-index counts tokens to fit passages into a prompt: let it count those of the model.
    Settings.tokenizer = llm.tokenize

    documents = [Document(text=topics[name], metadata={"file_name": f"{name}.txt"}) for name in NAMES]
    # The embedding model reads 256 tokens of a passage at most.
    splitter = SentenceSplitter(chunk_size=200, chunk_overlap=20, tokenizer=embedding.loaded().tokenize)
    index = VectorStoreIndex.from_documents(documents, embed_model=embedding, transformations=[splitter])

    engine = index.as_query_engine(llm=llm, similarity_top_k=2, text_qa_template=TEMPLATE)
    response = engine.query("What does the pass statement do?")
    print(response)
    sources = [source.node.metadata["file_name"] for source in response.source_nodes]
    for source, name in zip(response.source_nodes, sources, strict=True):
        print(f"  {source.score:.3f} {name}")
    return str(response), sources


if __name__ == "__main__":
    main()
