"""Text to training batches: readers, splits, tokenizers, memory-mapped shards, windows.

What a study may ask for is declared by the tasks; this room takes plain arguments and knows no study.
"""
