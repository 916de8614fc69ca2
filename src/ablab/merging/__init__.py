"""Several models become one: methods on tensors, streamed over safetensors files in bounded memory."""
