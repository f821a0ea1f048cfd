"""The page of a release: foreign words stay words, nothing runs or is loaded, every timing is drawn."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from packhouse.artifact import Outcome, Verdict
from packhouse.parity.latency import Timing
from packhouse.parity.preflight import Finding, Trap
from packhouse.report.html import html
from packhouse.report.model import Report, Row
from packhouse.spec.model import Format
from tests.packhouse.report.test_model import FULL, INT8, report, timing

PLANTED = "</svg></title></style><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
TIMINGS = tuple(
    timing(format, batch=batch, threads=threads)
    for format in (Format.ONNX, Format.ONNX_INT8)
    for batch in (1, 8)
    for threads in (1, 2)
)


class Tags(HTMLParser):
    """What a browser would see: tags that are opened and closed, attributes, and the words between them."""

    VOID = {"meta"}

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.attributes: set[str] = set()
        self.words = ""
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def everywhere(words: str) -> Report:
    """A report in which each text that may be foreign is `words`."""
    return report(
        source=words,
        processor=words,
        case=words,
        made_at=words,
        notes=(words,),
        lockdown=(words,),
        untimed=(words,),
        rows=(FULL, Row(format=Format.PROGRAM, outcome=Outcome.REFUSED, reason=words, how=words)),
        cuda=(Verdict(check=words, subject=words, outcome=Outcome.NOT_RUN, reason=words),),
        preflight=(Finding(trap=Trap.BRANCH, what=words, where=words, proof=words),),
        latency=TIMINGS,
    )


def test_foreign_words_bring_no_tag_and_no_attribute_into_the_page():
    plain, planted = Tags(html(everywhere("plain"))), Tags(html(everywhere(PLANTED)))
    assert planted.seen == plain.seen
    assert planted.attributes == plain.attributes
    assert planted.words.count("<script>alert(1)</script>") >= 10
    assert planted.open == []


def test_a_control_character_can_not_hide_what_follows():
    page = html(report(notes=("seen\x00\x1b[8m\u202eunseen",)))
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", page)


def test_nothing_runs_and_nothing_is_loaded():
    page = html(everywhere("x"))
    tags = Tags(page)
    assert not {"script", "img", "link", "iframe", "object", "image", "use", "a"} & set(tags.seen)
    assert not {name for name in tags.attributes if name.startswith("on") or name in ("src", "href", "style")}
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_every_timing_is_drawn_once_in_the_picture_of_its_threads():
    titles = {drawing.find("{*}title").text: drawing for drawing in pictures(html(report(latency=TIMINGS)))}
    assert list(titles) == ["Latency on 1 thread", "Latency on 2 threads", "Speed of INT8", "Size"]
    for title in ("Latency on 1 thread", "Latency on 2 threads"):
        assert len(titles[title].findall(".//{*}circle")) == 4
        texts = [text.text for text in titles[title].findall(".//{*}text")]
        assert [text for text in texts if text.startswith("batch")] == ["batch 1", "batch 8"]
    assert len(titles["Speed of INT8"].findall(".//{*}rect")) == 2


def test_whiskers_are_drawn_only_where_there_are_calls_enough():
    few = TIMINGS[0].model_copy(update={"p95_ms": None, "p99_ms": None})
    (drawing,) = pictures(html(report(latency=(few,), rows=())))
    assert not [line for line in drawing.findall(".//{*}line") if "c0" in line.get("class")]
    (drawing,) = pictures(html(report(latency=TIMINGS[:1], rows=())))
    assert len([line for line in drawing.findall(".//{*}line") if "c0" in line.get("class")]) == 3


@pytest.mark.parametrize("rows", [(), (FULL,), (INT8,)])
def test_a_report_without_latencies_has_a_page(rows):
    assert Tags(html(report(rows=rows))).open == []


def pictures(page: str) -> list[ElementTree.Element]:
    """The pictures are XML by themselves."""
    return [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def test_a_sample_without_a_batch_axis_is_named_so():
    alone = (timing(Format.ONNX, batch=None),)
    assert "one sample" in Tags(html(report(latency=alone))).words


def test_extremes_can_be_drawn():
    tiny = Timing(format=Format.ONNX, batch=1, threads=1, calls=1, p50_ms=0.0, items_per_s=0.0, busy=0.0)
    huge = tiny.model_copy(update={"format": Format.PROGRAM, "p50_ms": 1e7})
    assert len(pictures(html(report(latency=(tiny, huge))))) == 2
