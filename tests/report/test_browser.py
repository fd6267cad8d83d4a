"""The page in a real browser, at a phone's width and a desk's."""

import functools
import http.server
import json
import re
import shutil
import subprocess
import threading
from typing import ClassVar

import pytest

from report_fakes import FakePosterior
from thalweg.report import report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=2000"),
)
MEASURE = """
<script>
window.addEventListener("load", () => {
  const root = document.documentElement;
  const wide = [...document.querySelectorAll("body *")].filter(
    (e) => !e.closest(".scroll, svg") && e.getBoundingClientRect().right > innerWidth + 0.5).map((e) => e.tagName);
  const fetched = performance.getEntriesByType("resource").map((r) => r.name);
  parent.document.body.dataset.measured = JSON.stringify(
    {scroll: root.scrollWidth, inner: innerWidth, wide, fetched,
     table: document.querySelector(".scroll").scrollWidth, text: getComputedStyle(document.body).color});
});
</script>
"""


@pytest.fixture
def measure(tmp_path):
    """Measure a page of a given width, in a frame: a browser's own window is never as narrow as a phone."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        asked: ClassVar[list[str]] = []

        def log_message(self, *args):
            self.asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def run(posterior, width, *flags):
        path = report(posterior, tmp_path / "report.html")
        path.write_text(path.read_text().replace("</body>", f"{MEASURE}</body>"))
        style = f"border:0;width:{width}px;height:800px"
        frame = f'<link rel="icon" href="data:,"><body><iframe src="report.html" style="{style}">'
        (tmp_path / "frame.html").write_text(frame)
        Quiet.asked.clear()
        command = [CHROMIUM, *FLAGS, *flags, "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"]
        address = f"http://127.0.0.1:{server.server_port}/frame.html"
        done = subprocess.run(
            [*command, "--dump-dom", address], capture_output=True, text=True, timeout=120, check=True
        )
        found = re.search(r'data-measured="([^"]*)"', done.stdout)
        assert found, done.stderr
        assert ":CONSOLE" not in done.stderr
        assert set(Quiet.asked) == {"/frame.html", "/report.html"}
        return json.loads(found[1].replace("&quot;", '"'))

    yield run
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_fits_a_phone_without_network_or_errors(measure):
    found = measure(FakePosterior("bad", name="a_long_model_name" * 4, mu="a_long_parameter_name" * 4), 390)
    assert found["inner"] == 390 and found["scroll"] <= 390 and found["wide"] == [] and found["fetched"] == []
    assert found["table"] > 390  # it does scroll, in its own box


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_follows_the_dark_scheme_on_a_desk(measure):
    found = measure(FakePosterior("fair", target=False), 1200, "--blink-settings=preferredColorScheme=0")
    assert found["scroll"] <= 1200 and found["wide"] == []
    assert found["text"] == "rgb(231, 234, 236)"
