"""The instruments that clip onto a live model. Found through the entry-point group `layerprof.hooks`."""
