"""Scores with their definitions; they take numbers, texts or tensors and know no task."""
