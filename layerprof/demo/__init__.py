"""The bundled model and its three bundled datasets, so that everything works with no network.

In: a task and a seed. Out: rows with the columns of the hub datasets, and the folder of the model.
May import: the ground.

`MODEL_FOLDER` is a tiny trained Qwen2.5-VL in Hugging Face format; `rows` draws samples with the columns of the hub
datasets. Importing this loads neither torch nor transformers.
"""

from __future__ import annotations

from pathlib import Path

from layerprof.demo.tasks import EVALUATION_ROWS, SEED, rows

MODEL_FOLDER: Path = Path(__file__).parent / "model"

__all__ = ["EVALUATION_ROWS", "MODEL_FOLDER", "SEED", "rows"]
