"""200 schemas of many kinds, made from a seed."""

from __future__ import annotations

import random
from typing import Any

WORDS = ["name", "age", "city", "tags", "kind", "note", "id", "größe", "价格", "a b", 'q"uote', "x/y"]
PATTERNS = [
    r"^[A-Z]{2}\d{3}$",
    r"^\w+$",
    r"ab+c",
    r"^(red|green)-\d$",
    r"^[^\d\s]{2,6}$",
    r"^\D\W\S$",
    r"^.{3}$",
    r"/[a-f]",
]
FORMATS = ["date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"]


class Schemas:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.definitions: dict[str, Any] = {}

    def make(self) -> dict[str, Any]:
        schema = self.value(0)
        return {**schema, "$defs": self.definitions} if self.definitions else schema

    def value(self, depth: int) -> dict[str, Any]:
        simple = [self.text, self.integer, self.number, self.listed, self.constant, self.truth, self.many_types]
        nested = [self.object, self.object, self.array, self.union, self.optional, self.pair, self.mapping, self.tree]
        kinds = simple if depth > 2 else [*simple, *nested, *nested] if depth else [*nested, *nested, *simple]
        return self.chance.choice(kinds)(depth + 1)

    def text(self, depth: int) -> dict[str, Any]:
        roll = self.chance.random()
        if roll < 0.35:
            return {"type": "string", "pattern": self.chance.choice(PATTERNS), "maxLength": 40}
        if roll < 0.6:
            return {"type": "string", "format": self.chance.choice(FORMATS)}
        least = self.chance.randint(0, 4)
        return {"type": "string", "minLength": least, "maxLength": least + self.chance.randint(0, 12)}

    def integer(self, depth: int) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "integer"}
        low = self.chance.randint(-1000, 1000)
        if self.chance.random() < 0.5:
            schema[self.chance.choice(["minimum", "exclusiveMinimum"])] = low
        if self.chance.random() < 0.5:
            schema[self.chance.choice(["maximum", "exclusiveMaximum"])] = low + self.chance.randint(7, 2000)
        if self.chance.random() < 0.3:
            schema["multipleOf"] = self.chance.choice([2, 3, 5])
        return schema

    def number(self, depth: int) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "number"}
        low = round(self.chance.uniform(-5, 5), 2)
        if self.chance.random() < 0.6:
            schema[self.chance.choice(["minimum", "exclusiveMinimum"])] = low
        if self.chance.random() < 0.6:
            schema[self.chance.choice(["maximum", "exclusiveMaximum"])] = low + round(self.chance.uniform(0.5, 9), 2)
        return schema

    def listed(self, depth: int) -> dict[str, Any]:
        values = ["red", "green", 'say "hi"', "日本", "a\nb", 1, 2.5, None, True, {"a": [1, "x"]}, []]
        return {"enum": self.chance.sample(values, self.chance.randint(1, 5))}

    def constant(self, depth: int) -> dict[str, Any]:
        return {"const": self.chance.choice(["fixed", 7, None, {"deep": {"er": [1, 2]}}])}

    def truth(self, depth: int) -> dict[str, Any]:
        return {"type": self.chance.choice(["boolean", "null"])}

    def many_types(self, depth: int) -> dict[str, Any]:
        kinds = self.chance.sample(["string", "integer", "boolean", "null", "number"], 2)
        return {"type": kinds, "maxLength": 9, "minimum": -5, "maximum": 50}

    def object(self, depth: int) -> dict[str, Any]:
        names = self.chance.sample(WORDS, self.chance.randint(1, 5))
        schema: dict[str, Any] = {
            "type": "object",
            "title": "Thing",
            "properties": {name: self.value(depth) for name in names},
            "required": [name for name in names if self.chance.random() < 0.6],
        }
        if self.chance.random() < 0.5:
            schema["additionalProperties"] = False
        elif self.chance.random() < 0.2:
            schema["additionalProperties"] = {"type": "integer", "minimum": 0, "maximum": 9}
        return schema

    def array(self, depth: int) -> dict[str, Any]:
        least = self.chance.randint(0, 2)
        return {
            "type": "array",
            "items": self.value(depth),
            "minItems": least,
            "maxItems": least + self.chance.randint(0, 3),
        }

    def union(self, depth: int) -> dict[str, Any]:
        return {"anyOf": [self.value(depth) for _ in range(self.chance.randint(2, 3))]}

    def optional(self, depth: int) -> dict[str, Any]:
        return {"anyOf": [self.value(depth), {"type": "null"}], "default": None}

    def pair(self, depth: int) -> dict[str, Any]:
        parts = [self.value(depth), self.value(depth)]
        return {"type": "array", "prefixItems": parts, "minItems": 2, "maxItems": 2}

    def mapping(self, depth: int) -> dict[str, Any]:
        key = self.chance.choice(["^[a-z]{1,3}$", "^k\\d$"])
        values = self.value(depth)
        if self.chance.random() < 0.5:
            return {"type": "object", "propertyNames": {"pattern": key}, "additionalProperties": values}
        return {"type": "object", "patternProperties": {key: values}, "additionalProperties": False}

    def tree(self, depth: int) -> dict[str, Any]:
        name = f"tree{len(self.definitions)}"
        self.definitions[name] = {}
        rest = {"$ref": f"#/$defs/{name}"}
        self.definitions[name] = {
            "type": "object",
            "properties": {
                "value": {"type": "integer", "minimum": 0, "maximum": 9},
                "next": self.chance.choice(
                    [{"anyOf": [rest, {"type": "null"}]}, {"type": "array", "items": rest, "maxItems": 1}]
                ),
            },
            "required": ["value", *self.chance.choice([["next"], []])],
            "additionalProperties": False,
        }
        return rest


def schemas(count: int) -> list[dict[str, Any]]:
    return [Schemas(seed).make() for seed in range(count)]
