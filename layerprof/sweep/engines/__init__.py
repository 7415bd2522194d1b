"""Where cells are carried out. An engine tells who cells are, and yields their outcomes as they end.

`local` has one worker process on this machine, `ray` (`cluster`) tasks on a cluster. The engine knows nothing of
experiments, and the sweep nothing of processes.
"""
