"""Speed and memory bars, each a ratio against a peer in one run; tables in docs/benchmarks.md."""
