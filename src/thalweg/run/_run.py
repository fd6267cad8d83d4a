"""The driver: state in, state out, chunks of steps jitted, host work only between chunks."""

import abc
import time
from typing import Any, Generic, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, Count, PRNGKeyArray, Scalar, count, counted, from_numpy, quick_jit, wide_jit
from thalweg.run._checkpoint import Checkpoint
from thalweg.run._limit import Limit
from thalweg.run._progress import Progress
from thalweg.run._signals import listen
from thalweg.run._status import Interrupted, Status

State = TypeVar("State")


class AbstractProcess(eqx.Module, Generic[State]):
    """Something that is stepped: a fit, a start, a chain.

    Attributes:
        chunk: every so many steps the host reviews the state; results depend on it, not on how the time fell.
    """

    chunk: eqx.AbstractVar[int]

    @abc.abstractmethod
    def advance(self, state: State, key: PRNGKeyArray, first: int, n: int) -> tuple[State, dict[str, np.ndarray]]:
        """Take steps first ... first + n - 1, n <= chunk, and give their records: name -> (n,), "elbo" among them.

        What step i does depends on the state, the key and i, not on how the steps are cut.
        """

    @abc.abstractmethod
    def review(
        self, state: State, history: dict[str, np.ndarray], *, steps: int, hurry: bool
    ) -> tuple[State, Status | None]:
        """Between chunks, on the host: roll back, cool down or stop.

        Args:
            state: after the last step.
            history: every record so far, one array a name.
            steps: the most steps there will be.
            hurry: whether most of the budget is used up.
        """

    def evaluations(self, records: dict[str, np.ndarray]) -> Count:
        """Of the log density, in the steps that these are the records of; none where what is called counts them."""
        return Count()


class AbstractJittedProcess(AbstractProcess[State]):
    """A process whose steps are traced: n of them are one call to the device.

    Attributes:
        records: names of the scalars that each step records; "elbo" is one of them.
        quick: whether there are so few steps that how long they compile matters more than how long they run.
    """

    records: eqx.AbstractVar[tuple[str, ...]]
    quick: eqx.AbstractVar[bool]

    @abc.abstractmethod
    def step(self, state: State, key: PRNGKeyArray, index: Array) -> tuple[State, dict[str, Scalar]]:
        """One step, traced, and its record: a scalar for each name of `records`."""

    def advance(self, state: State, key: PRNGKeyArray, first: int, n: int) -> tuple[State, dict[str, np.ndarray]]:
        """In one jitted loop; step i has key fold_in(key, i)."""
        advance = _advance_quickly if self.quick else _advance
        state, records = advance(self, state, key, from_numpy(np.int32(first)), from_numpy(np.int32(n)))
        return state, {k: np.asarray(r)[:n] for k, r in records.items()}

    def rehearse(self, state: State, key: PRNGKeyArray) -> None:
        """Compile what `advance` calls, for states and keys like these, and take no step."""
        self.advance(state, key, 0, 0)


class RunResult(NamedTuple):
    """What a run leaves.

    Attributes:
        state: the last one.
        status: why it stopped.
        history: every step's record, one array a name.
        seconds: how long this process worked on it.
    """

    state: Any
    status: Status
    history: dict[str, np.ndarray]
    seconds: float


def _loop(
    process: AbstractJittedProcess, state: Any, key: PRNGKeyArray, first: Array, n: Array
) -> tuple[Any, dict[str, Array]]:
    arrays, static = eqx.partition(state, eqx.is_array)
    buffers = {name: jnp.zeros(process.chunk) for name in process.records}

    def body(i: Array, carry: tuple[Any, dict[str, Array]]) -> tuple[Any, dict[str, Array]]:
        arrays, buffers = carry
        index = first + i
        new, record = process.step(eqx.combine(arrays, static), jax.random.fold_in(key, index), index)
        return eqx.filter(new, eqx.is_array), {k: b.at[i].set(record[k].astype(b.dtype)) for k, b in buffers.items()}

    arrays, buffers = jax.lax.fori_loop(0, n, body, (arrays, buffers))
    return eqx.combine(arrays, static), buffers


_advance, _advance_quickly = wide_jit(_loop), quick_jit(_loop)

_SPENT, _MOST = ("values", "gradients"), 0.7
"""Records of every run; the share of what was left when a stage began, beyond which it hurries."""
_TICK = 0.3
"""Seconds between two looks at the clock and the signals: short calls, so that Ctrl-C is answered at once."""


def _advance_and_count(
    process: AbstractProcess[State], state: State, key: PRNGKeyArray, first: int, n: int
) -> tuple[State, dict[str, np.ndarray]]:
    """`advance`, what it evaluates counted, and recorded so that a resumed run has the same count."""
    before = counted()
    state, records = process.advance(state, key, first, n)
    count(*process.evaluations(records))
    spent = {k: np.full(n, (now - then) / n) for k, now, then in zip(_SPENT, counted(), before, strict=True)}
    return state, {**records, **spent}


def run(
    process: AbstractProcess[State],
    state: State,
    key: PRNGKeyArray,
    *,
    steps: int,
    name: str = "fit",
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    limit: Limit | None = None,
    quantity: str = "ELBO",
) -> RunResult:
    """Step a process until it stops itself, or for `steps` steps.

    Args:
        process: what to step.
        state: where to start; a checkpoint that holds this stage goes before it.
        key: of all the steps.
        steps: the most steps.
        name: of the stage, in the bar and the checkpoint.
        progress: the bar.
        checkpoint: where to keep the state: on a signal, now and then, and at the end.
        limit: what is left of the job's budget.
        quantity: what the record "elbo" is, for the bar.

    Raises:
        Interrupted: on SIGINT or SIGTERM, after the checkpoint has been written.
    """
    progress, limit = progress or Progress(show=False), limit or Limit.of(None)
    already = limit.used
    history: dict[str, np.ndarray] = {}
    saved = checkpoint.get(name, state) if checkpoint is not None else None
    if saved is not None:
        state, history, finished = saved
        count(*(int(history[k].sum()) for k in _SPENT if k in history))
        if finished is not None:
            return RunResult(state, Status[finished], history, 0.0)
    done = len(history["elbo"]) if history else 0
    start = last_write = time.monotonic()
    pace, status = 1, None
    progress.stage(name, steps, quantity)
    with listen() as stop:
        while status is None and done < steps:
            begin = time.monotonic()
            n = min(process.chunk - done % process.chunk, steps - done, pace)
            state, records = _advance_and_count(process, state, key, done, n)
            history = {k: np.concatenate([history[k], r]) if history else r for k, r in records.items()}
            done += n
            now = time.monotonic()
            pace = max(1, min(process.chunk, 4 * pace, int(n * _TICK / (now - begin)) + 1))
            progress.update(done, float(history["elbo"][-1]), n / (now - begin))
            if done % process.chunk == 0 or done == steps:
                used = limit.used
                hurry = used > already + _MOST * (1 - already)
                state, status = process.review(state, history, steps=steps, hurry=hurry)
                status = status or (Status.BUDGET if used >= 1 else None)
            if stop:
                if checkpoint is not None:
                    checkpoint.put(name, state, history, finished=status.name if status else None)
                kept = "" if checkpoint is None else "; the checkpoint has been written"
                raise Interrupted(f"{name}: stopped by {stop.name}{kept}")
            if checkpoint is not None and now - last_write > checkpoint.every:
                checkpoint.put(name, state, history, finished=None)
                last_write = now
    status = status or Status.ALL_STEPS
    progress.finish(done)
    if checkpoint is not None:
        checkpoint.put(name, state, history, finished=status.name)
    return RunResult(state, status, history, time.monotonic() - start)
