"""Which group does a small picture belong to? A task in a package of its own."""
