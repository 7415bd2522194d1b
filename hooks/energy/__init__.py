"""Energy: sensors, windows over them, and replay.

A sensor is an object with the interface of `layerprof.energy.instruments.Sensor`; one that is not there is an object
too (`absent.AbsentSensor`) and says why. Vendor calls stand in one file each: `nvml.py` (NVIDIA cards) and `rapl.py`
(Intel and AMD processors).
"""
