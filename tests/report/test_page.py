"""The page as a browser and a reader meet it."""

import itertools
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from report_fakes import FakePosterior
from thalweg.posterior import Bound, Estimate
from thalweg.report import report
from thalweg.report._content import gather
from thalweg.report._figures import VARIABLES, draw_figures
from thalweg.report._page import render

VOID = {"meta", "link", "br", "use", "path", "circle", "i"}


class Page(HTMLParser):
    """Tags, attributes, headings and text; faults in nesting."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.headings, self.ids, self.open = [], [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [v for k, v in attrs if k == "id"]
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append([int(tag[1]), ""])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [v for k, v in attrs if k == "id"]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)
        if self.open and re.fullmatch(r"h[1-6]", self.open[-1]):
            self.headings[-1][1] += data.strip()

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))

    def sections(self):
        return [text for level, text in self.headings if level == 2]


def page_of(posterior):
    content = gather(posterior)
    html = render(content, draw_figures(content))
    return html, Page(html)


@pytest.fixture(scope="module")
def whole():
    return page_of(FakePosterior())


def test_writes_one_small_file(tmp_path):
    path = report(FakePosterior("bad", n_theta=200), tmp_path / "report.html")
    assert path == tmp_path / "report.html" and list(tmp_path.iterdir()) == [path]
    assert 1e5 < path.stat().st_size < 3e6


@pytest.mark.parametrize("spread", [0.02, 0.3, 1.0, 3.0])
def test_every_axis_has_numbers(spread):
    posterior = FakePosterior()
    posterior.log_weights = spread * np.random.default_rng(0).standard_normal(10_000)
    tail = draw_figures(gather(posterior)).tail
    assert tail is not None
    # the numbers of the axis across come before its label
    assert tail.svg[: tail.svg.index("weight / mean weight")].count("</text>") >= 2


def test_something_else_than_a_posterior(tmp_path):
    with pytest.raises(ValueError, match=r"`posterior` must be a Posterior, got a str; a file is read by thalweg.load"):
        report("runs/posterior.thalweg", tmp_path / "report.html")


def test_is_the_same_every_time(whole):
    assert page_of(FakePosterior())[0] == whole[0]


def test_nothing_comes_from_outside(whole):
    html, page = whole
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "img")
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:,")), (tag, attributes)
    assert "http:" not in html and "https:" not in html
    assert "@import" not in html and set(re.findall(r"url\((.)", html)) <= {"#"}


def test_is_well_formed_and_accessible(whole):
    html, page = whole
    assert page.open == [] and html.startswith("<!doctype html>")
    assert dict(page.tags)["html"] == {"lang": "en"} and "eight_schools: Trust it" in page.words
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert len(page.ids) == len(set(page.ids))
    pictures = [a for t, a in page.tags if t == "div" and a.get("role") == "img"]
    assert len(pictures) == sum(t == "figure" for t, _ in page.tags) == 12 + 8 + 3 + 2
    assert all(len(a["aria-label"]) > 10 for a in pictures)
    used = {a["href"][1:] for _, a in page.tags if a.get("href", "").startswith("#")} | set(
        re.findall(r"url\(#([^)]+)", html)
    )
    assert used <= set(page.ids)


def luminance(colour):
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("scheme", [0, 1])
def test_contrast(whole, scheme):
    block = re.findall(r":root \{(.*?)\}", whole[0], flags=re.DOTALL)[scheme]
    colours = dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", block))
    pairs = [(front, back) for front in ("--ink", "--muted", "--accent", "--raw") for back in ("--paper", "--card")]
    pairs[-2:] = [("--raw", "--paper")]
    pairs += [(f"--{g}", f"--{g}-tint") for g in ("good", "fair", "bad")] + [("--ink", "--bad-tint")]
    for front, back in pairs:
        light, dark = sorted([luminance(colours[front]), luminance(colours[back])], reverse=True)
        least = 3 if front == "--raw" else 4.5  # raw draws are graphics, not text
        assert (light + 0.05) / (dark + 0.05) >= least, (front, back)


def test_figures_carry_no_fixed_colour():
    figures = draw_figures(gather(FakePosterior()))
    for figure in [*figures.marginals, *figures.pairs, *figures.checks, figures.tail, figures.trace]:
        assert not re.search(r"(?<![\w\"(-])#[0-9a-f]{6}\b", figure.svg) and "var(--" in figure.svg
        assert not any(colour in figure.svg for colour in VARIABLES)
        assert "rgb(" not in figure.svg and "DejaVu" not in figure.svg and "xmlns" not in figure.svg


def test_the_verdict_comes_first():
    for kind, word in (("good", "Trust it"), ("fair", "Trust the corrected draws"), ("bad", "Do not trust it")):
        _, page = page_of(FakePosterior(kind, trace=False, predictive=False))
        assert page.sections()[0] == word
    assert "What to do" in page.words and "Check the parametrisation".lower() in page.words.lower()
    assert "not to be relied on" in page.words


def test_sections_of_a_whole_page(whole):
    assert whole[1].sections()[1:] == [
        *("Parameters", "Marginals", "Pairs", "Predictive check", "Importance weights", "The fit"),
        *("Settings", "Versions"),
    ]
    words = whole[1].words
    for expected in (
        "\N{MINUS SIGN}31.1532",
        "± 0.0041 nats",
        "8,123",
        "8.31 s",
        "realnvp",
        "a < b & c",
        "7 of 8 observations",
    ):
        assert expected in words, expected


def test_sections_without_target_trace_and_predictive():
    _, page = page_of(FakePosterior("fair", target=False, trace=False))
    assert page.sections()[1:] == [
        *("Parameters", "Marginals", "Pairs", "Importance weights", "The fit", "Left out", "Settings", "Versions")
    ]
    assert "not corrected" in page.words and "not known" in page.words
    assert "load the posterior with its target" in page.words and "give target=" in page.words


def test_long_tables_fold():
    assert "details" not in [t for t, _ in page_of(FakePosterior())[1].tags][:-8]
    html, page = page_of(FakePosterior(n_theta=40))
    assert "82 rows" in page.words and html.index("<details>") < html.index("<table>")


def test_names_are_escaped():
    html, page = page_of(FakePosterior(name="<script>alert(1)</script>", mu='<b>"&$x_1^'))
    assert "<b>" not in html and "script" not in [t for t, _ in page.tags]
    assert '<b>"&$x_1^' in page.words and "<script>alert(1)</script>" in page.words


@pytest.mark.parametrize(
    ("evidence", "shown"),
    [
        (Bound(-3.0, None), "≥ -3"),
        (Bound(np.float32(-3.0), np.array(-2.0)), "-3 to -2"),
        (Estimate(2.0, 0.0), "2.000"),
        (Estimate(-np.inf, np.nan), "\N{MINUS SIGN}∞"),
        (None, "not known"),
    ],
)
def test_evidence_in_all_its_forms(evidence, shown):
    posterior = FakePosterior(trace=True, predictive=False)
    posterior.log_evidence = evidence
    assert shown in page_of(posterior)[1].words


def test_importing_the_package_brings_no_guest():
    guests = {"matplotlib", "jinja2", "arviz_base", "xarray", "blackjax", "scipy", "numpyro"}
    code = f"import sys, thalweg, thalweg.report; sys.exit(', '.join({guests} & set(sys.modules)) or None)"
    assert (
        subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": "src", "PATH": ""}, check=False).returncode == 0
    )
