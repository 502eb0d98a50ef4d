"""The configuration's JSON Schema, made of the settings themselves, for editors; `check` judges much more."""

import json
from collections.abc import Mapping
from typing import Any, Final, get_origin

from pydantic.fields import FieldInfo

from relay.config.leaves import STRING, Leaf, Shape
from relay.config.loader import NOT_IN_DEFAULTS, sections_in
from relay.config.reference import item_leaf, leaf_of
from relay.config.section import Section
from relay.config.settings import Settings
from relay.config.targets import TargetSettings

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_VARIABLE: Final[Shape] = {"type": "string", "pattern": r"\$\{"}
"""Whatever a setting is, an environment variable may stand for it."""


def configuration_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of a whole file."""
    schema = _section(Settings)
    shared = _section(TargetSettings)
    shared["properties"] = {key: of for key, of in shared["properties"].items() if key not in NOT_IN_DEFAULTS}
    del shared["required"]
    described = "Any setting of a target except name, url and secrets, for all targets; a target's own win."
    schema["properties"]["defaults"] = _or_nothing({"description": described, **shared})
    return {"$schema": DIALECT, "title": "houdini-relay configuration", **schema}


def _section(section: type[Section]) -> dict[str, Any]:
    required = [key for key, field in section.model_fields.items() if field.is_required()]
    return {
        "type": "object",
        "description": (section.__doc__ or "").strip(),
        "properties": {key: _field(field) for key, field in section.model_fields.items()},
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _field(field: FieldInfo) -> dict[str, Any]:
    shape = dict(_shape(field))
    # A section's own words would hide what the setting is for.
    shape["description"] = field.description
    default = _default(field)
    return shape if default is None else {**shape, "default": default}


def _shape(field: FieldInfo) -> Shape:
    leaf, item = leaf_of(field.metadata), item_leaf(field.annotation)
    if leaf is not None:
        return _scalar(leaf)
    for inner in sections_in(field.annotation):
        if get_origin(field.annotation) is tuple:
            return {"type": "array", "items": _section(inner), "minItems": 1}
        return _or_nothing(_section(inner)) if not field.is_required() else _section(inner)
    if item is None:
        raise TypeError(f"no schema for a setting of this kind: {field}")
    if get_origin(field.annotation) is dict:
        return _or_nothing({"type": "object", "additionalProperties": _scalar(item)})
    return {"type": "array", "items": _scalar(item)}


def _scalar(leaf: Leaf) -> Shape:
    choices = leaf.shape.get("anyOf", [leaf.shape])
    return leaf.shape if STRING in choices else {"anyOf": [*choices, _VARIABLE]}


def _or_nothing(shape: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping whose lines are all commented out reads as null."""
    return {**shape, "type": ["object", "null"]}


def _default(field: FieldInfo) -> Any:
    """As one would write it; None where there is nothing to show."""
    if field.is_required():
        return None
    value = field.get_default(call_default_factory=True, validated_data={})
    leaf, item = leaf_of(field.metadata), item_leaf(field.annotation)
    if leaf is not None and value is not None:
        as_it_is = isinstance(value, (bool, int)) or leaf.shape.get("type") == "number"
        return value if as_it_is else leaf.show(value)
    if isinstance(value, tuple) and value and item is not None:
        return [item.show(one) for one in value]
    return None


def render() -> str:
    """The schema as text."""
    return json.dumps(configuration_schema(), indent=2, ensure_ascii=False)
