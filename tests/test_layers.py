"""Imports run downward only, and the control plane stays instant."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "ablab"

#: Rooms each room may import, besides itself and `contract`, which everything may import.
MAY_IMPORT = {
    "contract": set(),
    "store": set(),
    "study": set(),
    "plan": {"study", "store"},
    "audit": {"plan", "study", "store"},
    "launch": {"plan", "study", "store"},
    "analysis": {"plan", "study", "store"},
    "report": {"analysis", "audit", "plan", "study", "store"},
    "lab": {"report", "analysis", "audit", "launch", "plan", "study", "store"},
    "cli": {"lab", "report", "analysis", "audit", "launch", "plan", "study", "store"},
    "bundled": set(),
    "data": {"bundled", "store"},
    "models": {"store"},
    "generation": {"models", "store"},
    "metrics": {"store"},
    "merging": {"models", "data", "generation", "metrics", "store"},
    "training": {"models", "data", "generation", "metrics", "store"},
    "tasks": {"training", "merging", "models", "data", "generation", "metrics", "bundled", "store"},
    "logging": set(),
    "worker": {"logging", "tasks", "training", "merging", "models", "data", "generation", "metrics", "store"},
    "testing": {"worker", "tasks", "training", "models", "data", "generation", "metrics", "store"},
}
#: Audits of a task belong to the control plane and read what the audit engine hands them.
AUDIT_FILES_MAY = {"audit", "plan", "study", "store"}
CONTROL_PLANE = {"contract", "store", "study", "plan", "audit", "launch", "analysis", "report", "lab", "cli"}
#: What a control-plane file may see of the compute plane.
TORCH_FREE_FILES = {"config", "audits"}
HEAVY = {
    "torch", "transformers", "peft", "accelerate", "datasets", "scipy", "matplotlib", "tokenizers", "safetensors",
    "pyarrow", "wandb", "mlflow", "trackio", "tensorboard", "ray", "submitit", "pynvml", "huggingface_hub",
}  # fmt: skip


def room_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).parts
    return parts[0].removesuffix(".py")


def imported(path: Path, *, module_level: bool) -> list[tuple[int, str]]:
    """Return (line, dotted module) of the imports of a file; with module_level, only those run on import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: list[tuple[int, str]] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.extend((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.lineno, node.module))
            found.extend((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        for child in ast.iter_child_nodes(node):
            if module_level and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            visit(child)

    visit(tree)
    return found


def allowed(path: Path, target: str) -> bool:
    parts = target.split(".")
    if len(parts) == 1:
        return True
    room, other = room_of(path), parts[1]
    if room == "__init__" or other in {room, "contract", "__version__"}:
        return not (room == "tasks" and other == "tasks" and crosses_tasks(path, parts))
    if room in CONTROL_PLANE and other == "tasks":
        return len(parts) > 3 and parts[3] in TORCH_FREE_FILES
    may = MAY_IMPORT[room] | (AUDIT_FILES_MAY if room == "tasks" and path.stem == "audits" else set())
    return other in may


def crosses_tasks(path: Path, parts: list[str]) -> bool:
    """Whether a file of one task imports another task."""
    mine = path.relative_to(SOURCE).parts
    return len(mine) > 2 and len(parts) > 2 and parts[2] != mine[1]


FILES = sorted(SOURCE.rglob("*.py"))


def test_imports_run_downward_only() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)}:{line} imports {target}"
        for path in FILES
        for line, target in imported(path, module_level=False)
        if target.split(".")[0] == "ablab" and not allowed(path, target)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_control_plane_imports_nothing_heavy() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)}:{line} imports {target}"
        for path in FILES
        if room_of(path) in CONTROL_PLANE or (room_of(path) == "tasks" and path.stem in TORCH_FREE_FILES)
        for line, target in imported(path, module_level=True)
        if target.split(".")[0] in HEAVY
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", ["ablab.cli.main", "ablab.lab", "ablab.tasks.language_modeling.config"])
def test_importing_the_control_plane_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {sorted(HEAVY)!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_rule_itself_can_fail(tmp_path: Path) -> None:
    assert not allowed(SOURCE / "store" / "files.py", "ablab.study.schema")
    assert not allowed(SOURCE / "plan" / "keys.py", "ablab.tasks.language_modeling.task")
    assert not allowed(SOURCE / "tasks" / "retrieval" / "task.py", "ablab.tasks.language_modeling.config")
    assert allowed(SOURCE / "study" / "loading.py", "ablab.tasks.language_modeling.config")
    probe = tmp_path / "probe.py"
    probe.write_text("import torch\ndef f():\n    import scipy\n")
    assert [name for _, name in imported(probe, module_level=True)] == ["torch"]
    assert [name for _, name in imported(probe, module_level=False)] == ["torch", "scipy"]
