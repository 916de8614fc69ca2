"""One folder a task: what it declares (config, audits: torch-free) and what computes it."""
