import pytest

from hybrid_cascade.data import DatasetError
from hybrid_cascade.data.conversion import read_voc_xml, to_coco


def xml(*objects, filename="a.jpg", size="<size><width>40</width><height>30</height></size>"):
    texts = [f"<object><name>{name}</name>{box}</object>" for name, box in objects]
    return f"<annotation><filename>{filename}</filename>{size}{''.join(texts)}</annotation>"


def box(*corners):
    keys = ("xmin", "ymin", "xmax", "ymax")
    pairs = zip(keys, corners, strict=True)
    return "<bndbox>" + "".join(f"<{k}>{v}</{k}>" for k, v in pairs) + "</bndbox>"


@pytest.fixture
def read(tmp_path, make_images):
    def read(text, images=("a.jpg",)):
        root = make_images(*images)
        (tmp_path / "xml").mkdir(exist_ok=True)
        (tmp_path / "xml" / "a.xml").write_text(text)
        return list(read_voc_xml(tmp_path / "xml", root))

    return read


def test_pixels_count_from_one_and_the_last_belongs_to_the_box(read):
    parts = f"<part><name>handle</name>{box(1, 1, 3, 3)}</part>"
    [image] = read(xml(("cup", box(1, 1, 40, 30) + parts), ("fork", box("3.5", 4, 10, 12))))
    assert (image.file_name, image.width, image.height) == ("a.jpg", 40, 30)
    content = to_coco([image])
    assert [x["bbox"] for x in content["annotations"]] == [[0, 0, 40, 30], [2.5, 3, 7.5, 9]]
    assert [x["name"] for x in content["categories"]] == ["cup", "fork"]
    assert "segmentation" not in content["annotations"][0]


@pytest.mark.parametrize("filename", ["a.jpg", "", "other.png", "/home/me/a.jpg", "../../a.jpg"])
def test_the_image_is_found_by_its_name_or_that_of_its_file(read, filename):
    [image] = read(xml(filename=filename))
    assert image.file_name == "a.jpg"


def test_a_box_from_0_is_kept_in_the_image_and_a_size_of_0_is_not_known(read):
    size = "<size><width>0</width><height>0</height></size>"
    [image] = read(xml(("cup", box(0, 0, 9, 9)), size=size))
    assert image.instances[0].box == [0, 0, 9, 9]


@pytest.mark.parametrize(
    "text, reason",
    [
        (xml(("cup", box(5, 5, 4, 9))), "object 0 has the `bndbox` .*no area"),
        (xml(("cup", box("x", 5, 8, 9))), "object 0 has `bndbox/xmin` 'x'"),
        (xml(("cup", box("inf", 5, 8, 9))), "object 0 has `bndbox/xmin` 'inf'"),
        (xml(("cup", "")), "object 0 has `bndbox/xmin` None"),
        (xml(("", box(1, 2, 3, 4))), "object 0 has no `name`"),
        (xml(size="<size><width>41</width><height>30</height></size>"), "`size`.*41x30, but"),
        (xml(size="<size><width>?</width></size>"), r"has `size/width` '\?'"),
        ("<annotation>", "can't be read as XML"),
        ("<svg></svg>", "no annotation of VOC: it has <svg>"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', "has a DOCTYPE"),
        ('<?xml version="1.0" encoding="nowhere"?><annotation/>', "can't be read as XML"),
        ("", "can't be read as XML"),
    ],
)
def test_what_is_broken_is_named_by_file_and_key(read, text, reason):
    with pytest.raises(DatasetError, match=f"a.xml'.*{reason}"):
        read(text)


def test_a_doctype_is_found_in_utf_16_too(tmp_path, make_images):
    text = '<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>'
    (tmp_path / "a.xml").write_bytes(text.encode("utf-16"))
    with pytest.raises(DatasetError, match="has a DOCTYPE"):
        list(read_voc_xml(tmp_path, make_images("a.jpg")))


def test_an_annotation_without_an_image_is_named(read):
    with pytest.raises(DatasetError, match="a.xml'.*names an image that is not there"):
        read(xml(), images=("b.jpg",))
