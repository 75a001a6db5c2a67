"""Timing several sessions against each other in one run."""

import time
from collections.abc import Mapping

from .sessions import Floats, Session

WARM_UP = 3  # untimed runs at the start of every turn: the caches hold the last one's data


def time_in_turns(
    sessions: Mapping[str, Session],
    inputs: Floats,
    *,
    rounds: int,
    runs: int,
    warm_up: int = WARM_UP,
) -> dict[str, list[float]]:
    """Milliseconds of every run of every session: `rounds` times each in turn, `runs` a turn.

    `inputs` is float32 (N, 3, H, W); each session gets it in its own layout. Who begins changes
    from round to round, so that a disturbance or a warming CPU meets all of them.
    """
    prepared = {name: session.laid_out(inputs) for name, session in sessions.items()}
    names = list(sessions)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            run, images = sessions[name].run, prepared[name]
            for _ in range(warm_up):
                run(images)
            for _ in range(runs):
                start = time.perf_counter_ns()
                run(images)
                taken[name].append((time.perf_counter_ns() - start) / 1e6)
    return taken
