"""What can be measured here, drawn from the findings, so that an answer and its evidence cannot disagree."""

from __future__ import annotations

from layerprof.doctor.findings import Answer, Finding


def answers(findings: list[Finding]) -> tuple[Answer, ...]:
    """Return for each quantity whether it can be measured, and how."""
    cards = [f for f in findings if f.group == "device" and f.name.startswith("cuda:")]
    counters = [f for f in findings if f.group == "energy" and f.name in {c.name for c in cards}]
    host = next((f for f in findings if (f.group, f.name) == ("energy", "host")), None)
    hub = next((f for f in findings if f.group == "network"), None)
    cupti = next((f for f in findings if f.name == "CUPTI"), None)
    return (
        Answer("FLOPs and bytes", "yes", "from shapes, on any device"),
        Answer("latency per layer", "yes", "CUDA events" if cards else "host clock"),
        Answer(
            "kernels per layer", cupti.state if cupti else "unknown", cupti.detail if cupti else "the profiler failed"
        ),
        _energy_answer("energy of the device", counters if cards else [host] if host else []),
        _energy_answer("energy per layer", counters if cards else [host] if host else [], per_layer=True),
        _same("energy of the host", host),
        _same("hub models and data", hub),
    )


def _same(quantity: str, finding: Finding | None) -> Answer:
    if finding is None:
        return Answer(quantity, "unknown", "the check itself failed")
    return Answer(quantity, finding.state, finding.detail if finding.state == "yes" else f"see {finding.name} below")


def _energy_answer(quantity: str, counters: list[Finding], per_layer: bool = False) -> Answer:
    working = [f for f in counters if f.state == "yes"]
    if not working:
        return Answer(quantity, "no", "no counter; an estimate stands in its own column (see --assume-watts)")
    if per_layer:
        how = "attributed by span (default), replayed with intervals (--energy replay)"
        return Answer(quantity, "yes", how)
    return Answer(quantity, "yes", working[0].detail)
