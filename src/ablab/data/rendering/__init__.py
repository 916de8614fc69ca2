"""Pictures of text whose truth is known: lines, documents, tables and charts in Korean and English, for training OCR.

One file a kind. A sample depends on the seed, its kind and its number alone, so that any part of a set can be made
again, by any number of processes. `sets.py` writes a set in LLaVA's format.
"""
