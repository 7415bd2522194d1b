"""layerprof: where do the FLOPs, milliseconds and joules of a vision-language model go, layer by layer?"""

from __future__ import annotations

__version__ = "0.1.0"
