"""Short ways to write JSON Schema; a name with `_` at its end may be null, too."""

from enum import StrEnum
from typing import Any, Final

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """The schema of this name in the OpenAPI document."""
    return {"$ref": f"#/components/schemas/{name}"}


def listed(items: Schema) -> Schema:
    """An array of these."""
    return {"type": "array", "items": items}


def mapped(values: Schema) -> Schema:
    """An object with keys of any name."""
    return {"type": "object", "additionalProperties": values}


def words(*kinds: type[StrEnum] | str) -> Schema:
    """One of these words."""
    found: list[str] = []
    for kind in kinds:
        found += [kind] if isinstance(kind, str) else [word.value for word in kind]
    return {"type": "string", "enum": found}


def maybe(schema: Schema) -> Schema:
    """This, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def thing(description: str, **members: Schema) -> Schema:
    """An object with exactly these members."""
    return {
        "description": description,
        "type": "object",
        "properties": members,
        "required": list(members),
        "additionalProperties": False,
    }


def also(schema: Schema, description: str, **members: Schema) -> Schema:
    """The same object with more members."""
    return thing(description, **(schema["properties"] | members))


def page(items: Schema) -> Schema:
    """A page of a list."""
    return thing("A page, newest first; `next` is the `cursor` of the following one.", items=listed(items), next=TEXT_)


TEXT: Final[Schema] = {"type": "string"}
TEXT_: Final[Schema] = {"type": ["string", "null"]}
NUMBER: Final[Schema] = {"type": "integer"}
NUMBER_: Final[Schema] = {"type": ["integer", "null"]}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
FIGURE: Final[Schema] = {"type": "number"}
FIGURE_: Final[Schema] = {"type": ["number", "null"]}
YES: Final[Schema] = {"type": "boolean"}
MOMENT: Final[Schema] = {"type": "string", "format": "date-time"}
MOMENT_: Final[Schema] = {"type": ["string", "null"], "format": "date-time"}
ANYTHING: Final[Schema] = {}
