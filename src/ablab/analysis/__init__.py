"""What the store means: values by arm and seed, intervals and tests against a margin, verdicts, where time went."""
