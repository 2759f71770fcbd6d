import pytest

from hybrid_cascade.predict.shards import Shards


def records(*orders):
    return [{"order": list(order), "name": str(order)} for order in orders]


def test_records_of_complete_jobs_come_in_order_from_all_shards(tmp_path):
    one, two = Shards(tmp_path, {}), Shards(tmp_path, {})
    one.append(2, records((4, 0), (5, 0)))
    two.append(0, records((0, 0), (1, 0)))
    one.append(1, records((2, 1), (2, 0)))
    assert one.completed() == two.completed() == {0, 1, 2}
    assert [r["order"] for r in two.read(two.places())] == [
        [0, 0],
        [1, 0],
        [2, 0],
        [2, 1],
        [4, 0],
        [5, 0],
    ]


def test_what_an_interruption_left_is_done_again(tmp_path):
    killed = Shards(tmp_path, {})
    killed.append(0, records((0, 0)))

    def until_killed():
        yield from records((1, 0))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed.append(1, until_killed())
    [path] = tmp_path.glob("*.jsonl")
    with path.open("a") as file:
        file.write('{"job": 1, "order": [2, 0], "na')  # cut off
    again = Shards(tmp_path, {})
    assert again.completed() == {0}
    again.append(1, records((1, 0), (2, 0)))
    assert [r["order"] for r in again.read(again.places())] == [[0, 0], [1, 0], [2, 0]]


def test_a_job_that_two_processes_did_counts_once(tmp_path):
    for _ in range(2):
        Shards(tmp_path, {}).append(0, records((0, 0), (1, 0)))
    assert len(Shards(tmp_path, {}).places()) == 2


def test_a_job_without_records_is_complete(tmp_path):
    shards = Shards(tmp_path, {})
    shards.append(3, [])
    assert shards.completed() == {3} and shards.places() == []


def test_results_of_another_run_are_refused(tmp_path):
    Shards(tmp_path, {"weights": "a.pth", "classes": None})
    Shards(tmp_path, {"weights": "a.pth", "classes": None})
    with pytest.raises(ValueError, match="differs in weights"):
        Shards(tmp_path, {"weights": "b.pth", "classes": None})
