"""A reverse-KL step of continuously-indexed flows over one of their inner flows; d = 10, sizes by name.

Both run the driver that `infer` runs, with path gradients, on the same density. An index costs three networks a layer
(its own law, that of the way back, and the move), whatever the layer costs: the dearer that is, the smaller the ratio.
"""

from benchmarks._record import write
from benchmarks._workers import QUICK, Plan, measure, table
from benchmarks.step import D, fit_steps

FLOWS = ("realnvp", "spline", "iaf", "maf", "iaf-spline", "maf-spline")
DRAWS = (256, 1000)


def _side(prefix):
    def make(setting):
        import thalweg as tw

        return fit_steps(tw.make_flow(prefix + setting["flow"], D), setting, "")

    return make


SIDES = {"inner": _side(""), "indexed": _side("cif-")}


def main():
    """Measure and write."""
    plan = Plan()
    result = {"setting": {"d": D}, "unit": "ms a step", "rounds": plan.rounds}
    for flow in FLOWS:
        for draws in DRAWS:
            setting = {"flow": flow, "draws": draws, "path": True}
            measured = measure("benchmarks.indexed", list(SIDES), setting, plan)
            result[f"{flow}, {draws} draws"] = table(measured, unit=1000, key="ms a step", against="inner")
    result["seed"] = 0
    write("indexed", ["thalweg", "jax", "jaxlib", "equinox", "optax", "numpy"], result, quick=QUICK)


if __name__ == "__main__":
    main()
