"""`python -m papers NAME [--scale smoke|laptop|paper] [--resume]`: a paper's tables and figures, run again.

rezende-mohamed   Rezende and Mohamed 2015: maps of two bases, four energies in the plane, what a log-determinant costs
kingma            Kingma et al. 2016: what draws and densities cost by flow and d; fits by either divergence
caterini          Caterini et al. 2021: lattices of modes, and densities with holes, by continuously-indexed flows

smoke   seconds: whether all of it runs; written to `.papers`, never shown
laptop  minutes a cell on two cores
paper   the paper's own size

Every cell is kept as soon as it is done. `--resume` goes on from what is there at this scale; without it all is run
anew. The JSON goes to `papers/results`, figures to `papers/figures`, and `papers/README.md` is made from them;
`python -m papers README` makes it again.
"""

import argparse

from papers import caterini, kingma, rezende_mohamed
from papers._harness import SCALES, run, write_readme

PAPERS = {p.name: p for p in (rezende_mohamed.PAPER, kingma.PAPER, caterini.PAPER)}


def main() -> None:
    """Run one, or make the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[*PAPERS, "README"], metavar="NAME")
    parser.add_argument("--scale", choices=SCALES, default="laptop")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="PART", help="cells whose name begins with one of these"
    )
    asked = parser.parse_args()
    if asked.name != "README":
        run(PAPERS[asked.name], asked.scale, resume=asked.resume, only=tuple(asked.only))
    if asked.name == "README" or asked.scale != "smoke":
        write_readme(PAPERS.values())


if __name__ == "__main__":
    main()
