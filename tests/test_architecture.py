"""Imports go down the layers of docs/architecture.md, and never in a circle."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# From the top down. A module belongs to the layer with the longest matching name; it may import
# modules of its own layer and of those below.
LAYERS = (
    ("train", "eval", "tools", "slurm"),
    ("dsanet.engine.main", "dsanet.engine.model_card"),
    ("dsanet.engine.html_report",),
    ("dsanet.engine.trainer", "dsanet.engine.preflight", "dsanet.engine.tuning"),
    ("dsanet.engine.resume", "dsanet.engine.loader_check", "dsanet.engine.step"),
    ("dsanet.engine.setup",),
    ("dsanet.engine.reader_state", "dsanet.engine.nonfinite"),
    ("dsanet.engine.evaluation",),
    (
        "dsanet.engine.run_folder",
        "dsanet.engine.run_state",
        "dsanet.engine.folder_lock",
        "dsanet.engine.lock_owner",
    ),
    ("dsanet.engine.checkpoint_schema",),
    ("dsanet.engine.environment",),
    ("dsanet.engine.report",),
    ("dsanet.engine.execution", "dsanet.engine.batching"),
    ("dsanet.engine.command_line", "dsanet.engine.config", "dsanet.engine.cli_errors"),
    ("dsanet.engine.launch",),
    ("dsanet.engine.optim", "dsanet.engine.loss", "dsanet.engine.checkpoint"),
    ("dsanet.engine.settings_file", "dsanet.engine.set_aside"),
    ("dsanet.engine.errors", "dsanet.engine"),
    ("dsanet",),
    ("pipelines", "pipelines.train_loader", "pipelines.eval_loader"),
    ("pipelines.loader",),
    ("pipelines.resources", "pipelines.side_stream"),
    ("pipelines.dali_reader", "pipelines.frames_source"),
    ("pipelines.feeder", "pipelines.broken_videos"),
    ("pipelines.batch_source", "pipelines.quarantine"),
    ("pipelines.decode",),
    ("pipelines.read",),
    ("pipelines.config",),
    ("pipelines.plan",),
    (
        "pipelines.batch",
        "pipelines.rank",
        "pipelines.watchdog",
        "pipelines.hang_limits",
        "pipelines.errors",
        "pipelines.ranges",
    ),
    ("shards",),
    ("shards.annotations",),
    ("shards.build",),
    ("shards.encode",),
    ("shards.format",),
    ("shards.errors",),
    ("dsanet.errors", "dsanet.limits", "dsanet.terminal", "dsanet.variables"),
)
# What a package must never import, however deep the layers would allow it.
FORBIDDEN = {
    "shards": ("torch", "pipelines", "nvidia"),
    "pipelines": ("dsanet.engine", "dsanet.zoo"),
    "dsanet": ("shards", "pipelines", "nvidia", "av"),
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def source_files() -> list[Path]:
    packages = [p for name in ("dsanet", "pipelines", "shards", "tools", "slurm")
                for p in (ROOT / name).rglob("*.py")]  # fmt: skip
    return [ROOT / "train.py", ROOT / "eval.py", *packages]


@cache
def imports(path: Path) -> frozenset[str]:
    """Names that a file imports when it is run or type-checked, with those inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = ROOT.joinpath(*node.module.split("."), alias.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
                found.add(f"{node.module}.{alias.name}" if is_module else node.module)
    return frozenset(found)


def layer(module: str) -> int:
    """Number of the module's layer from the top; -1 for what is not the project's."""
    best, length = -1, 0
    for number, names in enumerate(LAYERS):
        for name in names:
            if (module == name or module.startswith(f"{name}.")) and len(name) > length:
                best, length = number, len(name)
    return best


def test_every_module_has_a_layer():
    assert [p for p in source_files() if layer(module_name(p)) < 0] == []


def test_imports_never_go_up():
    upward = [
        f"{module_name(path)} imports {name}"
        for path in source_files()
        if not (path.name == "__init__.py" and path.parent.parent == ROOT)  # the public names
        for name in imports(path)
        if -1 < layer(name) < layer(module_name(path))
    ]
    assert upward == []


def test_packages_stay_within_their_subject():
    for package, names in FORBIDDEN.items():
        for path in source_files():
            module = module_name(path)
            if module.split(".")[0] != package or module.startswith("dsanet.engine"):
                continue
            for name in imports(path):
                assert not any(name == other or name.startswith(f"{other}.") for other in names), (
                    f"{module} imports {name}"
                )


def test_no_module_imports_itself_through_others():
    names = {module_name(p): p for p in source_files()}
    edges = {m: {n for n in imports(p) if n in names and n != m} for m, p in names.items()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for other in sorted(edges[module]):
                visit(other, (*path, module))
            done.add(module)

    for module in names:
        visit(module, ())
