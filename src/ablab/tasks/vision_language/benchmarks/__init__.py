"""Published benchmarks: their official files, prompts and scores. One file a family; `catalogue.py` lists the names."""
