from itertools import islice

from hybrid_cascade.engine.sampler import ResumableTrainingSampler


def test_it_continues_where_a_run_has_stopped():
    whole = list(islice(ResumableTrainingSampler(7, seed=3), 20))
    resumed = ResumableTrainingSampler(7, seed=3)
    resumed.first = 9
    assert list(islice(resumed, 11)) == whole[9:]
    assert sorted(whole[:7]) == list(range(7))
