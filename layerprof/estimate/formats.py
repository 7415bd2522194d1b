"""Formats that weights may be stored in: the least that a weight takes in each, whatever the shape of its matrix.

How many bytes a matrix of some shape takes is `models.quantization.Scheme.stored_bytes`, which says where each layout
is written down. All of them store weights only: codes become numbers of the model's dtype inside the product, so FLOPs
and the peak that bounds them stay what they were.
"""

from __future__ import annotations

LEAST_BITS = {"int8": 8.0, "int4": 4.0, "nf4": 4 + 32 / 64, "fp8": 8.0}
"""Bits of a weight, by the name that `--quantization` takes: its code, and in nf4 its part of the float32 that 64
elements share. What stands once a row, a group of a row or a matrix is left out, since shapes decide how much it is."""

KEPT = ("embed_tokens", "lm_head", "norm", "rotary", "pos_embed", "patch_embed")
"""Kinds of layers without a matrix that is stored otherwise: transformers leaves embeddings and the output head, and
patches are taken to be embedded by a convolution, which stays as it is, too."""
