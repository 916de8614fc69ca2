"""Ablab, the ablation lab: deep-learning ablation studies that can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablab.lab import Lab, load
    from ablab.logging import log

__version__ = "0.1.0"
__all__ = ["Lab", "__version__", "load", "log"]


def __getattr__(name: str) -> Any:
    """Load the Python interface on first use: importing `ablab` itself costs nothing."""
    if name in {"Lab", "load"}:
        from ablab import lab

        return getattr(lab, name)
    if name == "log":
        from ablab.logging import log

        return log
    raise AttributeError(f"module 'ablab' has no attribute {name!r}")
