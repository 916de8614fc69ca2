"""Models by name, their parts and initialisations, and the fast pieces of a training step."""
