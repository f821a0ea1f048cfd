"""The judge: a healthy format always passes, a wrong one never does, and nothing compared is nothing proven."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from packhouse.formats.arrays import Outputs
from packhouse.parity.int8_quality import Quality, Tally, sqnr_db
from packhouse.parity.judge import Absolute, Case, Int8Gate, Ratio, judge, judge_int8, judge_sqnr

F32 = np.float32
X = np.zeros((2, 1), F32)


def case(name: str = "a", *, real: bool = True, exact: dict | None = None, **expected: np.ndarray) -> Case:
    return Case(name, {"x": X}, expected, exact, real)


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(F32)


def with_truth(name: str = "a", seed: int = 0, *, real: bool = True, size: float = 1.0, own: float = 1e-7) -> Case:
    """fp32 values and the float64 ones that they were rounded from, a little worse than rounding alone."""
    truth = np.random.default_rng(seed).normal(size=(3, 4)) * size
    rough = truth * (1 + own * np.random.default_rng(seed + 1).normal(size=truth.shape))
    return case(name, real=real, exact={"y": truth}, y=rough.astype(F32))


# Form


FORMS = {
    "another name": ({"z": values(2, 3)}, "outputs are 'z', the model has 'y'"),
    "one too many": ({"y": values(2, 3), "z": values(1)}, "outputs are 'y', 'z', the model has 'y'"),
    "none": ({}, "outputs are none, the model has 'y'"),
    "another dtype": ({"y": values(2, 3).astype(np.float64)}, "output 'y' is float64, the model gives float32"),
    "another shape": ({"y": values(3, 2)}, "output 'y' has shape (3, 2), the model gives (2, 3)"),
    "a shape that broadcasts": ({"y": values(2, 3)[None]}, "has shape (1, 2, 3), the model gives (2, 3)"),
    "one value for all": ({"y": values(1, 1)}, "has shape (1, 1), the model gives (2, 3)"),
    "nothing": ({"y": values(0, 3)}, "has shape (0, 3), the model gives (2, 3)"),
    "one NaN": ({"y": np.where(np.arange(6).reshape(2, 3) == 4, np.nan, values(2, 3)).astype(F32)}, "1 of 6 values"),
    "infinity": ({"y": np.full((2, 3), -np.inf, F32)}, "has 6 of 6 values that are NaN or infinite"),
}


@pytest.mark.parametrize("answer, reason", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("tolerance", [Ratio(), Ratio(1e6, 1e6), Absolute(1.0, 1.0)], ids=["ratio", "lax", "absolute"])
def test_another_form_is_refused_whatever_the_tolerance(answer, reason, tolerance):
    cases = [case("fine", y=values(2, 3)), case("odd", y=values(2, 3))]
    refusal = judge(cases, [{"y": values(2, 3)}, answer], tolerance).refusal
    assert refusal.startswith("case 'odd': ")
    assert reason in refusal
    gate = Int8Gate(1.0, 0.0, 0.0)
    assert judge_int8(cases, [{"y": values(2, 3)}, answer], Quality(99, 1, 1, 1), gate).refusal == refusal
    assert judge_sqnr(cases, [{"y": values(2, 3)}, answer], 0.0).refusal == refusal


def test_outputs_in_another_order_are_refused():
    one = case(a=values(2, 3), b=values(2, 3))
    answer = {"b": values(2, 3), "a": values(2, 3)}
    assert judge([one], [answer], Ratio()).refusal == "case 'a': outputs are 'b', 'a', the model has 'a', 'b' (PH-0621)"


def test_two_empty_arrays_are_no_proof():
    empty = np.empty((0, 4), F32)
    assert np.allclose(empty, empty)
    for tolerance in (Ratio(), Absolute(1, 1)):
        found = judge([case(y=empty, exact={"y": empty.astype(float)})], [{"y": empty}], tolerance)
        assert found.refusal == "output 'y' is empty in every case: there is nothing to compare (PH-0620)"
    assert "nothing to compare" in judge_sqnr([case(y=empty)], [{"y": empty}], 0.0).refusal
    assert "nothing to compare" in judge_int8([case(y=empty)], [{"y": empty}], Quality(99, 1, 1, 1), GATE).refusal


def test_an_output_may_be_empty_in_one_case_and_is_then_judged_by_the_others():
    empty = np.empty((0, 4), F32)
    nothing = case("no boxes", y=empty, exact={"y": empty.astype(float)})
    cases = [nothing, nothing, nothing, with_truth("boxes", own=1e-6)]
    assert judge(cases, [c.expected for c in cases], Ratio()).refusal == ""
    lucky = with_truth("lucky", 7)
    lucky = replace(lucky, exact={"y": lucky.expected["y"].astype(np.float64)})
    with_luck = [*cases, with_truth("more", 2, own=1e-6), lucky]
    rounded = [{"y": (c.expected["y"] * (1 + F32(1e-6))).astype(F32)} for c in with_luck]
    assert judge(with_luck, rounded, Ratio()).refusal == ""
    wrong = [empty, empty, empty, cases[3].expected["y"] * F32(1.001)]
    assert "case 'boxes'" in judge(cases, [{"y": y} for y in wrong], Ratio()).refusal


def test_a_model_without_outputs_is_no_proof():
    assert "no outputs" in judge([case()], [{}], Ratio()).refusal


@pytest.mark.parametrize("count", [0, 1, 3])
def test_every_case_needs_its_answer(count):
    one = case(y=values(2, 3))
    cases = [] if count == 0 else [one, one]
    for ask in (
        lambda: judge(cases, [one.expected] * count, Ratio()),
        lambda: judge_sqnr(cases, [one.expected] * count, 0.0),
        lambda: judge_int8(cases, [one.expected] * count, Quality(99, 1, 1, 1), GATE),
    ):
        with pytest.raises(ValueError, match="the judge needs as many"):
            ask()


def test_a_reference_that_is_not_finite_proves_nothing():
    for broken in (np.nan, np.inf):
        spoiled = np.array([[1.0, broken]])
        finite = np.array([[1.0, 2.0]])
        for expected, exact in ((spoiled, finite), (finite, spoiled), (spoiled, spoiled)):
            one = case(y=expected.astype(F32), exact={"y": exact})
            assert judge([one, with_truth()], [{"y": finite.astype(F32)}, with_truth().expected], Ratio()).refusal
        one = case(y=spoiled.astype(F32))
        assert judge([one], [{"y": finite.astype(F32)}], Ratio()).refusal
        assert judge([one], [{"y": finite.astype(F32)}], Absolute(1, 0)).refusal


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int8, np.uint8, np.bool_])
@pytest.mark.parametrize("tolerance", [Ratio(1e6, 1e6), Absolute(1.0, 1.0)])
def test_integers_and_booleans_are_compared_exactly(dtype, tolerance):
    one = case("a", y=np.array([[0, 1], [1, 1]], dtype))
    assert judge([one], [one.expected], tolerance).refusal == ""
    other = np.array([[0, 1], [1, 0]], dtype)
    refusal = judge([one], [{"y": other}], tolerance).refusal
    assert refusal == "case 'a': output 'y' differs in 1 of 4 values (PH-0625)"


# Distance


finite = arrays.arrays(F32, (2, 3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


@given(st.lists(finite, min_size=1, max_size=4), st.booleans())
@settings(deadline=None)
def test_the_model_s_own_answers_pass(expected, double):
    cases = [case(str(n), y=y, exact={"y": y.astype(np.float64) * (1 + 1e-9)} if double else None)
             for n, y in enumerate(expected)]  # fmt: skip
    assert judge(cases, [c.expected for c in cases], Ratio()).refusal == ""
    assert judge(cases, [c.expected for c in cases], Absolute(0, 0)).refusal == ""
    assert judge_sqnr(cases, [c.expected for c in cases], 200.0).refusal == ""


@pytest.mark.parametrize("tolerance", [Ratio(), Ratio(1e6, 1e6)])
def test_an_error_of_the_size_of_the_values_is_refused_in_any_one_element(tolerance):
    cases = [with_truth(str(n), n) for n in range(3)]
    for position in range(12):
        answers = [dict(c.expected) for c in cases]
        answers[1]["y"] = answers[1]["y"].copy()
        answers[1]["y"].flat[position] += 3.0
        assert "case '1': output 'y' is off by 3" in judge(cases, answers, tolerance).refusal


def test_one_lucky_case_does_not_refuse_a_healthy_format():
    """Where the model hit the float64 value to the bit by luck, there is no error of its own to measure by."""
    lucky = with_truth("lucky", 7)
    lucky = replace(lucky, exact={"y": lucky.expected["y"].astype(np.float64)})
    cases = [with_truth(str(n), n) for n in range(4)] + [lucky]
    answers = [{"y": (c.expected["y"] * (1 + F32(1.2e-7))).astype(F32)} for c in cases]
    assert judge(cases, answers, Ratio()).refusal == ""


def test_zeros_that_are_not_quite_zero_pass_and_zeros_that_are_wrong_do_not():
    quiet = case("zeros", y=np.zeros((3, 4), F32), exact={"y": np.zeros((3, 4))}, real=False)
    cases = [with_truth("a", 1), with_truth("b", 2), quiet]
    rounded = [cases[0].expected, cases[1].expected, {"y": np.full((3, 4), 1e-11, F32)}]
    assert judge(cases, rounded, Ratio()).refusal == ""
    wrong = [cases[0].expected, cases[1].expected, {"y": np.full((3, 4), 1e-6, F32)}]
    assert "case 'zeros'" in judge(cases, wrong, Ratio()).refusal
    assert "case 'zeros'" in judge([replace(c, exact=None) for c in cases], wrong, Ratio()).refusal


def test_a_model_that_only_gives_zeros_can_be_judged():
    quiet = case("zeros", y=np.zeros((3, 4), F32), exact={"y": np.zeros((3, 4))})
    assert judge([quiet], [quiet.expected], Ratio()).refusal == ""
    assert judge([quiet], [{"y": np.full((3, 4), 1e-6, F32)}], Ratio()).refusal


def test_a_probe_with_huge_answers_does_not_make_the_others_look_like_nothing():
    """Inputs times 100 through an exponential: the answers of the real cases are still held to their own size."""
    huge = with_truth("large", 5, real=False, size=1e20)
    cases = [with_truth("a", 1), with_truth("b", 2), huge]
    for exact in (True, False):
        asked = cases if exact else [replace(c, exact=None) for c in cases]
        answers = [dict(c.expected) for c in asked]
        assert judge(asked, answers, Ratio()).refusal == ""
        answers[0] = {"y": answers[0]["y"] + F32(0.5)}
        assert "case 'a'" in judge(asked, answers, Ratio()).refusal


@pytest.mark.parametrize("dtype, off", [(np.float16, 5e-3), (F32, 5e-6), (np.float64, 1e-14)])
def test_without_a_float64_run_the_error_is_held_to_the_size_of_the_output(dtype, off):
    one = case(y=np.array([[1.0, -4.0], [0.001, 2.0]], dtype))
    near = {"y": (one.expected["y"].astype(np.float64) + 4 * off).astype(dtype)}
    far = {"y": (one.expected["y"].astype(np.float64) + 4 * 20 * off).astype(dtype)}
    assert judge([one], [near], Ratio()).refusal == ""
    assert "4 of 4 values are outside" in judge([one], [far], Ratio()).refusal


def test_absolute_tolerance_holds_each_element_by_itself():
    one = case(y=np.array([100.0, 1.0], F32))
    assert judge([one], [{"y": np.array([100.05, 1.0], F32)}], Absolute(atol=0.01, rtol=0.001)).refusal == ""
    refusal = judge([one], [{"y": np.array([100.0, 1.0125], F32)}], Absolute(atol=0.01, rtol=0.001)).refusal
    assert (
        refusal
        == "case 'a': output 'y' is off by 0.0125, allowed: 0.01 + 0.001|y|; 1 of 2 values are outside (PH-0627)"
    )


def test_a_refusal_says_which_case_and_output_by_how_much_and_what_is_allowed():
    one = with_truth("batch 3")
    refusal = judge([one], [{"y": one.expected["y"] * F32(1.01)}], Ratio()).refusal
    assert refusal.startswith("case 'batch 3': output 'y' is off by ")
    assert "times the rounding of fp32 (allowed: 8; root mean square " in refusal
    assert "\n" not in refusal


# Real models: what a healthy runtime may do differently, and what a broken exporter does


class Block(nn.Module):
    """(batch, 16) to (batch, 4): normalisation and GELU between dense layers, as in a transformer."""

    def __init__(self, eps: float = 1e-12, approximate: str = "none") -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(16, 64), nn.Linear(64, 64), nn.Linear(64, 4)
        self.norm, self.act = nn.LayerNorm(64, eps=eps), nn.GELU(approximate=approximate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.norm(self.first(x)))
        return self.last(self.norm(x + self.act(self.second(x))))


class Picture(nn.Module):
    """The same input as a picture of 4 by 4: convolution, batch norm, pooling."""

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8, eps=eps), nn.Linear(8, 4)
        self.norm.running_mean = torch.linspace(-1, 1, 8)
        self.norm.running_var = torch.linspace(0.05, 2, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x.reshape(-1, 1, 4, 4))))
        return self.last(x.mean(dim=(2, 3)))


class Steps(nn.Module):
    """The same input as four steps of an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.last = nn.LSTM(4, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.steps(x.reshape(-1, 4, 4))[0][:, -1])


MODELS: dict[str, Callable[[], nn.Module]] = {"block": Block, "picture": Picture, "steps": Steps}


def seeded(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return MODELS[name]().eval()


def inputs() -> list[tuple[str, torch.Tensor, bool]]:
    x = torch.from_numpy(values(8, 16, seed=9))
    return [
        *((f"batch {size}", x[:size], True) for size in (1, 2, 3, 8)),
        ("zeros", torch.zeros(2, 16), False),
        ("large", 100 * x[:2], False),
    ]


@torch.no_grad()
def reference(model: nn.Module) -> list[Case]:
    double = copy.deepcopy(model).double()
    return [
        Case(name, {"x": x.numpy()}, {"y": model(x).numpy()}, {"y": double(x.double()).numpy()}, real)
        for name, x, real in inputs()
    ]


@torch.no_grad()
def answers(run: Callable[[torch.Tensor], torch.Tensor]) -> list[Outputs]:
    return [{"y": run(x).numpy()} for _, x, _ in inputs()]


def in_double(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    double = copy.deepcopy(model).double()
    return lambda x: double(x.double()).float()


def other_order(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """Every dense layer sums its products from the other end and in two halves."""

    def linear(layer: nn.Linear) -> Callable[[nn.Module, tuple[torch.Tensor], torch.Tensor], torch.Tensor]:
        def sums(_: nn.Module, given: tuple[torch.Tensor], __: torch.Tensor) -> torch.Tensor:
            x, weight, half = given[0].flip(-1), layer.weight.flip(-1), layer.in_features // 2
            return (x[..., :half] @ weight[:, :half].T + x[..., half:] @ weight[:, half:].T) + layer.bias

        return sums

    turned = copy.deepcopy(model)
    for layer in turned.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(linear(layer))
    return turned


def traced(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    module = torch.jit.trace(model, (torch.zeros(2, 16),))
    return lambda x: module(x)


def row_by_row(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: torch.cat([model(x[row : row + 1]) for row in range(len(x))])


@pytest.mark.parametrize("healthy", [in_double, other_order, traced, row_by_row])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_healthy_format_passes(name, healthy, seed):
    model = seeded(name, seed)
    cases = reference(model)
    given = answers(healthy(model))
    assert judge(cases, given, Ratio()).refusal == ""
    assert judge([replace(c, exact=None) for c in cases], given, Ratio()).refusal == ""


def test_a_healthy_format_of_a_float64_model_passes_and_an_fp32_copy_of_it_does_not():
    model = seeded("block").double()
    x = values(8, 16, seed=9).astype(np.float64)
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
        healthy = other_order(model)(torch.from_numpy(x)).numpy()
        single = copy.deepcopy(model).float()(torch.from_numpy(x).float()).double().numpy()
    for exact in ({"y": expected}, None):
        one = Case("a", {"x": x}, {"y": expected}, exact, True)
        assert judge([one], [{"y": healthy}], Ratio()).refusal == ""
        assert judge([one], [{"y": single}], Ratio()).refusal


def spoiled(change: Callable[[nn.Module], object]) -> Callable[[nn.Module], nn.Module]:
    def spoil(model: nn.Module) -> nn.Module:
        wrong = copy.deepcopy(model)
        with torch.no_grad():
            change(wrong)
        return wrong

    return spoil


def one_weight(model: nn.Module) -> None:
    weight = next(p for p in model.parameters() if p.dim() > 1).view(-1)
    weight[weight.abs().argmax()] *= 1 + 1e-3


def through(dtype: torch.dtype) -> Callable[[nn.Module], object]:
    def change(model: nn.Module) -> None:
        for parameter in model.parameters():
            parameter.copy_(parameter.to(dtype))

    return change


def eps(value: float) -> Callable[[nn.Module], object]:
    return lambda model: setattr(model.norm, "eps", value)


def permuted(model: nn.Module) -> None:
    model.last.weight.copy_(model.last.weight.flip(0))


def transposed(model: nn.Module) -> None:
    model.second.weight.copy_(model.second.weight.T.clone())


# model, fault, would np.allclose(rtol=1e-3, atol=1e-5) have passed it? Hidden faults are why it is not the judge.
FAULTS = {
    "permuted weight": ("block", permuted, False),
    "transposed square weight": ("block", transposed, False),
    "gelu tanh for erf": ("block", lambda model: setattr(model.act, "approximate", "tanh"), None),
    "layer norm eps 1e-5 for 1e-12": ("block", eps(1e-5), True),
    "batch norm eps 1.1e-5 for 1e-5": ("picture", eps(1.1e-5), True),
    "batch norm eps 1e-3 for 1e-5": ("picture", eps(1e-3), False),
    "one weight off by a thousandth, dense": ("block", one_weight, None),
    "one weight off by a thousandth, convolution": ("picture", one_weight, None),
    "one weight off by a thousandth, recurrent": ("steps", one_weight, None),
    "weights by way of bfloat16, dense": ("block", through(torch.bfloat16), False),
    "weights by way of bfloat16, recurrent": ("steps", through(torch.bfloat16), False),
    "weights by way of float16": ("picture", through(torch.float16), None),
}


@pytest.mark.parametrize("name, change, _", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_fault_is_refused(name, change, _, seed):
    model = seeded(name, seed)
    found = judge(reference(model), answers(spoiled(change)(model)), Ratio())
    assert "times the rounding of fp32" in found.refusal
    assert found.deviations[0].max_ratio > 8


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_default_bounds_stand_well_between_healthy_and_wrong():
    """Every healthy format here stays below half of them, every fault is beyond four times of one of them."""
    for name in MODELS:
        cases = reference(seeded(name))
        for healthy in (in_double, other_order, traced, row_by_row):
            found = judge(cases, answers(healthy(seeded(name))), Ratio()).deviations[0]
            assert found.max_ratio <= Ratio.max / 2
            assert found.rms_ratio <= Ratio.rms / 2
    for name, change, _ in FAULTS.values():
        found = judge(reference(seeded(name)), answers(spoiled(change)(seeded(name))), Ratio()).deviations[0]
        assert found.max_ratio > 4 * Ratio.max or found.rms_ratio > 4 * Ratio.rms


def allclose(cases: Sequence[Case], given: Sequence[Outputs]) -> bool:
    return all(np.allclose(c.expected["y"], a["y"], rtol=1e-3, atol=1e-5) for c, a in zip(cases, given, strict=True))


@pytest.mark.parametrize(
    "name, change, passes", [row for row in FAULTS.values() if row[2] is not None],
    ids=[key for key, row in FAULTS.items() if row[2] is not None],
)  # fmt: skip
def test_allclose_passes_what_the_judge_refuses(name, change, passes):
    model = seeded(name)
    assert allclose(reference(model), answers(spoiled(change)(model))) is passes


def test_allclose_passes_a_shape_that_broadcasts_and_two_empty_arrays():
    y = values(2, 3)
    assert np.allclose(y, y[None])
    assert np.allclose(np.ones((2, 3)), np.ones((1, 1)))
    assert np.allclose(np.empty(0), np.empty((0, 5)).reshape(0))


# INT8


GATE = Int8Gate(accuracy_drop=0.01, agreement=0.99, sqnr_db=30.0)
ONE = case(y=values(2, 3))
NO = math.nan


def quality(base: Outputs, candidate: Outputs, *, scores: list[str], labels: np.ndarray | None) -> Quality:
    tally = Tally(scores)
    tally.add(base, candidate, labels)
    return tally.quality()


INT8 = {
    "accuracy falls by less": (Quality(20, 0, 0.941, 0.95), ""),
    "accuracy falls by just that": (Quality(20, 0, 0.94, 0.95), ""),
    "accuracy falls by more": (Quality(99, 1, 0.9399, 0.95), "accuracy falls by 1.01%, allowed: 1.00%"),
    "accuracy rises": (Quality(20, 0, 0.99, 0.95), ""),
    "more answers agree": (Quality(20, 0.9901, NO, NO), ""),
    "just so many answers agree": (Quality(20, 0.99, NO, NO), ""),
    "fewer answers agree": (Quality(99, 0.9899, NO, NO), "98.99% of answers agree, needed: 99.00%"),
    "less noise": (Quality(30.1, NO, NO, NO, 30.1), ""),
    "just that noise": (Quality(30.0, NO, NO, NO, 30.0), ""),
    "more noise": (Quality(29.9, NO, NO, NO, 29.9), "signal-to-noise ratio is 29.9 dB, needed: 30.0"),
    "more noise beside good scores": (Quality(29.9, 1, 1, 1, 29.9), "signal-to-noise ratio is 29.9 dB, needed: 30.0"),
    "no noise at all": (Quality(math.inf, NO, NO, NO, math.inf), ""),
    "no signal": (Quality(-math.inf, NO, NO, NO, -math.inf), "signal-to-noise ratio is -inf dB, needed: 30.0"),
    "just the floor of any output": (Quality(10.0, 1, 1, 1), ""),
    "below the floor of any output": (Quality(9.9, 1, 1, 1), "signal-to-noise ratio is 9.9 dB, needed: 10.0 of any"),
    "no measure applies": (Quality(NO, NO, NO, NO), "no floating output and no scores: there is nothing to measure"),
    "NaN among its answers": (Quality(99, 1, 1, 1, broken=2), "2 values over the evaluation samples are NaN or infin"),
}


@pytest.mark.parametrize("measured, refusal", INT8.values(), ids=INT8)
def test_int8_is_held_to_the_sharpest_measure_that_applies_to_each_output(measured, refusal):
    found = judge_int8([ONE], [ONE.expected], measured, GATE).refusal
    assert found.startswith(refusal) if refusal else not found


def test_quality_is_the_lowest_over_the_outputs():
    base = {"a": np.eye(4, dtype=F32), "b": np.eye(4, dtype=F32)}
    flipped = np.eye(4, dtype=F32)[[1, 0, 2, 3]]
    found = quality(base, {"a": base["a"], "b": flipped}, scores=["a", "b"], labels=np.arange(4))
    assert (found.agreement, found.accuracy, found.base_accuracy) == (0.5, 1.0, 1.0)
    assert found.sqnr_db == pytest.approx(0.0)
    assert math.isnan(found.plain_sqnr_db)
    assert quality(base, {"a": base["a"], "b": flipped}, scores=["a"], labels=None).plain_sqnr_db == found.sqnr_db
    found = quality(base, {"a": flipped, "b": base["b"]}, scores=["a", "b"], labels=np.arange(4))
    assert found.accuracy == 0.5


def test_quality_says_nothing_of_what_does_not_apply():
    found = quality({"n": np.arange(3)}, {"n": np.arange(3)}, scores=[], labels=None)
    assert all(math.isnan(value) for value in (found.sqnr_db, found.agreement, found.accuracy, found.base_accuracy))


@pytest.mark.parametrize("broken", [np.inf, np.nan])
def test_a_value_that_is_not_finite_is_counted_where_the_model_has_one(broken):
    base = {"y": np.array([[1.0, np.nan], [2.0, 3.0]], F32)}
    found = quality(base, {"y": np.array([[1.0, np.nan], [broken, 3.0]], F32)}, scores=["y"], labels=None)
    assert found.broken == 1


def test_signal_to_noise_is_in_decibels():
    base = np.array([3.0, 4.0], F32)
    assert sqnr_db(base, base) == math.inf
    assert sqnr_db(base, np.array([3.0, 4.05], F32)) == pytest.approx(40.0, abs=0.01)
    assert sqnr_db(np.zeros(2, F32), base) == -math.inf
    assert sqnr_db(base, np.array([np.nan, 4.0], F32)) == -math.inf


def test_golden_answers_are_held_to_their_noise_in_every_case():
    cases = [case("a", y=np.array([1.0, 2.0], F32)), case("b", y=np.array([1.0, 2.0], F32))]
    near, far = {"y": np.array([1.0, 2.01], F32)}, {"y": np.array([1.0, 2.1], F32)}
    assert judge_sqnr(cases, [near, near], 40.0).refusal == ""
    refusal = judge_sqnr(cases, [near, far], 40.0).refusal
    assert refusal == "case 'b': output 'y' has a signal-to-noise ratio of 27.0 dB, needed: 40.0 (PH-0635)"
