"""Long gradients as a few thousand numbers, inner products kept.

A seeded sparse projection: each of the P coordinates goes, with a random sign, to one place in each of s blocks of k/s
numbers, divided by √s (Kane & Nelson, 2014, Sparser Johnson-Lindenstrauss Transforms). For any x and y

    E⟨Sx, Sy⟩ = ⟨x, y⟩,   Var⟨Sx, Sy⟩ = (‖x‖² ‖y‖² + ⟨x, y⟩² − 2 Σ x_i² y_i²) / k,

the variance of a dense matrix of signs, as TRAK (Park et al., 2023) and LESS (Xia et al., 2024) take, at s additions a
coordinate instead of k. (Johnson and Lindenstrauss, 1984, is where it comes from.)

Shapes: P coordinates, k numbers kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SIZE, BLOCKS = 4096, 4
KEPT = 32_000_000  # coordinates whose places stay in memory: 5 bytes a block, 640 MB at most


class Sketch:
    """A projection of vectors that come in pieces.

    Args:
        sizes: coordinates of each piece. size: k, a multiple of `blocks`. blocks: s. seed: of places and signs.
    """

    def __init__(self, sizes: list[int], *, size: int = SIZE, blocks: int = BLOCKS, seed: int = 0) -> None:
        assert size % blocks == 0, "k is a multiple of the blocks"
        self.sizes, self.size, self.blocks, self.seed = sizes, size, blocks, seed
        self._known: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._keep = sum(sizes) <= KEPT

    def _drawn(self, piece: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Places (s, P_piece) in 0..k−1 and signs (s, P_piece) of a piece, the same at each call."""
        import torch

        if piece in self._known:
            return self._known[piece]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + piece)
        shape, room = (self.blocks, self.sizes[piece]), self.size // self.blocks
        places = torch.randint(room, shape, generator=generator, dtype=torch.int32)
        places += torch.arange(self.blocks, dtype=torch.int32)[:, None] * room
        signs = torch.randint(2, shape, generator=generator, dtype=torch.int8) * 2 - 1
        if self._keep:
            self._known[piece] = places, signs
        return places, signs

    def __call__(self, pieces: list[torch.Tensor]) -> torch.Tensor:
        """(k,) the projection of the vector whose pieces these are, each of any shape, in fp32 on the processor."""
        import torch

        out = torch.zeros(self.size)
        for number, piece in enumerate(pieces):
            flat = piece.detach().reshape(-1).float().cpu()
            assert len(flat) == self.sizes[number], "pieces come in one order"
            places, signs = self._drawn(number)
            for place, sign in zip(places, signs, strict=True):
                out.index_add_(0, place, flat * sign)
        return out / self.blocks**0.5
