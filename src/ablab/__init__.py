"""Ablab, the ablation lab: deep-learning ablation studies that can be believed."""

__version__ = "0.1.0"
