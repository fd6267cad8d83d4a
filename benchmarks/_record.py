"""What every result carries: commit, machine, versions; and how rounds are summed up."""

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
TRIED = Path(__file__).parents[1] / ".benchmarks"
"""Where a quick run writes; git passes over it."""

_LOAD = os.getloadavg()[0]
"""Of the last minute: much above 0 says that other jobs ran beside, and that the figures are not worth quoting."""


def data_folder() -> Path:
    """Where the real data are: $THALWEG_DATA."""
    folder = Path(os.environ.get("THALWEG_DATA", ""))
    if not all((folder / name).is_dir() for name in ("posteriordb", "uci", "inference_gym")):
        got = os.environ.get("THALWEG_DATA") or "nothing"
        raise SystemExit(
            f"benchmarks: THALWEG_DATA must be the folder of posteriordb, uci and inference_gym, got {got}; set it"
        )
    return folder


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, cwd=TRIED.parent, check=False).stdout.strip()


def commit() -> str:
    """The commit that is measured."""
    return _git("rev-parse", "HEAD")


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def origin_of(packages: Iterable[str], load: float = _LOAD) -> dict[str, Any]:
    """Commit, machine and versions; `load` is what ran beside when it began."""
    return {
        "commit": commit(),
        "clean": not _git(
            "status", "--porcelain", "--", "src", "benchmarks", "examples", "papers/*.py", ":!benchmarks/results"
        ),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "load when it began": load,
        },
        "versions": {p: importlib.metadata.version(p) for p in packages},
    }


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(name: str, packages: list[str], result: dict[str, Any], *, quick: bool = False) -> Path:
    """One JSON file with the result, printed too; a quick one never stands in for a measured one."""
    folder = TRIED if quick else RESULTS
    record = {"name": name, **origin_of(packages), **result}
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return path
