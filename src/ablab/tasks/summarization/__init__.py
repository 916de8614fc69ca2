"""Summarisation of dialogues: encoder-decoders and language models, whole or through adapters, judged by ROUGE."""
