"""`python -m benchmarks [step|cold|compile ...]`: each in a process of its own, results in benchmarks/results."""

import subprocess
import sys

NAMES = ("step", "cold", "compile")

if __name__ == "__main__":
    chosen = sys.argv[1:] or NAMES
    unknown = [n for n in chosen if n not in NAMES]
    if unknown:
        raise SystemExit(f"benchmarks: `name` must be one of {', '.join(NAMES)}, got {', '.join(unknown)}")
    for name in chosen:
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
