"""The settings as text that can be saved and given back with ``-c``."""

from __future__ import annotations

import json
from typing import Any

import yaml
from pydantic import BaseModel

from ccrl_wsi.config import Settings


def as_yaml(settings: Settings, *, explain: bool = False) -> str:
    """Every setting with its value; with ``explain`` each has its meaning as a comment."""
    if not explain:
        return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)
    return "\n".join(_explained(settings, "")) + "\n"


def _explained(section: BaseModel, indent: str) -> list[str]:
    lines: list[str] = []
    values: dict[str, Any] = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            lines += [f"{indent}{name}:", *_explained(value, indent + "  ")]
            continue
        meaning = f"  # {field.description}" if field.description else ""
        lines.append(f"{indent}{name}: {json.dumps(values[name])}{meaning}")
    return lines
