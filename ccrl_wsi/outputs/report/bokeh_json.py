"""Bokeh figures as plain JSON, the same for the same figure, and the script that draws them."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def figure_json(figure: Any, target: str) -> Json:
    """What ``Bokeh.embed.embed_item`` draws into the element called ``target``.

    Bokeh numbers its objects through the life of a process; here they are numbered anew, so that
    equal figures give equal text.
    """
    from bokeh.embed import json_item

    item = json_item(figure, target)
    numbers: dict[str, str] = {}
    renamed: Json = _renamed(dict(item), numbers, target)
    renamed["root_id"] = numbers[item["root_id"]]
    renamed["target_id"] = target
    return renamed


def bokeh_script() -> str:
    """BokehJS itself, without what only widgets and tables need: about 1.3 MB."""
    from bokeh.resources import Resources

    return "\n".join(Resources(mode="inline", components=["bokeh"], log_level="error").js_raw)


def _renamed(tree: Any, numbers: dict[str, str], prefix: str) -> Any:
    """A copy of ``tree`` whose objects are numbered in the order in which they come.

    Only objects and references have a key ``id``: what users wrote lies in lists.
    """
    if isinstance(tree, dict):
        return {
            key: numbers.setdefault(value, f"{prefix}-{len(numbers)}")
            if key == "id" and isinstance(value, str)
            else _renamed(value, numbers, prefix)
            for key, value in tree.items()
        }
    if isinstance(tree, list | tuple):
        return [_renamed(value, numbers, prefix) for value in tree]
    return tree
