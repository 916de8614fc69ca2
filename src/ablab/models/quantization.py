"""Matrices in 4 bits (NF4, double quantisation; QLoRA, arXiv 2305.14314) through bitsandbytes, on GPU and CPU.

Every linear layer inside the blocks of a transformer is quantised; embeddings, norms and the head stay as they are, and
so do layers that the architecture asks to keep wide: T5 casts what goes into its `wo` to the type of that matrix, which
in 4 bits is a type of bytes.
The model is then prepared for training in k bits as peft asks: all frozen, what is left of it in fp32.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from ablab.contract.failure import ConfigError
from ablab.models.layers import layer_lists


def quantize(model: nn.Module) -> nn.Module:
    """Hold the matrices of a model's layers in 4 bits, in place, prepared for training of adapters; return the model.

    Raises:
        ConfigError: bitsandbytes is not installed, or the model has no layers with linear matrices.
    """
    bitsandbytes = _library()
    wide = _kept_wide(model)
    names = [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear and _in_layers(model, name) and wide.isdisjoint(name.split("."))
    ]
    if not names:
        raise ConfigError(f"{type(model).__name__} has no linear matrices in layers to hold in 4 bits")
    for name in names:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, _quantized(bitsandbytes, model.get_submodule(name)))
    # peft asks the model for this mark.
    model.is_loaded_in_4bit = True  # type: ignore[assignment]
    from peft import prepare_model_for_kbit_training

    # Checkpointing of activations is the training loop's to turn on.
    prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return model


def is_quantized(module: nn.Module) -> bool:
    """Whether a linear layer holds its matrix in 4 bits."""
    return isinstance(module, nn.Linear) and type(module).__name__ == "Linear4bit"


@torch.no_grad()
def dequantized(module: nn.Module) -> Tensor:
    """Return the matrix (out, in) that a 4-bit layer computes with, in fp32."""
    weight: Any = module.weight
    matrix: Tensor = _library().functional.dequantize_4bit(weight.data, weight.quant_state)
    return matrix.float()


def _quantized(bitsandbytes: Any, layer: nn.Module) -> nn.Module:
    assert isinstance(layer, nn.Linear)
    made: nn.Module = bitsandbytes.nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=layer.weight.dtype,
        compress_statistics=True,
        quant_type="nf4",
    )
    made.weight = bitsandbytes.nn.Params4bit(
        layer.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4"
    )
    # Its repacking for inference on CPUs rounds the scales to bf16 for good and refuses widths below 64.
    made.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    if layer.bias is not None:
        made.bias = layer.bias
    return made.to(layer.weight.device)


def _kept_wide(model: nn.Module) -> set[str]:
    """Return the names of modules that transformers keeps in fp32 whatever the rest of the model is held in."""
    lists = ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")
    models = [module for module in model.modules() if hasattr(module, lists[0])]
    return {name for module in models for each in lists for name in getattr(module, each, None) or ()}


def _in_layers(model: nn.Module, name: str) -> bool:
    return any(name.startswith(f"{path}.") for path in layer_lists(model))


def _library() -> Any:
    # On import it tells about optional kernels.
    log = logging.getLogger("bitsandbytes")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        import bitsandbytes
    except ImportError as error:
        raise ConfigError("4-bit weights need bitsandbytes: pip install 'ablab[quantized]'") from error
    finally:
        log.setLevel(level)
    return bitsandbytes
