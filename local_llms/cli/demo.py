"""``local-llms demo``: a real model answers through LangChain, then about documents through llama-index."""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from local_llms.cli.console import Given, out, pairs, visible, write_stream
from local_llms.cli.documents import TextFile, read_folder, write_manual
from local_llms.cli.figures import Figures, figures_line

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

DEFAULTS: dict[str, Any] = {"temperature": 0.0, "max_tokens": 128}
PROMPT = "Why do we have seasons? Answer in two sentences."
MANUAL_QUESTION = "What does the pass statement do?"
FOLDER_QUESTION = "What are these documents about?"
CHUNK_TOKENS = 200
"""Tokens of one passage: the small embedding model reads 256 at most."""
PASSAGES = 3
_SENTENCE = re.compile(r".+?(?:[.!?:](?=\s)|\n\s*\n|\Z)\s*", re.DOTALL)
QUESTION_TEMPLATE = (
    "Here are passages from some documents.\n---\n{context_str}\n---\n"
    "Answer the question from these passages alone, in one or two sentences.\nQuestion: {query_str}"
)


def demo(
    loading: Given,
    call: Given,
    folder: Annotated[
        Path | None,
        typer.Argument(
            exists=True, file_okay=False, help="A folder of text files; without one a part of Python's manual is used."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="A name of the catalog, or a file.")] = None,
    embedding: Annotated[str | None, typer.Option(help="The embedding model; None: the small default one.")] = None,
    prompt: Annotated[str, typer.Option(help="What the LangChain chain is asked.")] = PROMPT,
    question: Annotated[str | None, typer.Option("--question", "-q", help="What to ask about the documents.")] = None,
) -> None:
    """Show what this package is for: a chain's answer, and an answer about documents with its sources.

    The first run fetches two small models, about 180 MB together.
    """
    options = {**loading, **DEFAULTS, **call}
    # First, so that a folder without texts is told before anything is fetched.
    files = _manual() if folder is None else read_folder(folder)
    answer_with_langchain(model, options, prompt)
    answer_about(files, question or (MANUAL_QUESTION if folder is None else FOLDER_QUESTION), model, embedding, options)


def _manual() -> list[TextFile]:
    with tempfile.TemporaryDirectory(prefix="local-llms-") as temporary:
        write_manual(Path(temporary))
        return read_folder(Path(temporary))


def answer_with_langchain(model: str | None, options: dict[str, Any], prompt: str) -> None:
    """Stream the answer of ``prompt | ChatLocal | StrOutputParser``."""
    from local_llms.langchain import ChatLocal

    figures = Figures()
    with ChatLocal(model=model, token_callbacks=[figures], **options) as chat:
        from langchain_core.output_parsers import StrOutputParser
        from langchain_core.prompts import ChatPromptTemplate

        info = chat.loaded().info
        out().rule(f"A LangChain chain with {visible(info.name)}")
        out().print(f"Question: {visible(prompt)}", markup=False)
        chain = ChatPromptTemplate.from_messages([("human", "{question}")]) | chat | StrOutputParser()
        write_stream(chain.stream({"question": prompt}))
        out().print(figures_line(figures.take()), style="dim")


def answer_about(
    files: list[TextFile], question: str, model: str | None, embedding: str | None, options: dict[str, Any]
) -> None:
    """Index the files with llama-index, stream the answer to a question, and show its sources."""
    out().print()
    out().rule("Questions about documents, with llama-index")
    from local_llms.llama_index import LocalEmbedding, LocalLLM

    figures = Figures()
    with LocalLLM(model=model, token_callbacks=[figures], **options) as llm, LocalEmbedding(model=embedding) as embed:
        from llama_index.core import Document, PromptTemplate, Settings, VectorStoreIndex
        from llama_index.core.base.response.schema import StreamingResponse
        from llama_index.core.node_parser import SentenceSplitter

        # Otherwise llama-index counts tokens with a vocabulary of another model, and may want to download it.
        Settings.tokenizer = llm.tokenize
        splitter = SentenceSplitter(
            chunk_size=CHUNK_TOKENS,
            chunk_overlap=20,
            tokenizer=embed.loaded().tokenize,
            chunking_tokenizer_fn=_SENTENCE.findall,
        )
        start = time.perf_counter()
        documents = [Document(text=file.text, metadata={"file_name": file.name}) for file in files]
        chunks = splitter.get_nodes_from_documents(documents)
        index = VectorStoreIndex(chunks, embed_model=embed)
        seconds = time.perf_counter() - start
        out().print(f"Indexed {len(documents)} documents as {len(chunks)} chunks in {seconds:.1f} s.")
        out().print(f"Question: {visible(question)}", markup=False)
        engine = index.as_query_engine(
            llm=llm,
            similarity_top_k=PASSAGES,
            streaming=True,
            text_qa_template=PromptTemplate(QUESTION_TEMPLATE),
        )
        response = engine.query(question)
        write_stream(response.response_gen if isinstance(response, StreamingResponse) else [str(response)])
        _show_sources(response.source_nodes)
        out().print(figures_line(figures.take()), style="dim")


def _show_sources(sources: list[NodeWithScore]) -> None:
    out().print("Sources:")
    rows = []
    for source in sources:
        beginning = " ".join(source.node.get_content().split())[:80]
        rows.append((f"{source.score or 0.0:.3f}", f"{source.node.metadata['file_name']}: {beginning}…"))
    out().print(pairs(rows))
