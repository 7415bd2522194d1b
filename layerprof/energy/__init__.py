"""Counter reads -> joules with intervals: of windows, of phases, of layers, and whether they close. Pure, no torch.

In: what a sensor showed, windows of host time, spans and calls of layers. Out: `windows.EnergyReading`,
`measured.EnergyData` and `replayed.ReplayReading`, whose every figure has its interval, label and reason.
May import: the registry and the ground.
"""
