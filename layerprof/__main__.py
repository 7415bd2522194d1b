"""`python -m layerprof`."""

from layerprof.cli import main

main()
