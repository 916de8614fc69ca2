"""Two-dimensional rotary positions for any vision transformer of transformers, added without touching its code.

Half of a head's dimensions turn by the patch's row, the other half by its column (Heo et al. 2024, "Rotary Position
Embedding for Vision Transformer"): D / 4 frequencies an axis, 10000^(-2k / (D / 2)); angles [row f, column f], twice,
rotate-half. Tokens before the patches (CLS, registers) do not turn. Learned absolute positions stay, so that a
pretrained tower starts near what it was. The setting is kept in the model's configuration: a reload that does not apply
it again would fall back silently, so loading does (`ablab.models.hub`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ablab.contract.failure import ConfigError
from ablab.models.attention_hooks import AttentionHooks, attach

#: Entry of the configuration under which the setting is kept.
ENTRY = "ablab_rotary_2d"


def add_rotary_2d(model: Any, *, theta: float = 10000.0, part: str = "tower") -> AttentionHooks:
    """Turn q and k of every layer by row and column; the model is changed in place and its configuration says so.

    Args:
        model: vision model of transformers.
        theta: base of the frequencies.
        part: what it is called in messages.

    Raises:
        ConfigError: head dimensions that do not divide by 4, or no attention interface.
    """
    dimensions = head_dimensions(model.config)
    check_dimensions(dimensions, part=part)
    hooks = attach(model, part=part)
    grid = _Grid(model.config)
    hooks.turn = Turner(grid, theta=theta)
    model.register_forward_pre_hook(grid.note, with_kwargs=True)
    setattr(model.config, ENTRY, {"theta": theta})
    return hooks


def restore_rotary_2d(model: Any, *, part: str = "tower") -> bool:
    """Turn again what the configuration says was turned when it was saved; return whether it was."""
    setting = getattr(model.config, ENTRY, None)
    if not isinstance(setting, Mapping):
        return False
    add_rotary_2d(model, theta=float(setting["theta"]), part=part)
    return True


def head_dimensions(config: Any) -> int:
    """Return the dimensions of one attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def check_dimensions(dimensions: int, *, part: str) -> None:
    """Raise ConfigError for heads whose dimensions cannot be shared by two axes of pairs."""
    if dimensions % 4:
        raise ConfigError(
            f"{part}: 2D-RoPE needs heads whose dimensions divide by 4 (two axes of pairs), found {dimensions}",
            dimensions=dimensions,
        )


class _Grid:
    """Rows and columns of the patches of the images at hand, noted before each call of the model."""

    def __init__(self, config: Any) -> None:
        patch = config.patch_size
        self._patch = (patch, patch) if isinstance(patch, int) else tuple(patch)
        self.size = (0, 0)

    def note(self, module: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Read the grid off the pixels (B, 3, H, W), or off the shapes that NaFlex models are given."""
        shapes = named.get("spatial_shapes")
        if shapes is not None:
            if bool((shapes != shapes[0]).any()):
                raise ConfigError("2D-RoPE needs images of one grid in a batch")
            self.size = int(shapes[0, 0]), int(shapes[0, 1])
            return
        pixels = named.get("pixel_values", positional[0] if positional else None)
        assert isinstance(pixels, Tensor)
        self.size = pixels.size(-2) // self._patch[0], pixels.size(-1) // self._patch[1]


class Turner:
    """Turns queries and keys by the rows and columns of a grid.

    Args:
        grid: whose `size` is (rows, columns) at the time of a call.
        theta: base of the frequencies.
    """

    def __init__(self, grid: Any, *, theta: float) -> None:
        self._grid, self._theta = grid, theta
        self._known: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}

    def __call__(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return both (B, heads, N, D) turned; the first N - rows x columns tokens stay as they are."""
        cos, sin = self._tables(query)
        return _turned(query, cos, sin), _turned(key, cos, sin)

    def _tables(self, query: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = self._grid.size
        prefix = query.size(2) - rows * columns
        if prefix < 0:
            raise ConfigError(f"2D-RoPE: {query.size(2)} tokens for a grid of {rows} x {columns} patches")
        name = (rows, columns, prefix, query.size(-1), query.device)
        if name not in self._known:
            angles = grid_angles(rows, columns, query.size(-1), theta=self._theta, device=query.device)
            angles = torch.cat([angles.new_zeros(prefix, query.size(-1)), angles])
            self._known = {name: (angles.cos(), angles.sin())}
        return self._known[name]


def grid_angles(
    rows: int, columns: int, dimensions: int, *, theta: float = 10000.0, device: torch.device | None = None
) -> Tensor:
    """Return the angles of each patch, row by row, fp32 (rows x columns, D): [row f, column f, row f, column f]."""
    quarter = dimensions // 4
    k = torch.arange(quarter, dtype=torch.float32, device=device)
    frequencies = theta ** (-2 * k / (dimensions / 2))
    row = torch.arange(rows, dtype=torch.float32, device=device)[:, None, None] * frequencies
    column = torch.arange(columns, dtype=torch.float32, device=device)[None, :, None] * frequencies
    half = torch.cat([row.expand(rows, columns, quarter), column.expand(rows, columns, quarter)], dim=-1)
    return torch.cat([half, half], dim=-1).flatten(0, 1)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate halves in fp32."""
    wide = x.float()
    first, second = wide.chunk(2, dim=-1)
    return (wide * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)
