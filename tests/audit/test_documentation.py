"""Every finding an audit can make is explained in docs/audits.md, and nothing else is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = [*(ROOT / "src/ablab/audit").rglob("*.py"), *(ROOT / "src/ablab/tasks").rglob("*.py")]


def ids_in_source() -> set[str]:
    """Return the names given to what makes findings, both branches of a conditional one."""
    found: set[str] = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1):
                continue
            if node.func.id in ("finding", "not_checked", "told_once"):
                found |= {n.value for n in ast.walk(node.args[1]) if isinstance(n, ast.Constant) and n.value}
    return {name for name in found if isinstance(name, str)}


def test_every_finding_is_documented() -> None:
    text = (ROOT / "docs/audits.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if re.match(r"\| [a-z]", line) and "| id |" not in line]
    documented = {name.strip() for row in rows for name in row.split(",")}
    assert len(documented) > 40
    assert ids_in_source() == documented
