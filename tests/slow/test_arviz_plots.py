"""ArviZ draws from a posterior's DataTree as it is."""

import jax
import matplotlib as mpl
import pytest

import thalweg as tw

EXAMPLE = "examples/eight_schools"


@pytest.mark.slow
def test_arviz_draws_without_further_work(pytestconfig):
    mpl.use("Agg")
    import arviz_plots

    folder = pytestconfig.rootpath / EXAMPLE
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):  # as users write
        target = tw.from_file(folder / "model.py", folder / "data.json")
        tree = tw.infer(target, progress=False).to_arviz(400)
    for draw in ("plot_trace", "plot_forest", "plot_dist", "plot_pair", "plot_ppc_dist", "plot_ess", "plot_rank"):
        some = {"var_names": ["mu", "tau"]} if draw == "plot_pair" else {}  # each with each
        shown = getattr(arviz_plots, draw)(tree, backend="matplotlib", **some)
        figure = shown.viz["figure"].item()
        figure.canvas.draw()
        assert len(figure.axes) > 0, draw
