"""Models of a user's own: three blocks without attention, and a head."""

from __future__ import annotations

import torch
from torch import nn

WIDTH, TOKENS = 8, 5


class Block(nn.Module):
    """Attention-free block: two matrices, 2 * 2 * WIDTH * WIDTH FLOPs a token."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, WIDTH, bias=False)
        self.down = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (rows, tokens, WIDTH) to the same shape."""
        change: torch.Tensor = self.down(torch.relu(self.up(x)))
        return x + change


class Tower(nn.Module):
    """Three blocks and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(WIDTH, 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (rows, tokens, WIDTH) to (rows, tokens, 2)."""
        for block in self.blocks:
            x = block(x)
        return self.head(x)  # type: ignore[no-any-return]  # nn.Module calls are typed as Any
