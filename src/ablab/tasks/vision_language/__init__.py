"""Vision-language models: an image tower, a connector and a language model, trained in phases."""
