"""The command `thalweg`: parse, call, print."""

import contextlib
import functools
import importlib.metadata
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from thalweg._core import check_positive_int, requirement, write_atomically
from thalweg.calibrate import Calibration
from thalweg.calibrate import calibrate as calibrate_target
from thalweg.flows import EXACT_FLOWS, FLOWS, INDEXED
from thalweg.infer import infer as infer_posterior
from thalweg.posterior import Posterior, load
from thalweg.posterior import preload as preload_arviz
from thalweg.report import preload as preload_report
from thalweg.report import report as write_report
from thalweg.run import Evaluations, Interrupted, insist
from thalweg.targets import Target, from_file

UNTRUSTED, BAD_INPUT, INTERRUPTED = 3, 2, 130
_MOST_ROWS = 40
_PARTIAL = ".partial-"

app = typer.Typer(
    help="Probabilistic inference with normalizing flows: a posterior, its evidence, and whether to believe it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

_INFER_HELP = """
Fit a posterior to MODEL and write it to a folder.

MODEL.py holds `log_density(params, data)` and `supports`; or `log_prior`, `log_likelihood` and `supports`; or a NumPyro
`model` whose arguments are the data's names; or a PyMC `model`, or a function of the data that returns one. MODEL.stan
is a Stan program, compiled once.

Examples:

    thalweg infer model.py --data data.json --out runs/first

    thalweg infer model.py --data table.csv --out runs/spline --flow spline --steps 3000 --seed 7

    thalweg infer model.py --data data.json --out runs/first --resume

    thalweg infer model.stan --data data.json --out runs/stan

Exit status: 0 trusted; 3 finished, but the verdict says not to trust it; 2 bad input; 130 interrupted (go on with
--resume).
"""
_SAMPLE_HELP = """
Draw from a finished run and write the draws to a file (.npz, .csv or .json by its ending).

Draws are corrected against the model, which is read again from where it was; --raw gives the flow's own.

Examples:

    thalweg sample runs/first --n 10000 --out draws.npz

    thalweg sample runs/first --n 500 --raw --seed 3 --out draws.csv
"""
_CALIBRATE_HELP = """
Is `infer` right for MODEL? Draw parameters and data from it again and again, infer, and rank.

MODEL is as for infer: a NumPyro or PyMC model, or one with a function `simulate(key, data)` that returns (parameters by
name, data). The data file says of what form the data are, and what is not simulated (covariates).

Examples:

    thalweg calibrate model.py --data data.json --out runs/calibration

    thalweg calibrate model.py --data data.json --out runs/calibration --n 300 --flow spline --resume

Writes calibration.json and report.html. Exit status: 0 calibrated; 3 not, or nothing can be said; 2 bad input; 130
interrupted (go on with --resume).
"""
_REPORT_HELP = """
Write the report of a finished run again, as one HTML file.

Example:

    thalweg report runs/first --out report.html
"""


_Model = Annotated[Path, typer.Argument(help="The model file (.py or .stan).", show_default=False)]
_Out = Annotated[Path, typer.Option(help="The folder to write to; it is made.", show_default=False)]
_Data = Annotated[Path | None, typer.Option(help="The data file: .json, .json.gz, .npz or .csv.")]
_Seed = Annotated[int, typer.Option(help="All randomness comes from it.")]
_Float64 = Annotated[bool, typer.Option("--float64", help="Compute in double precision.")]


def _notes(error: Exception) -> list[str]:
    return getattr(error, "__notes__", [])


def _answer(command: Callable[..., None]) -> Callable[..., None]:
    """Errors that a user can mend become one sentence and exit status 2, interruptions status 130.

    Inside the command, since Typer answers a KeyboardInterrupt that reaches it in silence.
    """

    @functools.wraps(command)
    def answered(*arguments: Any, **options: Any) -> None:
        status = BAD_INPUT
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with insist():
                return command(*arguments, **options)
        except Interrupted:
            sentence, status = "interrupted; the same command with --resume goes on from here", INTERRUPTED
        except KeyboardInterrupt:
            sentence, status = "interrupted", INTERRUPTED
        except (ValueError, FileNotFoundError, ImportError) as error:
            sentence = " ".join(str(error).split())
        except jax.errors.JaxRuntimeError as error:
            if "CpuCallback" not in str(error):
                raise
            sentence = _from_callback(str(error))
        except OSError as error:
            what = f": {error.filename}" if error.filename else ""
            sentence = "; ".join([f"`out` cannot be written: {error.strerror or error}{what}", *_notes(error)])
        sys.stderr.write(f"thalweg: {sentence}\n")
        raise typer.Exit(status)

    return answered


def _from_callback(text: str) -> str:
    """What a Stan program said while it ran, out of JAX's account of where."""
    lines = [line for line in text.split("\n----")[0].splitlines() if line and not line.startswith(" ")]
    return lines[-1].partition(": ")[2] or lines[-1]


def _show_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"thalweg {importlib.metadata.version('thalweg')}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Probabilistic inference with normalizing flows."""


def _complete_flow(incomplete: str) -> list[str]:
    return [name for name in ("auto", *FLOWS) if name.startswith(incomplete)]


@app.command(help=_INFER_HELP)
@_answer
def infer(
    model: _Model,
    out: _Out,
    data: _Data = None,
    flow: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(('auto', *EXACT_FLOWS[:-1]))} or {EXACT_FLOWS[-1]}; {INDEXED} before a flow indexes it.",
            autocompletion=_complete_flow,
        ),
    ] = "auto",
    steps: Annotated[int | None, typer.Option(help="The most steps of the flow's fit.")] = None,
    seed: _Seed = 0,
    budget: Annotated[float | None, typer.Option(help="Seconds for the fit.")] = None,
    evaluations: Annotated[
        int | None, typer.Option(help="Evaluations of the log density for the fit, instead of seconds.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Rows of data a step (log_prior and log_likelihood models).")
    ] = None,
    float64: _Float64 = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the folder's checkpoint, to the same bits.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar, no table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print summary.json instead of the table.")] = False,
) -> None:
    """Fit, write, print."""
    checkpoint = out / "checkpoint.thalweg"
    if not (budget is None or evaluations is None):
        raise ValueError(requirement("evaluations", "be left out where there is a budget of seconds", evaluations))
    if float64:
        jax.config.update("jax_enable_x64", True)
    try:
        # what the model prints must not get into the JSON
        with (
            contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext(),
            _resumable(checkpoint),
            _folder(out),
        ):
            if model.suffix == ".stan" and sys.stderr.isatty() and not quiet:
                words = f"compiling {model.name}, about half a minute unless it was before"
                Console(stderr=True).print(words, style="dim")
            target = from_file(model, data)
            _import_ahead()
            posterior = infer_posterior(
                target,
                flow,
                seed,
                budget if evaluations is None else Evaluations(check_positive_int("evaluations", evaluations)),
                progress=not (quiet or as_json),
                steps=steps,
                batch_size=batch_size,
                checkpoint=checkpoint,
                resume=resume,
            )
            source = {"model": str(model.resolve()), "data": None if data is None else str(data.resolve())}
            summary = _write(posterior, out, source)
    except OSError as error:
        if checkpoint.exists():
            error.add_note("make room, and the same command with --resume goes on from the fit")
        raise
    checkpoint.unlink(missing_ok=True)
    if as_json:
        sys.stdout.write(summary)
    elif not quiet:
        _print_summary(posterior, json.loads(summary), out)
    raise typer.Exit(0 if posterior.verdict.ok else UNTRUSTED)


@app.command(help=_SAMPLE_HELP)
@_answer
def sample(
    run: Annotated[Path, typer.Argument(help="The folder that infer wrote.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The file to write: .npz, .csv or .json.", show_default=False)],
    n: Annotated[int, typer.Option("--n", "-n", help="How many draws.")] = 1000,
    seed: _Seed = 0,
    raw: Annotated[bool, typer.Option("--raw", help="The flow's own draws, not corrected.")] = False,
) -> None:
    """Load, draw, write."""
    writers: dict[str, Callable[[Path, dict[str, np.ndarray]], object]] = {
        ".npz": _write_npz,
        ".csv": _write_csv,
        ".json": lambda path, draws: path.write_text(json.dumps({k: v.tolist() for k, v in draws.items()})),
    }
    if out.suffix not in writers:
        raise ValueError(requirement("out", "end in .npz, .csv or .json", str(out)))
    posterior = _load_run(run, with_target=not raw)
    if posterior.space is None:  # of a PyMC or Stan model: the way back from R^d is the model's
        posterior = _load_run(run, with_target=True)
    draws = posterior.sample(n, seed) if raw else posterior.resample(n, seed)
    write_atomically(out, lambda temporary: writers[out.suffix](temporary, draws))
    if not raw and not posterior.verdict.ok:
        sys.stderr.write(f"thalweg: {posterior.verdict}\n")
        raise typer.Exit(UNTRUSTED)


@app.command(help=_CALIBRATE_HELP)
@_answer
def calibrate(
    model: _Model,
    out: _Out,
    data: _Data = None,
    n: Annotated[int, typer.Option("--n", "-n", help="How many data sets.")] = 100,
    flow: Annotated[str, typer.Option(help="As for infer.", autocompletion=_complete_flow)] = "auto",
    seed: _Seed = 0,
    budget: Annotated[float | None, typer.Option(help="Seconds for all of it.")] = None,
    float64: _Float64 = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's checkpoint.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar, no table.")] = False,
) -> None:
    """Simulate, infer, rank, write, print."""
    checkpoint = out / "checkpoint.thalweg"
    if float64:
        jax.config.update("jax_enable_x64", True)
    with _resumable(checkpoint), _folder(out):
        found = calibrate_target(
            from_file(model, data), n, flow, seed, budget, progress=not quiet, checkpoint=checkpoint, resume=resume
        )
        text = json.dumps(_calibration(found), indent=1) + "\n"
        write_atomically(out / "calibration.json", lambda temporary: temporary.write_text(text))
        write_report(found, out / "report.html")
    checkpoint.unlink(missing_ok=True)
    if not quiet:
        console = Console(width=max(shutil.get_terminal_size().columns, 80), highlight=False)
        console.print(str(found), style="green" if found.ok else "red", markup=False)
        console.print(f"written to {out}/: calibration.json, report.html", markup=False)
    raise typer.Exit(0 if found.ok else UNTRUSTED)


def _calibration(found: Calibration) -> dict[str, Any]:
    quantities = [
        {"name": q.name, "p_value": _finite(q.p_value), "coverage": {str(c): _finite(x) for c, x in q.coverage.items()}}
        for q in found.quantities()
    ]
    return {
        "name": found.name,
        "sentence": str(found),
        "ok": found.ok,
        "p_value": _finite(found.p_value),
        "n": len(found.outcome),
        "n_trusted": found.n_trusted,
        "draws": found.n_draws,
        "quantities": quantities,
        "ranks": {name: ranks.tolist() for name, ranks in found.ranks.items()},
        "outcome": found.outcome.tolist(),
        "khat": [_finite(x) for x in found.khat.tolist()],
        "failures": list(found.failures),
        "settings": found.settings,
        "versions": found.versions,
    }


@app.command(help=_REPORT_HELP)
@_answer
def report(
    run: Annotated[Path, typer.Argument(help="The folder that infer wrote.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="The file to write; RUN/report.html by default.")] = None,
) -> None:
    """Load, write."""
    try:
        posterior = _load_run(run, with_target=True)
    except ValueError as error:
        posterior = _load_run(run, with_target=False)
        if out is None and (run / "report.html").exists():
            raise ValueError(
                f"{error}; without the model a report lacks the corrected draws: give another --out"
            ) from error
        Console(stderr=True).print(f"thalweg: without the model, so without corrected draws: {error}", highlight=False)
    write_report(posterior, out or run / "report.html")


def _import_ahead() -> None:
    """Import what comes after the fit in a thread; it gives Python's lock back often, for the fit needs it now."""
    sys.setswitchinterval(5e-4)

    def imports() -> None:
        # of a process that ends meanwhile, modules are no longer there
        with contextlib.suppress(Exception):
            preload_arviz()
            preload_report()

    threading.Thread(target=imports, daemon=True).start()


@contextlib.contextmanager
def _resumable(checkpoint: Path) -> Iterator[None]:
    """Where there is a checkpoint, whatever stops the work, it can go on from there."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if checkpoint.exists() and not isinstance(stop, Interrupted):
            raise Interrupted(*stop.args) from stop
        raise


@contextlib.contextmanager
def _folder(out: Path) -> Iterator[None]:
    """The folder, made and writable; taken away again where it was made for nothing.

    Raises:
        ValueError: if it cannot be.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        try:
            out.mkdir(parents=True, exist_ok=True)
            write_atomically(out / "write-test", lambda temporary: temporary.write_bytes(b"\0" * 65536))
            (out / "write-test").unlink()
        except OSError as error:
            must = "be a folder that can be written"
            raise ValueError(requirement("out", must, f"{out} ({error.strerror})")) from error
        for left in out.glob(f"{_PARTIAL}*"):  # by a run that was killed while it wrote
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        with contextlib.suppress(OSError):  # one that is not empty stays
            for folder in made:
                folder.rmdir()


def _write(posterior: Posterior, out: Path, source: dict[str, Any]) -> str:
    """The four files, all or none; returns summary.json's text."""
    text = json.dumps(_summary(posterior, source), indent=1) + "\n"
    with tempfile.TemporaryDirectory(dir=out, prefix=_PARTIAL) as name:
        partial = Path(name)
        posterior.save(partial / "posterior.thalweg")
        if posterior.log_evidence is not None:
            # by way of memory: HDF5 crashes on a full disk
            (partial / "posterior.nc").write_bytes(posterior.to_arviz().to_netcdf(engine="h5netcdf"))
        write_report(posterior, partial / "report.html")
        (partial / "summary.json").write_text(text)
        for file in partial.iterdir():
            file.replace(out / file.name)
        if posterior.log_evidence is None:
            # of an earlier run
            (out / "posterior.nc").unlink(missing_ok=True)
    return text


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _summary(posterior: Posterior, source: dict[str, Any]) -> dict[str, Any]:
    verdict = posterior.verdict
    rows = posterior.summary() if posterior.log_evidence is not None else []

    def estimate(x: Any) -> Any:
        return None if x is None else {"value": _finite(x.value), "standard_error": _finite(x.standard_error)}

    return {
        "name": posterior.name,
        "verdict": {
            "sentence": str(verdict),
            "ok": verdict.ok,
            "raw_ok": verdict.raw_ok,
            "khat": _finite(verdict.khat),
            "ess": _finite(verdict.ess),
            "reasons": list(verdict.reasons),
            "advice": list(verdict.advice),
        },
        "log_evidence": estimate(posterior.log_evidence),
        "elbo": estimate(posterior.elbo),
        "modes": [{"share": estimate(mode.share), "near": mode.near} for mode in posterior.modes],
        "parameters": [{k: _finite(v) for k, v in row._asdict().items()} for row in rows],
        "steps_taken": list(posterior.steps_taken),
        "settings": posterior.settings,
        "versions": posterior.versions,
        "source": source,
    }


def _load_run(run: Path, *, with_target: bool) -> Posterior:
    file = run / "posterior.thalweg"
    if not file.is_file():
        raise ValueError(requirement("run", "be a folder that thalweg infer wrote", str(run)))
    if not with_target:
        return load(file)
    try:
        source = json.loads((run / "summary.json").read_text())["source"]
        model, data = Path(source["model"]), source["data"] and Path(source["data"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"`run` {run} has no readable summary.json to find its model by") from error
    float64 = load(file).dtype == "float64"
    jax.config.update("jax_enable_x64", float64)
    target: Target = from_file(model, data)
    return load(file, target)


def _write_npz(path: Path, draws: dict[str, np.ndarray]) -> None:
    np.savez(path, allow_pickle=False, **draws)


def _write_csv(path: Path, draws: dict[str, np.ndarray]) -> None:
    names, columns = [], []
    for name, values in draws.items():
        flat = values.reshape(len(values), -1)
        cells = [""] if values.ndim == 1 else [f"[{','.join(map(str, i))}]" for i in np.ndindex(values.shape[1:])]
        names += [f"{name}{c}" for c in cells]
        columns.append(flat)
    quoted = [f'"{n}"' if "," in n else n for n in names]
    table = np.concatenate(columns, axis=1)
    digits = "%.17g" if table.dtype == np.float64 else "%.9g"
    np.savetxt(path, table, delimiter=",", header=",".join(quoted), comments="", fmt=digits)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _print_summary(posterior: Posterior, summary: dict[str, Any], out: Path) -> None:
    console = Console(width=max(shutil.get_terminal_size().columns, 80), highlight=False)
    table = Table(title=f"Posterior of {posterior.name}", title_justify="left")
    table.add_column("parameter")
    heads = {"mean": "mean", "sd": "sd", "q05": "5 %", "q50": "50 %", "q95": "95 %", "mcse": "MCSE", "khat": "k-hat"}
    for head in heads.values():
        table.add_column(head, justify="right")
    rows = summary["parameters"]
    for row in rows[:_MOST_ROWS]:
        table.add_row(row["name"], *(_cell(row[k], ".2f" if k == "khat" else ".4g") for k in heads))
    if rows:
        console.print(table)
    if len(rows) > _MOST_ROWS:
        console.print(f"... and {len(rows) - _MOST_ROWS} more rows in {out / 'summary.json'}")
    if posterior.log_evidence is not None:
        console.print(f"log evidence  {posterior.log_evidence}   (ELBO {posterior.elbo})", markup=False)
    for k, mode in enumerate(posterior.modes[:_MOST_ROWS]):
        console.print(f"{'' if k else 'modes':14}{mode}", markup=False)
    colour = "green" if posterior.verdict.ok else "red"
    console.print("verdict      ", end="")
    console.print(str(posterior.verdict), style=colour, markup=False)
    tree = "" if posterior.log_evidence is None else " posterior.nc,"
    console.print(f"written to    {out}/: posterior.thalweg,{tree} report.html, summary.json", markup=False)


def _compile_fast() -> None:
    """XLA's second-highest effort takes a sixth less time, for programs as fast; and a later process skips its work."""
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=2")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or Path(base) / "thalweg" / "xla")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def main() -> None:
    """Run the command."""
    _compile_fast()
    try:
        status = app(prog_name="thalweg", standalone_mode=False)
    except Exception as error:
        in_words = getattr(error, "format_message", None)  # Typer's own errors: a wrong option or argument
        if in_words is None:
            raise
        words = " ".join(in_words().split()).rstrip(".")
        if words:  # without, the help has been printed
            sys.stderr.write(f"thalweg: {words}; see thalweg --help\n")
        status = BAD_INPUT
    _leave(status or 0)


def _leave(status: int) -> None:
    """End without waiting: a thread that still imports or compiles, for what nobody asks any more, may hang or abort.

    What there is to write has been written and closed by then.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(status)
