"""What a family file may say. ``local_llms/families/*.toml`` are the examples.

A key that is not declared here is an error, so a misspelt one never goes unnoticed.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationInfo, field_validator, model_validator

from local_llms.hub.source import FileSource, HubSource, PackageSource, Source
from local_llms.options import SamplingOptions

CommercialUse = Literal["yes", "no", "conditional", "unknown"]
ModelKind = Literal["generate", "embed"]
ClassKind = Literal["llm", "chat"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80)]
"""Lower-case letters, digits, dots, dashes and underscores: a model's name becomes a folder in the cache."""


class _Sampling(SamplingOptions):
    """The sampling options that a catalog may set."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


def _sampling_defaults(value: Any) -> Mapping[str, Any]:
    return _Sampling.model_validate(value).model_dump(exclude_none=True)


SamplingDefaults = Annotated[Mapping[str, Any], PlainValidator(_sampling_defaults)]
"""Names of ``SamplingOptions`` → values, checked as a caller's own would be."""


class ToolFormat(BaseModel):
    """How a template's models are told of tools, call them and read results.

    - ``describe``: Jinja text that describes ``tools`` in words, for the system message or the first question; "" where
      the template writes ``tools`` itself.
    - ``call``: a call as the model writes it, with $name and $arguments in it.
    - ``marker``: what ``call`` begins with and by what it is told from other text.
    - ``arguments``: how $arguments are written: "json", an object, or "python", keyword arguments.
    - ``anywhere``: whether text may stand before a call; else a call is all of the answer.
    - ``text``: what the model writes in front of an answer that is no call, where the format asks for it.
    - ``parallel``: whether an answer may hold several calls, and ``between``: what stands between two of them.
    - ``calls``: how the template takes the calls of earlier answers: "text", as the model wrote them; "message", as
      ``message.tool_calls``; "metadata", each as a message whose ``metadata`` is the tool's name.
    - ``results``: whether results are messages of the role "tool" or, as text, of the user.
    - ``provenance``: where the format is taken from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    describe: str = ""
    call: str = '<tool_call>\n{"name": "$name", "arguments": $arguments}\n</tool_call>'
    marker: str = "<tool_call>"
    arguments: Literal["json", "python"] = "json"
    anywhere: bool = True
    text: str = ""
    parallel: bool = True
    between: str = "\n"
    calls: Literal["text", "message", "metadata"] = "text"
    results: Literal["tool", "user"] = "user"
    provenance: str = ""

    @model_validator(mode="after")
    def _is_a_call(self) -> Self:
        before, name, rest = self.call.partition("$name")
        if not name or rest.count("$arguments") != 1 or "$arguments" in before or not before.startswith(self.marker):
            raise ValueError("call needs $name and behind it $arguments, and begins with the marker")
        if self.anywhere and not self.marker:
            raise ValueError("a call that may stand anywhere needs a marker")
        return self


class ThinkingFormat(BaseModel):
    """How a template's models think before they answer.

    - ``opening``, ``closing``: what stands in front of a thought and behind it: a tag each, and white space around it
      that belongs neither to the thought nor to the answer. The prompt may end with the opening, or within its tag;
      else the model writes it, as the very first of its answer.
    - ``by_default``: whether the models think where nobody says.
    - ``on``, ``off``: the template with which they think, and that with which they do not. Where they are left out, it
      is this one: it may read ``enable_thinking``, and a thought that it opens all the same is closed at once.
    - ``provenance``: where the format is taken from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    opening: str = "<think>\n"
    closing: str = "\n</think>\n\n"
    by_default: bool = True
    on: Name | None = None
    off: Name | None = None
    provenance: str = ""

    @model_validator(mode="after")
    def _has_two_tags(self) -> Self:
        if not self.opening_tag or not self.closing_tag or self.opening_tag == self.closing_tag:
            raise ValueError("opening and closing need a tag each, and not the same one")
        return self

    @property
    def opening_tag(self) -> str:
        """``opening`` without the white space around it."""
        return self.opening.strip()

    @property
    def closing_tag(self) -> str:
        """``closing`` without the white space around it."""
        return self.closing.strip()


class Template(BaseModel):
    """How messages become a prompt.

    - ``source``: Jinja text. It sees ``messages`` (``role`` and ``content`` each, and ``reasoning_content`` where the
      assistant thought), ``input``, ``tools``, ``add_generation_prompt``, ``bos_token``, ``eos_token`` and
      ``default_system``, and ``enable_thinking`` where somebody says whether to think.
    - ``bos_token``, ``eos_token``: marker texts; "" where the format has none.
    - ``stop``: strings that end an answer. ``stop_tokens``: marker texts whose tokens end it.
    - ``default_system``: the system message of a conversation that has none.
    - ``apart``: a regular expression. What it matches, from structure to structure, the model's own project tokenizes
      apart from what follows. Content matches as NUL characters only.
    - ``tools``: how these models call tools; None where that is only described to them in words.
    - ``thinking``: how these models think before they answer; None where they do not.
    - ``trims_answer``: whether white space at the beginning of an answer belongs to the format: it is left out.
    - ``provenance``: where the format is taken from, as ``owner/repository:path@commit``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    source: str = Field(min_length=1)
    bos_token: str = ""
    eos_token: str = ""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    stop_tokens: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    default_system: str | None = None
    apart: str = ""
    trims_answer: bool = False
    tools: ToolFormat | None = None
    thinking: ThinkingFormat | None = None
    provenance: str = ""

    @field_validator("apart")
    @classmethod
    def _is_an_expression(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return value


class _Card(BaseModel):
    """What the catalog tells of a model and of an adapter alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    family: str = ""
    template: Name | None = None
    licence: str = "unknown"
    commercial_use: CommercialUse = "unknown"
    licence_source: str = ""
    sources: tuple[Source, ...] = ()
    sampling: SamplingDefaults = Field(default_factory=dict)
    notes: str = ""

    @model_validator(mode="after")
    def _can_be_had(self) -> Self:
        if not self.sources and not self.notes:
            raise ValueError("without sources it needs notes, which say how one comes by its files")
        return self


class ModelCard(_Card):
    """A model that can be loaded by name.

    ``family`` is filled in from the file; ``template`` and ``sampling`` take what they leave open from the family.
    ``parameters`` (weights) and ``context_length`` (tokens) are 0 where they are not known. ``sources`` is empty where
    nobody offers the files; then ``notes`` say how one comes by them. ``default`` marks the model that is taken when
    none is named, one for each ``kind``.
    """

    kind: ModelKind = "generate"
    parameters: int = Field(default=0, ge=0)
    context_length: int = Field(default=0, ge=0)
    default: bool = False

    @property
    def size(self) -> int | None:
        """Bytes of the model file; None where no source tells."""
        return next((source.size for source in self.sources if source.size is not None), None)

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the model file; None where it is not known."""
        return next((source.sha256 for source in self.sources if source.sha256 is not None), None)


class AdapterCard(_Card):
    """An adapter that can be named: a LoRA or P-tuning checkpoint that changes what a model does.

    ``base`` is the name of the model that it was trained over; ``template`` and ``sampling`` are those of the two
    together. The rest is as for a model.
    """

    base: Name


class ClassNames(BaseModel):
    """Names of the family's classes in the adapters: ``llm`` takes a string, ``chat`` takes messages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    llm: str | None = None
    chat: str | None = None

    @field_validator("llm", "chat")
    @classmethod
    def _is_a_class_name(cls, value: str | None) -> str | None:
        if value is not None and (not value.isidentifier() or keyword.iskeyword(value) or value.startswith("_")):
            raise ValueError("must be a public Python name, such as VicunaLLM")
        return value


CardT = TypeVar("CardT", ModelCard, AdapterCard)


class Family(BaseModel):
    """One file of the catalog: templates, sampling defaults, models and adapters that belong together.

    ``default_template`` may name a template of another family.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    title: str
    description: str = ""
    default_template: Name | None = None
    classes: ClassNames = ClassNames()
    sampling: SamplingDefaults = Field(default_factory=dict)
    templates: tuple[Template, ...] = ()
    models: tuple[ModelCard, ...] = ()
    adapters: tuple[AdapterCard, ...] = ()

    @field_validator("models", "adapters")
    @classmethod
    def _belong_to_the_family(cls, cards: tuple[CardT, ...], info: ValidationInfo) -> tuple[CardT, ...]:
        family, template = info.data.get("name"), info.data.get("default_template")
        sampling = info.data.get("sampling", {})
        for card in cards:
            if card.family not in ("", family):
                raise ValueError(f"{card.name} names another family, {card.family}; leave family out")
        return tuple(
            card.model_copy(
                update={
                    "family": family,
                    "template": card.template or (None if getattr(card, "kind", None) == "embed" else template),
                    "sampling": {**sampling, **card.sampling},
                }
            )
            for card in cards
        )

    @model_validator(mode="after")
    def _classes_have_a_template(self) -> Self:
        if self.default_template is None and (self.classes.llm or self.classes.chat):
            raise ValueError("classes need a default_template")
        return self


__all__ = [
    "AdapterCard",
    "ClassKind",
    "ClassNames",
    "CommercialUse",
    "Family",
    "FileSource",
    "HubSource",
    "ModelCard",
    "ModelKind",
    "PackageSource",
    "Source",
    "Template",
    "ThinkingFormat",
    "ToolFormat",
]
