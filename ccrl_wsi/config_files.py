"""Where the settings files lie: beside the code in a checkout, inside the package in a wheel."""

from __future__ import annotations

from pathlib import Path

from ccrl_wsi.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent


def config_dir() -> Path:
    """The folder of settings files that belongs to this installation."""
    packaged = _PACKAGE / "configs"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "configs"


def find_config(name_or_path: str | Path) -> Path:
    """The file meant by a path, or by a name such as ``infer/20x`` or ``configs/infer/20x.yaml``.

    Raises
    ------
    ConfigError
        If there is neither such a file nor such a name; the message lists the names.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    bundled = config_dir() / _as_bundled(path)
    if bundled.is_file():
        return bundled
    raise ConfigError(
        f"No settings file {name_or_path}. Give a path that exists, or one of: "
        f"{', '.join(config_names())}."
    )


def config_names() -> list[str]:
    """Names of the settings files that come with this installation, sorted."""
    folder = config_dir()
    files = sorted(folder.rglob("*.yaml"))
    return [file.relative_to(folder).with_suffix("").as_posix() for file in files]


def _as_bundled(path: Path) -> Path:
    parts = path.parts[1:] if path.parts[:1] == ("configs",) else path.parts
    name = "/".join(parts)
    return Path(name if name.endswith(".yaml") else f"{name}.yaml")
