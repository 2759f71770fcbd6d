import json
from pathlib import Path

from hybrid_cascade.commands import prepare_sbd
from tests.data.datasets.sbd_folder import TRAIN, VAL, write_sbd


def test_both_splits_are_written_from_the_given_list(tmp_path):
    write_sbd(tmp_path)
    (tmp_path / "train_noval.txt").rename(tmp_path / "list.txt")
    assert prepare_sbd.main([str(tmp_path), "--train-list", str(tmp_path / "list.txt")]) == 0
    for split, names in (("train", TRAIN), ("val", VAL)):
        content = json.loads((tmp_path / "annotations" / f"sbd_{split}.json").read_text())
        assert sorted(Path(image["file_name"]).stem for image in content["images"]) == sorted(names)


def test_a_missing_list_is_named_with_its_source(tmp_path, capsys):
    write_sbd(tmp_path)
    (tmp_path / "train_noval.txt").unlink()
    assert prepare_sbd.main([str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "train_noval.txt' does not exist" in message and "--train-list" in message
