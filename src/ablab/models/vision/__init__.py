"""Vision towers of transformers, read at any layer."""
