"""Reads YAML files of settings, which may come with a run folder from somebody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dsanet.engine.errors import UsageError
from shards.format.files import read_regular

MAX_BYTES = 1 << 20
MAX_VALUES = 10_000  # a short file of aliases of aliases stands for billions
MAX_DEPTH = 20  # lists and mappings inside each other


def read_settings_file(path: Path) -> dict[str, Any]:
    """Content of a YAML file of settings; nothing of a missing one, which the parser reports.

    Raises:
        UsageError: for a file that is not YAML with keys, or is larger than settings can be.
    """
    if not path.exists():
        return {}
    try:
        loader = yaml.SafeLoader(read_regular(path, MAX_BYTES).decode("utf-8"))
        node = loader.get_single_node()
        if fault := _find_expansion(node):  # before a value is made of it
            raise UsageError(f"{path}: not valid settings: {fault}")
        content = None if node is None else loader.construct_document(node)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not valid YAML: the file is not UTF-8 text") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not valid YAML: {_first_problem(error)}") from error
    except RecursionError:
        raise UsageError(f"{path}: not valid settings: nested too deeply") from None
    except ValueError as error:  # a date such as 2020-99-99, a number of thousands of digits
        raise UsageError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: holds no settings; write lines such as `seed: 1`")
    if fault := _find_fault(content):
        raise UsageError(f"{path}: not valid settings: {fault}")
    return content


def _first_problem(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    position = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{problem or error}{position}"


def _find_expansion(root: yaml.Node | None) -> str | None:
    """Too many values with every alias replaced by its content, as merge keys (`<<`) do it."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node | None) -> int:
        if not isinstance(node, yaml.CollectionNode):
            return 1
        if id(node) not in sizes:
            sizes[id(node)] = MAX_VALUES + 1  # of an alias inside its own content
            children = [n for item in node.value for n in (item if type(item) is tuple else [item])]
            sizes[id(node)] = 1 + sum(map(size, children))
        return min(sizes[id(node)], MAX_VALUES + 1)

    return f"more than {MAX_VALUES} values" if size(root) > MAX_VALUES else None


def _find_fault(content: dict[Any, Any]) -> str | None:
    """What no settings have: too many values, deep nesting, keys or text that are not Unicode."""
    values, level = 0, [content]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for part in level:
            keys = list(part) if isinstance(part, dict) else []
            if odd := [key for key in keys if not isinstance(key, str)]:
                return f"the key {odd[0]!r} is not text"
            items = [*keys, *(part.values() if isinstance(part, dict) else part)]
            values += len(items)
            if values > MAX_VALUES:
                return f"more than {MAX_VALUES} values"
            if any(isinstance(item, str) and not _is_unicode(item) for item in items):
                return "text that is not Unicode"
            inner += [item for item in items if isinstance(item, (dict, list))]
        if not (level := inner):
            return None
    return "nested too deeply"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
