"""The class that a GeoJSON feature has in QuPath.

A class is a text or an object with ``name`` (or ``names``, for a class within a class). QuPath
leaves classes whose name ends with an asterisk out of what it counts and measures
(``PathClassTools.isIgnoredClass``: Ignore*, Artefact*, Background*).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def class_of(feature: Mapping[str, Any]) -> str:
    """The name of a feature's class, of classes within one joined by ``: ``; empty without one."""
    properties = feature.get("properties")
    given = properties.get("classification") if isinstance(properties, Mapping) else None
    if isinstance(given, Mapping):
        several = given.get("names")
        names = several if isinstance(several, list) and several else [given.get("name")]
        given = ": ".join(name for name in names if isinstance(name, str) and name)
    return given.strip() if isinstance(given, str) else ""


def is_ignored(name: str) -> bool:
    """Whether QuPath ignores what has the class ``name``."""
    return name.endswith("*")
