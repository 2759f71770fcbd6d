import pytest

from hybrid_cascade.report import Results, build_report, write_report

from .random_results import random_results
from .read_page import Page

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    '"><svg/onload=alert(2)>',
    "<!--<script>",
    "$style ${data} & \u2028 日本語",
)


def test_the_data_in_the_page_are_the_contents(tmp_path):
    contents = build_report(Results.from_coco(*random_results()), title="plants")
    write_report(tmp_path / "report.html", contents)
    page = Page(tmp_path / "report.html")
    assert page.data == contents
    assert page.texts["title"].strip() == "plants"


def test_the_page_needs_nothing_from_elsewhere(tmp_path):
    write_report(tmp_path / "report.html", build_report(Results.from_coco(*random_results())))
    page = Page(tmp_path / "report.html")
    assert not {"link", "iframe", "img"} & {tag for tag, _ in page.elements}
    assert not any({"src", "href"} & attributes.keys() for _, attributes in page.elements)
    assert "url(" not in page.texts["style"] and "@import" not in page.texts["style"]
    # The name of SVG's elements is no address.
    script = page.texts["script"].replace("http://www.w3.org/2000/svg", "")
    assert not any(word in script for word in ("http", "fetch(", "import(", "innerHTML"))
    [policy] = [a["content"] for tag, a in page.elements if "http-equiv" in a]
    assert "default-src 'none'" in policy


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_texts_whatever_characters_they_have(tmp_path, name):
    dataset, detections = random_results(names=(name, "b"))
    for image in dataset["images"]:
        image["file_name"] = name
    contents = build_report(
        Results.from_coco(dataset, detections), title=name, config=name, sources={name: name}
    )
    plain = build_report(Results.from_coco(*random_results()), title="plain")
    for file, values in (("hostile.html", contents), ("plain.html", plain)):
        write_report(tmp_path / file, values)
    hostile, expected = Page(tmp_path / "hostile.html"), Page(tmp_path / "plain.html")
    assert hostile.elements == expected.elements
    assert hostile.data == contents
    assert not set("<>&") & set(hostile.texts["data"])
    assert hostile.data["names"] == [name, "b"]
    assert hostile.texts["title"].rstrip("\n") == name
    assert hostile.texts["script"] == expected.texts["script"]
