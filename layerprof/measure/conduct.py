"""Conducts the passes of one run, in an order in which none disturbs the next."""

from __future__ import annotations

from collections.abc import Callable

from layerprof.errors import (
    LayerprofError,
    NothingFinishedError,
    RequestError,
    RunFailedError,
    described,
    out_of_memory,
)
from layerprof.layers import weights
from layerprof.measure import (
    bare_walk,
    energy_pass,
    memory_pass,
    optimize,
    passes,
    prefetch_pass,
    remarks,
    warm_up,
    work_pass,
)
from layerprof.measure.session import Session
from layerprof.settings import Settings


def conduct(session: Session) -> LayerprofError | None:
    """Run the passes; return the error that ended them early, if any. What was finished stays in the session."""
    read = session.read
    chosen = session.asked.settings
    try:
        if earlier := remarks.earlier_traces(session.asked.device):
            session.read.warnings.append(earlier)
        with optimize.optimized(session):
            warm_up.warm_up(session)
            bare_walk.bare_and_latency(session)
            read.weights = weights.read(session.subject.model, session.asked.layers)
            work_pass.flops_pass(session)
            if chosen.cross_check:
                optional(session, "cross_check", passes.cross_check, True, "")
            optional(session, "memory", memory_pass.run, chosen.memory, "--memory was not given")
            optional(session, "energy", energy_pass.run, chosen.energy != "off", "--energy off was given")
            if chosen.prefetch:
                optional(session, "prefetch", prefetch_pass.run, True, "")
            own_hooks(session)
            # Last, since CUPTI stays attached to the process and slows whatever runs after it.
            optional(session, "kernels", passes.trace_pass, chosen.trace, "--no-trace was given")
    except KeyboardInterrupt:
        read.interrupted = True
        read.warnings.append("Interrupted: figures are of what was finished by then.")
        if not read.bare:
            return NothingFinishedError("Interrupted before the first answer.", "Nothing is saved; start again.")
    except RequestError as error:
        return _found_late(session, error) if read.bare else error
    except LayerprofError as error:
        return error
    except Exception as error:
        return _failure(error, session.asked.settings)
    return None


def optional(session: Session, name: str, work: Callable[[Session], None], wanted: bool, why_not: str) -> None:
    """Run a pass that a run can do without: when it fails, its figures are None and the reason is kept and shown."""
    read = session.read
    if not wanted:
        read.reasons[name] = why_not
        return
    try:
        work(session)
    except RequestError:
        raise
    except KeyboardInterrupt:
        if name not in read.passes and getattr(read, name, None) is None:
            read.reasons.setdefault(name, "the pass was interrupted")
        raise
    except Exception as error:
        read.reasons[name] = f"the pass failed: {described(error)}"
        read.warnings.append(f"The {name} pass failed ({described(error)}); its columns are empty.")


def own_hooks(session: Session) -> None:
    """Walk with each hook that the user named; what a hook raises is told as the hook's failure, not the model's."""
    try:
        passes.user_passes(session)
    except LayerprofError:
        raise
    except (Exception, SystemExit) as error:
        if out_of_memory(error):
            raise
        name = next(name for name in session.asked.settings.hooks if name not in session.read.passes)
        raise _caused(
            f"The hook '{name}' failed: {described(error)}",
            "Correct it (docs/hooks.md) or leave it out; what was measured before it is saved.",
            error,
        ) from error


def _found_late(session: Session, error: RequestError) -> RunFailedError:
    """Return a mistake in the request that showed after the first answer, a picture say: what was finished is saved."""
    saved = f"What was finished by then ({session.read.rows} samples) is saved in {session.asked.output}."
    return _caused(error.problem, f"{error.remedy} {saved}", error)


def _failure(error: Exception, asked: Settings) -> RunFailedError:
    if out_of_memory(error):
        problem = "The device ran out of memory."
        size = "set or lower --max-pixels" if asked.image_size == "native" else "lower --image-size"
        remedy = f"{size[0].upper()}{size[1:]}, lower --batch-size or --max-new-tokens, or use --dtype fp16."
        return _caused(problem, remedy, error)
    return _caused(
        f"The model failed while it was being measured: {described(error)}",
        "Try --model demo; if that works, the model or its inputs are at fault: measure it in your own loop with "
        "layerprof.LayerProfiler.",
        error,
    )


def _caused(problem: str, remedy: str, cause: BaseException) -> RunFailedError:
    failure = RunFailedError(problem, remedy)
    failure.__cause__ = cause
    return failure
