import pytest
import torch

from hybrid_cascade.converters.weight_values import find_fault

ONES = torch.ones(4)


@pytest.mark.parametrize("tensor", [ONES, ONES.half(), ONES.bfloat16(), ONES.double()])
def test_finite_numbers_of_any_precision_have_no_fault(tensor):
    assert find_fault("a.weight", tensor) == find_fault("a.weight", tensor, ONES) == ""


@pytest.mark.parametrize(
    ("name", "tensor", "like", "fault"),
    [
        ("w", torch.tensor([1, float("nan"), 2]), None, "w is NaN at 1 of 3 places"),
        ("w", torch.tensor([1, float("-inf")]), None, "w is infinite at 1 of 2 places"),
        ("w", ONES.double() * 1e300, ONES, "w is infinite at 4 of 4 places"),
        ("a.weight", ONES.int(), None, "a.weight has values of torch.int32, not floating-point"),
        ("index", ONES, ONES.long(), "index has values of torch.float32, not integers"),
        ("w", ONES + 1j, None, "w has values of torch.complex64"),
        ("w", ONES.to_sparse(), ONES, "w is sparse"),
        ("n.running_var", -ONES, ONES, "n.running_var has negative variances, -1"),
    ],
)
def test_a_fault_is_described(name, tensor, like, fault):
    assert find_fault(name, tensor, like).startswith(fault)


def test_integers_have_no_fault_where_the_model_may_have_them():
    assert find_fault("relative_position_index", ONES.long()) == ""
    assert find_fault("relative_position_index", ONES.long(), ONES.long()) == ""
