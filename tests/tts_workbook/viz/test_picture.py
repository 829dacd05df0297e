"""Pictures show themselves in a real kernel and leave nothing behind."""

import gc
import re
import subprocess
import sys
import weakref

import matplotlib
import nbformat
import numpy as np
import pytest
from matplotlib.text import Text
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from tts_workbook.viz import plot_baselines, plot_mels

CELLS = [
    (
        "from tts_workbook.viz import plot_baselines, play, show\n"
        "picture = plot_baselines({'zeros': 5.3, 'best constant': 1.3})\npicture"
    ),
    "show(picture, picture)",
    "import numpy as np\nplay(0.1 * np.ones(800), 8000, 'a <b> tone')",
    "import sys\nprint('matplotlib.pyplot' in sys.modules)",
]


@pytest.fixture(scope="module")
def executed():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    return notebook


def test_a_kernel_displays_a_picture_once_as_png_and_show_displays_each(executed):
    last_expression, shown = executed.cells[0].outputs, executed.cells[1].outputs
    assert [output.output_type for output in last_expression] == ["execute_result"]
    assert "image/png" in last_expression[0].data
    assert ["image/png" in output.data for output in shown] == [True, True]


def test_a_static_export_holds_image_and_audio_as_data(executed):
    page, _ = HTMLExporter().from_notebook_node(executed)
    assert len(re.findall(r'<img [^>]*src="data:image/png;base64,', page)) == 3
    assert page.count('src="data:audio/flac;base64,') == 1
    assert 'aria-label="a &lt;b&gt; tone"' in page and "a <b> tone" not in page


def test_drawing_never_imports_pyplot(executed):
    assert executed.cells[3].outputs[0].text.strip() == "False"


def test_importing_the_package_does_not_import_matplotlib():
    code = (
        "import tts_workbook.viz, sys; assert 'matplotlib' not in sys.modules; "
        "assert 'plot_clip' in dir(tts_workbook.viz)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pictures_are_collected_and_settings_are_left_alone():
    before = dict(matplotlib.rcParams)
    picture = plot_baselines({"zeros": 5.3})
    picture.png()
    gone = weakref.ref(picture)
    del picture
    gc.collect()
    assert gone() is None
    assert dict(matplotlib.rcParams) == before


def test_the_callers_settings_do_not_leak_in():
    mel = np.linspace(-11, 1, 80).reshape(10, 8)
    mine = plot_mels({"recording": mel}, 0.01).png()
    changed = {
        "axes.facecolor": "black",
        "font.size": 30,
        "xtick.labelsize": 25,
        "axes.unicode_minus": False,
    }
    with matplotlib.rc_context(changed):
        assert plot_mels({"recording": mel}, 0.01).png() == mine


def test_a_png_of_a_noisy_mel_is_900_pixels_wide_and_small():
    mel = np.random.default_rng(0).normal(-5, 2, (284, 80))
    png = plot_mels({"recording": mel}, 256 / 22050).png()
    assert int.from_bytes(png[16:20], "big") == 902 and len(png) < 150_000


def test_titles_are_text_not_markup_and_are_bounded():
    picture = plot_mels(
        {"costs $5 and $x_1$": np.zeros((20, 8))}, 0.01, title="costs $5 and $x_1$ " * 60
    )
    title = next(text for text in picture.texts if text.get_text().startswith("costs $5 and $x_1$"))
    assert title.get_text().endswith("…") and title.get_text().count("\n") == 2
    assert [text.get_parse_math() for text in picture.findobj(Text) if "$" in text.get_text()] == [
        False,
        False,
    ]


@pytest.mark.parametrize("title", ["one line", "word " * 40, "WORD " * 40])
def test_a_title_has_room_of_its_own(title):
    picture = plot_mels({"recording": np.zeros((20, 8))}, 0.01, title=title)
    picture.canvas.draw()
    box = picture.texts[0].get_window_extent()
    assert picture.axes[0].get_tightbbox().y1 <= box.y0
    assert box.y1 <= picture.bbox.y1
    assert box.x1 <= picture.bbox.x1


def test_the_banner_on_top_of_any_png_leaves_the_picture_below_as_it_was():
    import io

    import numpy as np
    from PIL import Image

    from tts_workbook.viz.picture import BANNER_HEIGHT, new_picture, with_banner
    from tts_workbook.viz.style import DPI

    drawn = new_picture(1.0, "plain")
    plain = Image.open(io.BytesIO(drawn.png())).convert("RGB")
    warned = Image.open(io.BytesIO(with_banner(drawn.png()))).convert("RGB")
    strip = warned.height - plain.height
    assert warned.width == plain.width and abs(strip - BANNER_HEIGHT * DPI) <= 1
    red, green, blue = warned.getpixel((3, strip // 2))
    assert red > 150 and green < 60 and blue < 80
    below = np.asarray(warned.crop((0, strip, *warned.size)), dtype=int)
    # another palette of 256 colours, no more
    assert np.abs(below - np.asarray(plain, dtype=int)).max() <= 8
    assert not drawn.has_banner and new_picture(1.0, alignment="uniform").has_banner
