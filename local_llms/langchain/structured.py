"""Answers as objects: what ``with_structured_output`` puts around a chat model."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Literal

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import BaseOutputParser, JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.base import BaseGenerationOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableLambda, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

from local_llms.constraints import json_schema_of
from local_llms.errors import ConstraintError, OptionError

Method = Literal["json_schema", "function_calling", "json_mode"]


def structured(
    model: BaseChatModel, schema: Any, *, method: Method, include_raw: bool, options: Mapping[str, Any]
) -> Runnable[LanguageModelInput, Any]:
    """A runnable that answers with an object of a schema. Raises OptionError or ConstraintError."""
    parser: BaseOutputParser[Any] | BaseGenerationOutputParser[Any]
    asked: Mapping[str, Any]
    if method == "function_calling":
        tool = convert_to_openai_tool(_needed(schema, method))
        name = tool["function"]["name"]
        # The generator of the json_schema method says more exactly what fits a model.
        if _is_model(schema):
            tool["function"]["parameters"] = json_schema_of(schema)
        parser = (
            PydanticToolsParser(tools=[schema], first_tool_only=True)
            if _is_model(schema)
            else JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
        )
        asked = {"tools": [tool], "tool_choice": name, "parallel_tool_calls": False}
    elif method in ("json_schema", "json_mode"):
        if method == "json_schema":
            asked = {"schema": _json_schema(_needed(schema, method)), "schema_in_prompt": True}
        else:
            asked = {"schema": {"type": "object"} if schema is None else _json_schema(schema)}
        parser = PydanticOutputParser(pydantic_object=schema) if is_basemodel_subclass(schema) else JsonOutputParser()
    else:
        raise OptionError(f"method={method!r}: there are json_schema, function_calling and json_mode.")
    # For traces, which LangChain writes.
    told = {"ls_structured_output_format": {"kwargs": {"method": method}, "schema": schema}} if schema else {}
    llm = model.bind(**asked, **options, keep_cut=include_raw, **told)
    if not include_raw:
        return llm | parser
    parsed = RunnableLambda(_whole) | RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    nothing = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=llm) | parsed.with_fallbacks([nothing], exception_key="parsing_error")


def _whole(answer: dict[str, AIMessage]) -> dict[str, AIMessage]:
    """Looked at before it is parsed, since LangChain's parsers make something of a part too."""
    if answer["raw"].response_metadata.get("cut"):
        raise OutputParserException("The answer was cut before it was complete. Give a larger max_tokens.")
    return answer


def _needed(schema: Any, method: str) -> Any:
    if schema is None:
        raise OptionError(f"method={method!r} needs a schema; only json_mode does without.")
    return schema


def _is_model(schema: Any) -> bool:
    return isinstance(schema, type) and is_basemodel_subclass(schema)


def _json_schema(schema: Any) -> dict[str, Any]:
    """A JSON Schema of whatever LangChain takes as one: models of pydantic 1 and 2, TypedDicts, dictionaries."""
    if _is_model(schema) and hasattr(schema, "model_json_schema"):
        return json_schema_of(schema)
    if isinstance(schema, Mapping) and "parameters" not in schema:
        return json_schema_of(schema)
    try:
        return convert_to_json_schema(schema)
    except ValueError as error:
        raise ConstraintError(f"There is no JSON Schema for {schema!r}: {error}") from error
