from __future__ import annotations

import pytest
import torch

from ablab.models.initialization import headwise_orthogonal, named_generator, normal, orthogonal_rows


def test_a_stream_depends_on_seed_and_name_only() -> None:
    draws = {
        (seed, name): normal((5,), std=1.0, generator=named_generator(seed, name)).sum().item()
        for seed in (1, 2)
        for name in ("a", "b")
    }
    assert len(set(draws.values())) == 4
    torch.manual_seed(77)
    assert normal((5,), std=1.0, generator=named_generator(1, "a")).sum().item() == draws[1, "a"]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (4, 16), (16, 16)])
def test_rows_are_orthonormal(rows: int, columns: int) -> None:
    matrix = orthogonal_rows(rows, columns, generator=named_generator(3, "w"))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(rows), rtol=0, atol=1e-5)


def test_more_rows_than_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="orthonormal"):
        orthogonal_rows(3, 2, generator=named_generator(0, "w"))


def test_the_draw_is_haar() -> None:
    """Haar rotations of the plane are uniform in their angle and half of them reflect; LAPACK's signs alone are not."""
    generator = named_generator(0, "w")
    matrices = torch.stack([orthogonal_rows(2, 2, generator=generator) for _ in range(2000)])
    angles = torch.atan2(matrices[:, 0, 1], matrices[:, 0, 0])
    quarters = torch.histc(angles, bins=4, min=-torch.pi, max=torch.pi)
    assert ((quarters - 500).abs() < 5 * 500**0.5).all()
    assert abs(torch.linalg.det(matrices).mean()) < 5 / 2000**0.5


def test_heads_are_orthonormal_within_and_not_between() -> None:
    width, heads = 64, 4
    matrix = headwise_orthogonal(width, heads, generator=named_generator(3, "w"))
    blocks = matrix.view(heads, width // heads, width)
    torch.testing.assert_close(blocks @ blocks.transpose(1, 2), torch.eye(16).expand(4, 16, 16), rtol=0, atol=1e-5)
    between = blocks[0] @ blocks[1].T
    assert between.abs().max() > 0.1
    square = orthogonal_rows(width, width, generator=named_generator(3, "w")).view(heads, 16, width)
    torch.testing.assert_close(square[0] @ square[1].T, torch.zeros(16, 16), rtol=0, atol=1e-5)
