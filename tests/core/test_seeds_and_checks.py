"""Seeds of every kind; the wording of checks; precision as a context; guests that are not there."""

import re
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import count_compiles
from thalweg import _core as core


def test_seeds_of_every_kind():
    data = jax.random.key_data(core.as_key(3))
    for same in (np.int64(3), jax.random.key(3), jax.random.PRNGKey(3)):
        np.testing.assert_array_equal(jax.random.key_data(core.as_key(same)), data)
    assert jnp.issubdtype(core.as_key(-1).dtype, jax.dtypes.prng_key)
    core.as_key(2**80)


@pytest.mark.parametrize("bad", [1.5, "seed", None, True, jnp.zeros(2), np.zeros(2, np.uint32)])
def test_what_is_no_seed(bad):
    with pytest.raises(ValueError, match="`seed` must be an int or a JAX key, got"):
        core.as_key(bad)


def test_numpy_generators():
    first = core.numpy_rng(3).standard_normal(4)
    np.testing.assert_array_equal(core.numpy_rng(3).standard_normal(4), first)
    assert not np.array_equal(core.numpy_rng(4).standard_normal(4), first)
    new, old = (core.numpy_rng(k).standard_normal(4) for k in (jax.random.key(3), jax.random.PRNGKey(3)))
    np.testing.assert_array_equal(new, old)
    generator = np.random.default_rng(0)
    assert core.numpy_rng(generator) is generator


def test_numbers_from_numpy_compile_nothing():
    with count_compiles() as compiles:
        array = core.from_numpy(np.ones((7, 11)))
    assert compiles.count == 0
    assert array.dtype == jnp.float64
    with core.precision("float32"):
        assert core.from_numpy([1.0, 2.0]).dtype == jnp.float32
        assert core.from_numpy(np.arange(3, dtype=np.int32)).dtype == jnp.int32


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: core.check_shape("x", jnp.ones(3), (2,)), "`x` must have shape (2,), got (3,)"),
        (lambda: core.check_shape("x", 1.0, (2,), "do"), "`x` must have shape (2,), got (); do"),
        (
            lambda: core.check_trailing_shape("x", jnp.ones((5, 3)), (2,)),
            "`x` must have shape (..., 2), got (5, 3)",
        ),
        (lambda: core.check_positive_int("n", 0), "`n` must be a whole number of at least 1, got 0"),
        (lambda: core.check_positive_int("n", 2.0), "`n` must be a whole number of at least 1, got 2.0"),
        (lambda: core.check_positive_int("n", True), "`n` must be a whole number of at least 1, got True"),
        (lambda: core.check_positive_int("n", 3, least=4), "`n` must be a whole number of at least 4, got 3"),
        (
            lambda: core.check_choice("flow", "splin", ["iaf", "spline"]),
            "`flow` must be one of iaf, spline, got 'splin'; did you mean 'spline'?",
        ),
        (lambda: core.check_choice("flow", "??", ["iaf"]), "`flow` must be one of iaf, got '??'"),
        (lambda: core.resolve_dtype("float16"), "`dtype` must be float32 or float64, got 'float16'"),
        (lambda: core.resolve_dtype("nonsense"), "`dtype` must be float32 or float64, got 'nonsense'"),
    ],
)
def test_wording(check, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check()


def test_checks_let_pass():
    core.check_shape("x", jnp.ones((2, 3)), (2, 3))
    assert core.check_trailing_shape("x", jnp.ones((5, 4, 2)), (2,)) == (5, 4)
    assert core.check_trailing_shape("x", jnp.ones((5, 4)), ()) == (5, 4)
    assert core.check_positive_int("n", np.int32(4)) == 4
    assert core.check_choice("flow", "iaf", ["iaf"]) == "iaf"


def test_precision_is_a_context():
    assert core.resolve_dtype() == "float64"
    with core.precision("float32"):
        assert core.resolve_dtype() == "float32"
        assert jnp.ones(2).dtype == jnp.float32
    assert jnp.ones(2).dtype == jnp.float64
    assert core.resolve_dtype(jnp.float32) == core.resolve_dtype("float32") == "float32"


def test_a_missing_guest_names_its_extra():
    with pytest.raises(ImportError, match=re.escape("pip install 'thalweg[numpyro]'")):
        core.import_guest("no_such_package_here", "numpyro")
    assert core.import_guest("json.decoder", "none").JSONDecoder


def test_keys_split_on_the_host_differ_and_compile_nothing():
    with count_compiles() as compiles:
        first, second, third = core.split_on_host(core.as_key(5), 3)
        again = core.split_on_host(core.as_key(5), 3)
        other = core.split_on_host(core.as_key(6), 3)
    assert compiles.count == 0
    words = {tuple(core.key_words(k).tolist()) for k in (first, second, third, *other)}
    assert len(words) == 6
    np.testing.assert_array_equal(core.key_words(again[1]), core.key_words(second))
    assert jax.random.normal(first) != jax.random.normal(second)


def test_a_named_key_is_the_name_s_own():
    with count_compiles() as compiles:
        chains, flow = (core.named_on_host(core.as_key(5), name) for name in ("chains", "flow"))
        again, other = core.named_on_host(core.as_key(5), "chains"), core.named_on_host(core.as_key(6), "chains")
    assert compiles.count == 0
    words = {tuple(core.key_words(k).tolist()) for k in (chains, flow, other)}
    assert len(words) == 3
    np.testing.assert_array_equal(core.key_words(again), core.key_words(chains))


def test_an_error_of_work_done_ahead_is_left_to_whoever_needs_it():
    seen = []

    def work():
        seen.append(jnp.result_type(float))
        raise ValueError("dropped")

    with core.precision("float32"):
        core.ahead(work)()
    assert seen == [jnp.float32]


def test_work_done_ahead_calls_no_user_s_function_once_it_is_over():
    called, go_on = [], threading.Event()

    def work():
        with core.one_at_a_time():
            called.append("in time")
        go_on.wait()
        with core.one_at_a_time():
            called.append("too late")

    with core.no_longer_than_this():
        wait = core.ahead(work)
        while not called:
            time.sleep(0.001)
    go_on.set()
    wait()
    assert called == ["in time"]


def test_a_call_that_is_going_on_when_it_is_over_is_waited_for():
    events = []

    def work():
        with core.one_at_a_time():
            events.append("begun")
            time.sleep(0.2)
            events.append("ended")

    with core.no_longer_than_this():
        core.ahead(work)
        while not events:
            time.sleep(0.001)
    events.append("over")
    assert events == ["begun", "ended", "over"]
