"""The driver: the same bits however it is cut, resumed or interrupted; checkpoints; signals; budget."""

import os
import signal
import time
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thalweg._core import FileError
from thalweg.run import AbstractJittedProcess, Checkpoint, Interrupted, Limit, Status, run


class Walk(AbstractJittedProcess):
    """A random walk that stops itself when told; can send itself a signal at a review."""

    scale: jax.Array
    chunk: int = eqx.field(static=True, default=8)
    stop_at: int | None = eqx.field(static=True, default=None)
    signal_at: int | None = eqx.field(static=True, default=None)
    records: ClassVar[tuple[str, ...]] = ("elbo",)
    quick: ClassVar[bool] = False

    def step(self, state, key, index):
        state = state + self.scale * jax.random.normal(key)
        return state, {"elbo": state}

    def review(self, state, history, *, steps, hurry):
        done = len(history["elbo"])
        if done == self.signal_at:
            os.kill(os.getpid(), signal.SIGINT)
        return state * 0.5, (Status.CONVERGED if done == self.stop_at else None)


SCALE, START, KEY = jnp.asarray(0.3), jnp.asarray(1.0), jax.random.key(3)


def test_history_state_and_status():
    result = run(Walk(SCALE), START, KEY, steps=50)
    assert result.status is Status.ALL_STEPS
    assert result.history["elbo"].shape == (50,)
    expected = 1.0
    for i in range(50):
        expected += 0.3 * float(jax.random.normal(jax.random.fold_in(KEY, i)))
        np.testing.assert_allclose(result.history["elbo"][i], expected, rtol=1e-12)
        if (i + 1) % 8 == 0 or i == 49:
            expected *= 0.5
    stopped = run(Walk(SCALE, stop_at=16), START, KEY, steps=50)
    assert stopped.status is Status.CONVERGED
    assert len(stopped.history["elbo"]) == 16


def test_interrupted_and_resumed_to_the_same_bits(tmp_path):
    whole = run(Walk(SCALE), START, KEY, steps=50)
    file = tmp_path / "c.thalweg"
    with pytest.raises(Interrupted, match="fit: stopped by SIGINT; the checkpoint has been written"):
        run(Walk(SCALE, signal_at=24), START, KEY, steps=50, checkpoint=Checkpoint(file, {"seed": 3}))
    resumed = run(Walk(SCALE), START, KEY, steps=50, checkpoint=Checkpoint(file, {"seed": 3}, resume=True))
    np.testing.assert_array_equal(resumed.history["elbo"], whole.history["elbo"])
    np.testing.assert_array_equal(resumed.state, whole.state)
    # a finished stage comes back without a step
    again = run(Walk(SCALE), START, KEY, steps=50, checkpoint=Checkpoint(file, {"seed": 3}, resume=True))
    np.testing.assert_array_equal(again.state, whole.state)
    assert again.status is Status.ALL_STEPS


def test_signal_without_checkpoint_and_handlers_restored():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=r"^fit: stopped by SIGINT$"):
        run(Walk(SCALE, signal_at=8), START, KEY, steps=50)
    assert signal.getsignal(signal.SIGINT) is before
    assert issubclass(Interrupted, KeyboardInterrupt)


def test_checkpoint_refuses_other_settings_and_other_shapes(tmp_path):
    file = tmp_path / "c.thalweg"
    Checkpoint(file, {"seed": 3}).put("fit", START, {"elbo": np.zeros(2)}, finished=None)
    with pytest.raises(ValueError, match=r"`seed` must be as in the run that is resumed, got 4"):
        Checkpoint(file, {"seed": 4}, resume=True)
    with pytest.raises(FileError, match="other shapes"):
        Checkpoint(file, {"seed": 3}, resume=True).get("fit", jnp.zeros(2))
    assert Checkpoint(file, {"seed": 4}).get("fit", START) is None


def test_budget_stops():
    class Slow(AbstractJittedProcess):
        chunk: ClassVar[int] = 1
        records: ClassVar[tuple[str, ...]] = ("elbo",)
        quick: ClassVar[bool] = True

        def step(self, state, key, index):
            return state + 1, {"elbo": state}

        def review(self, state, history, *, steps, hurry):
            time.sleep(0.02)
            return state, None

    result = run(Slow(), jnp.zeros(()), KEY, steps=10**6, limit=Limit.of(0.6))
    assert result.status is Status.BUDGET
    assert 1 < len(result.history["elbo"]) < 10**5


def test_every_status_is_a_sentence():
    for status in Status:
        assert len(str(status).split()) > 5
    assert not Status.DIVERGED.ok
    assert Status.CONVERGED.ok
