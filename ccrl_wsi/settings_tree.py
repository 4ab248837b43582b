"""Trees of settings: merged from files and overrides, checked, compared."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from ccrl_wsi.errors import ConfigError
from ccrl_wsi.section import Section

Tree = TypeVar("Tree", bound=Section)


def load_tree(
    kind: type[Tree],
    files: Iterable[Path] = (),
    overrides: Sequence[str] = (),
    base: Mapping[str, Any] | None = None,
) -> Tree:
    """Merge defaults, YAML ``files`` (later ones win) and ``overrides`` such as ``tiles.mpp=0.5``.

    ``base`` is a tree that stands between the defaults and the files.

    Raises
    ------
    ConfigError
        If a file is missing or not a mapping, a key is unknown or a value does not fit.
    """
    tree: dict[str, Any] = copy.deepcopy(dict(base or {}))
    for file in files:
        _merge(tree, _read_yaml(file))
    for override in overrides:
        _merge(tree, _parse_override(override))
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Sentences such as ``tiles.mpp: 0.25 -> 0.5`` for every leaf in which two trees differ."""
    found: list[str] = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a} -> {b}")
    return found


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the settings file {file}: {error.strerror}.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from None
    if not isinstance(tree, dict | None):
        raise ConfigError(f"{file} must hold sections such as 'tiles:', not {type(tree).__name__}.")
    return tree or {}


def _parse_override(override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: write it as key=value, for example tiles.mpp=0.5.")
    try:
        tree: Any = yaml.safe_load(text) if text else None
    except yaml.YAMLError:
        tree = text
    for name in reversed(key.strip().split(".")):
        tree = {name: tree}
    return dict(tree)


def _merge(tree: dict[str, Any], update: Mapping[str, Any]) -> None:
    for key, value in update.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"]) or "settings"
        if problem["type"] == "extra_forbidden":
            lines.append(f"{place}: no such setting. `ccrl-wsi config` lists them all.")
        elif problem["type"] == "value_error":
            lines.append(f"{problem['msg'].removeprefix('Value error, ')}.")
        elif problem["type"] == "model_type":
            lines.append(f"{place}: is a section; name one of its settings, as in tiles.mpp=0.5.")
        else:
            lines.append(f"{place}: {problem['msg']} (got {problem.get('input')!r}).")
    return "\n".join(lines)
