"""What compiling costs: building a flow, a second `infer` with new data, and 64 layers against 4."""

import time

import jax
import numpy as np

import thalweg as tw
from benchmarks._record import spread, write
from thalweg._core import Skeleton
from thalweg.flows import EXACT_FLOWS

_COMPILE = "/jax/core/compile/backend_compile_duration"
_count = [0]
jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: _count.__setitem__(0, _count[0] + (name == _COMPILE))
)


def log_density(params, data):
    """A regression."""
    return -0.5 * (params["x"] ** 2).sum() - 0.5 * ((data["y"] - data["a"] @ params["x"]) ** 2).sum()


def target(seed):
    """Another data set of the same shapes."""
    rng = np.random.default_rng(seed)
    return tw.from_function(
        log_density, {"x": tw.real(10)}, {"a": rng.standard_normal((30, 10)), "y": rng.standard_normal(30)}
    )


def counted(function):
    """How many programs a call compiles."""
    before = _count[0]
    function()
    return _count[0] - before


def main():
    """Measure and write."""
    problem = target(0)
    result = {"seed": 0, "programs compiled": {}}
    result["programs compiled"]["building each flow"] = {
        name: counted(lambda name=name: tw.make_flow(name, 12)) for name in EXACT_FLOWS
    }
    result["programs compiled"]["first infer"] = counted(
        lambda: tw.infer(problem, "realnvp", steps=100, progress=False)
    )
    result["programs compiled"]["second infer, new data"] = counted(
        lambda: tw.infer(target(1), "realnvp", steps=100, progress=False)
    )
    rounds = []
    for i in range(5):
        seconds = {}
        for layers in (4, 64):
            skeleton = Skeleton(tw.make_flow("realnvp", 10, layers=layers))
            # another number of draws each round, so that nothing is found compiled
            objective = tw.objectives.ReverseKL(problem, 128 + i)
            loss = jax.jit(jax.value_and_grad(lambda v, s=skeleton, o=objective: o(s(v), jax.random.key(0))[0]))
            start = time.perf_counter()
            loss.lower(np.zeros(skeleton.size, np.float32)).compile()
            seconds[layers] = time.perf_counter() - start
        rounds.append(seconds)
    result["seconds to trace and compile a path-gradient step"] = {
        f"{n} layers": spread([r[n] for r in rounds]) for n in (4, 64)
    }
    result["ratio 64 layers to 4"] = spread([r[64] / r[4] for r in rounds])
    write("compile", ["thalweg", "jax", "jaxlib", "equinox", "optax", "numpy"], result)


if __name__ == "__main__":
    main()
