"""The code that a family's page shows: one example in each framework, with the family's own classes."""

from __future__ import annotations

from dataclasses import dataclass

from local_llms.catalog import Family
from local_llms.templates import places

QUESTION = "Name three primary colours."
INSTRUCTION, INPUT = "Translate to French.", "Good morning"
SYSTEM, HAIKU = "You are brief.", "What is a haiku?"
PREFIX = "Once upon a time"
TOOL = {
    "type": "function",
    "function": {
        "name": "temperature",
        "description": "The temperature in a city, in degrees Celsius.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@dataclass(frozen=True, slots=True)
class Examples:
    """Python code, as it stands on the page."""

    langchain: str
    llama_index: str


def examples(family: Family) -> Examples:
    """What a reader would write with this family."""
    if all(card.kind == "embed" for card in family.models) and family.models:
        return _embedding(family)
    if family.default_template == family.name == "plain":
        return _plain()
    return _chat(family)


def model_name(family: Family) -> str:
    """The model of the catalog to begin with, or else the path of a file.

    That is one whose files can be fetched, with few conditions, in the family's usual format, and small.
    """
    cards = sorted(
        (card for card in family.models if card.sources),
        key=lambda card: (
            not card.default,
            card.commercial_use == "no",
            card.template != family.default_template,
            card.parameters,
            card.name,
        ),
    )
    return cards[0].name if cards else "path/to/model.gguf"


def _chat(family: Family) -> Examples:
    template = family.default_template or ""
    place = places(template)
    llm, chat = family.classes.llm, family.classes.chat
    # A class of the family says itself which format is meant, and so does a model of the catalog.
    named = "" if llm or family.models else f', template="{template}"'
    given = f'model="{model_name(family)}"{named}, max_tokens=64'
    question = f'"{INSTRUCTION}", input_text="{INPUT}"' if place.input else f'"{QUESTION}"'
    human = f'("system", "{SYSTEM}"), ("human", "{HAIKU}")' if place.system else f'("human", "{HAIKU}")'
    imports = ", ".join(sorted([llm or "LocalLLM", chat or "ChatLocal"]))
    langchain = f"""\
from local_llms import {imports}

llm = {llm or "LocalLLM"}({given})
print(llm.invoke({question}))

chat = {chat or "ChatLocal"}({given})
for chunk in chat.stream([{human}]):
    print(chunk.text, end="", flush=True)
"""
    system = f'ChatMessage(role="system", content="{SYSTEM}"), ' if place.system else ""
    llama_index = f"""\
from llama_index.core.llms import ChatMessage

from local_llms.llama_index import {llm or "LocalLLM"}

llm = {llm or "LocalLLM"}({given})
print(llm.complete({question}).text)

messages = [{system}ChatMessage(role="user", content="{HAIKU}")]
for piece in llm.stream_chat(messages):
    print(piece.delta, end="", flush=True)
"""
    return Examples(langchain, llama_index)


def _plain() -> Examples:
    given = 'model="path/to/model.gguf", template="plain", max_tokens=64'
    langchain = f"""\
from local_llms import LocalLLM

llm = LocalLLM({given})
print(llm.invoke("{PREFIX}"))
"""
    llama_index = f"""\
from local_llms.llama_index import LocalLLM

llm = LocalLLM({given})
print(llm.complete("{PREFIX}").text)
"""
    return Examples(langchain, llama_index)


def _embedding(family: Family) -> Examples:
    name = model_name(family)
    langchain = f"""\
from local_llms import LocalEmbeddings

embeddings = LocalEmbeddings(model="{name}")
vectors = embeddings.embed_documents(["A man is eating food.", "A man is eating a piece of bread."])
print(sum(a * b for a, b in zip(*vectors)))  # vectors have length 1: this is their cosine
"""
    llama_index = f"""\
from local_llms.llama_index import LocalEmbedding

embedding = LocalEmbedding(model="{name}")
vector = embedding.get_text_embedding("A man is eating food.")
print(len(vector))
"""
    return Examples(langchain, llama_index)
