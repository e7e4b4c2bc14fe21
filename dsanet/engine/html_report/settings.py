"""Every setting of runs, and where its value comes from."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any

import yaml

from dsanet.engine.command_line import RECIPES
from dsanet.engine.config import TrainConfig, as_text, flatten, plain


@dataclass(frozen=True)
class Setting:
    """A setting of several runs.

    Attributes:
        key: with dots.
        values: one for each run, as text.
        sources: of each value: `default`, `recipe`, or `given` on the command line or in a file.
    """

    key: str
    values: tuple[str, ...]
    sources: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether the runs have different values."""
        return len(set(self.values)) > 1

    @property
    def notable(self) -> bool:
        """Whether a run has a value that is not the default."""
        return any(source != "default" for source in self.sources)


def settings_of(configs: list[dict[str, Any]]) -> list[Setting]:
    """All settings of runs, in the order of the first run's file."""
    flat = [dict(flatten(config)) for config in configs]
    defaults = dict(flatten(default_settings()))
    recipes = [dict(flatten(_recipe(config.get("recipe")))) for config in configs]
    return [
        Setting(
            key,
            tuple(as_text(config.get(key)) for config in flat),
            tuple(
                _source(key, config.get(key), recipe, defaults)
                for config, recipe in zip(flat, recipes, strict=True)
            ),
        )
        for key in flat[0]
    ]


def default_settings() -> dict[str, Any]:
    """The default of every setting that has one."""
    defaults = {}
    for item in fields(TrainConfig):
        if item.default is not MISSING:
            defaults[item.name] = item.default
        elif item.default_factory is not MISSING:
            value = item.default_factory()
            defaults[item.name] = plain(value) if is_dataclass(value) else value
    return defaults


def _recipe(name: str | None) -> dict[str, Any]:
    path = RECIPES / f"{name}.yaml"
    if name is None or not path.is_file():
        return {}
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def _source(key: str, value: Any, recipe: dict[str, Any], defaults: dict[str, Any]) -> str:
    if key in recipe and recipe[key] == value:
        return "recipe"
    if key in defaults and key not in recipe and plain(defaults[key]) == value:
        return "default"
    return "given"
