"""Where workers start: one file an executor, one protocol (`base`), one conformance suite in the tests."""
