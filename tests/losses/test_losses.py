"""The losses against slow double-precision versions written from the papers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from contracts.crossing import as_if_on_a_gpu

from bancache import losses
from bancache.errors import UsageError
from bancache.losses import MixedLabels
from bancache.losses.reference import differentiable_loss
from bancache.losses.weights import Codes, LossWeights
from bancache.training.recipe import preset

B, C = 7, 5


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((B, C), generator=generator, requires_grad=True)
    targets = torch.softmax(torch.randn((B, C), generator=generator) * 2, dim=1)
    labels = torch.randint(0, C, (B,), generator=generator)
    return logits, targets, labels


def softmax(z: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(value / temperature) for value in z]
    return [p / sum(powers) for p in powers]


def rows() -> list[tuple[list[float], list[float], int]]:
    logits, targets, labels = batch()
    return list(zip(logits.tolist(), targets.tolist(), labels.tolist(), strict=True))


def test_ban_is_cross_entropy_with_the_teacher() -> None:
    logits, targets, _ = batch()
    slow = sum(-sum(t * math.log(q) for t, q in zip(p, softmax(z), strict=True)) for z, p, _ in rows()) / B
    assert losses.ban(logits, targets).item() == pytest.approx(slow, rel=1e-6)


def test_ban_l_adds_the_label_with_weight_one() -> None:
    logits, targets, labels = batch()
    hard = sum(-math.log(softmax(z)[y]) for z, _, y in rows()) / B
    soft = losses.ban(logits, targets).item()
    assert losses.ban_l(logits, targets, labels).item() == pytest.approx(hard + soft, rel=1e-6)


def test_the_gradient_of_ban_is_student_minus_teacher() -> None:
    logits, targets, _ = batch()
    losses.ban(logits, targets).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(logits.grad, (torch.softmax(logits, 1) - targets).detach() / B)


def test_kd_is_hintons() -> None:
    logits, targets, labels = batch()
    slow = 0.0
    for z, p, y in rows():
        q = softmax(z, 4.0)
        divergence = sum(t * math.log(t / s) for t, s in zip(p, q, strict=True))
        slow += (0.3 * -math.log(softmax(z)[y]) + 0.7 * 16 * divergence) / B
    value = losses.kd(logits, targets, labels, temperature=4.0, alpha=0.7).item()
    assert value == pytest.approx(slow, rel=1e-5)


def test_cwtm_weighs_samples_by_the_teachers_confidence() -> None:
    logits, targets, labels = batch()
    total = sum(max(p) for _, p, _ in rows())
    slow = sum(max(p) / total * -math.log(softmax(z)[y]) for z, p, y in rows())
    assert losses.cwtm(logits, targets, labels).item() == pytest.approx(slow, rel=1e-6)


def test_dkpp_keeps_the_largest_and_permutes_the_rest() -> None:
    targets = torch.tensor([[0.1, 0.6, 0.2, 0.1, 0.0], [0.7, 0.05, 0.15, 0.06, 0.04]])
    keys = torch.tensor([[5, 4, 3, 2, 1], [9, 1, 2, 3, 4]])
    # Row 0: classes 0, 2, 3, 4 get the values of 4, 3, 2, 0 (by rising key); row 1 is in order already.
    expected = torch.tensor([[0.0, 0.6, 0.1, 0.2, 0.1], [0.7, 0.05, 0.15, 0.06, 0.04]])
    torch.testing.assert_close(losses.permute_all_but_largest(targets, keys), expected)
    logits, _, _ = batch()
    slow = losses.ban(logits[:2], expected)
    torch.testing.assert_close(losses.dkpp(logits[:2], targets, keys), slow)


def test_dkpp_permutes_uniformly_and_by_address() -> None:
    samples = np.arange(6000)
    keys = losses.permutation_keys(3, 1, samples, 4)
    assert all(len(set(row)) == 4 for row in keys.tolist()[:100])
    np.testing.assert_array_equal(losses.permutation_keys(3, 1, samples[17:19], 4), keys[17:19])
    assert not np.array_equal(losses.permutation_keys(3, 2, samples, 4), keys)
    assert keys[:2].tolist() == [
        [34198832887627776, 15855526403375105, 20673823670009858, 26970961173544963],
        [54655750055657472, 30952493651329025, 14119697469407234, 32212694870261763],
    ]
    targets = torch.tensor([[0.7, 0.1, 0.15, 0.05]]).repeat(6000, 1)
    first = losses.permute_all_but_largest(targets, torch.from_numpy(keys))[:, 1]
    for value in (0.1, 0.15, 0.05):
        assert int((first == value).sum()) == pytest.approx(2000, abs=150)


@pytest.mark.parametrize(
    ("name", "temperature", "alpha"), [("bann", 1, 0.5), ("ban", 2, 0.5), ("kd", 0, 0.5), ("kd", 1, 1.5)]
)
def test_what_makes_no_sense_is_refused(name: str, temperature: float, alpha: float) -> None:
    with pytest.raises(UsageError):
        preset("wrn", loss=name, temperature=temperature, alpha=alpha)


def plain(name: str, z: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Each loss as autograd differentiates it, written with log_softmax alone."""
    log_q = torch.log_softmax(z, 1)
    label = -log_q[torch.arange(len(y)), y]
    soft = -(t * log_q).sum(1)
    if name == "ban":
        return soft.mean()
    if name == "ban-l":
        return (soft + label).mean()
    if name == "cwtm":
        return (label * t.amax(1) / t.amax(1).sum()).sum()
    cold = torch.log_softmax(z / 3, 1)
    return 0.4 * label.mean() + 0.6 * 9 * (t * (t.log() - cold)).sum(1).mean()


def ours(name: str, z: torch.Tensor, t: torch.Tensor, y: torch.Tensor | MixedLabels) -> torch.Tensor:
    if name == "kd":
        return losses.kd(z, t, y, temperature=3.0, alpha=0.6)
    if name == "ban":
        return losses.ban(z, t)
    return losses.ban_l(z, t, y) if name == "ban-l" else losses.cwtm(z, t, y)


NAMES = ["ban", "ban-l", "cwtm", "kd"]


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_that_comes_with_the_loss_is_the_numerical_one(name: str) -> None:
    """Also where a row of targets does not sum to one."""
    logits, targets, labels = batch()
    z, t = logits.detach().double().requires_grad_(), targets.double() * torch.linspace(0.5, 1.5, B)[:, None]
    assert torch.autograd.gradcheck(lambda one: ours(name, one, t, labels), (z,))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("rows", "classes"), [(7, 5), (512, 100), (130, 1000)])
def test_loss_and_gradient_are_those_of_double_precision(name: str, rows: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn((rows, classes), generator=generator).mul_(3).requires_grad_()
    t = torch.softmax(torch.randn((rows, classes), generator=generator) * 3, 1)
    y = torch.randint(0, classes, (rows,), generator=generator)
    value = ours(name, z, t, y)
    (2 * value).backward()  # type: ignore[no-untyped-call]
    exact = z.detach().double().requires_grad_()
    expected = plain(name, exact, t.double(), y)
    (2 * expected).backward()  # type: ignore[no-untyped-call]
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    assert z.grad is not None
    assert exact.grad is not None
    assert float((z.grad - exact.grad).abs().max()) <= 1e-6 * float(exact.grad.abs().max())


def test_a_loss_is_the_same_number_whether_or_not_a_gradient_is_wanted() -> None:
    logits, targets, labels = batch()
    with torch.no_grad():
        silent = losses.ban_l(logits, targets, labels)
    assert not silent.requires_grad
    assert not losses.ban_l(logits.detach(), targets, labels).requires_grad
    assert silent.item() == losses.ban_l(logits, targets, labels).item()


def test_half_precision_logits_get_a_float32_loss_and_their_own_kind_of_gradient() -> None:
    logits, targets, labels = batch()
    half = logits.detach().to(torch.bfloat16).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = losses.ban_l(half, targets, labels)
    value.backward()  # type: ignore[no-untyped-call]
    assert value.dtype == torch.float32
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16
    assert value.item() == losses.ban_l(half.detach().float(), targets, labels).item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_loss_on_labels_alone_of_half_precision_logits_is_that_in_float32(
    dtype: torch.dtype, mixed: bool
) -> None:
    logits, _, own = batch()
    labels = MixedLabels(own, own.flip(0), torch.linspace(0, 1, B)) if mixed else own
    half = logits.detach().to(dtype)
    value = losses.cross_entropy(half, labels)
    assert value.dtype == torch.float32
    assert value.item() == losses.cross_entropy(half.float(), labels).item()


def test_weights_of_rows_multiply_the_weight_of_the_labels() -> None:
    logits, targets, labels = batch()
    each = torch.arange(1, B + 1) / B
    slow = (
        sum(3 * w * -math.log(softmax(z)[y]) for (z, _, y), w in zip(rows(), each.tolist(), strict=True)) / B
    )
    value = differentiable_loss(logits, targets, labels, LossWeights(3.0, 0.0), each)
    assert value.item() == pytest.approx(slow, rel=1e-6)


def test_probabilities_of_many_classes_that_a_loss_decodes_sum_to_one_as_in_double_precision() -> None:
    """Thousands of small weights are added to one large one."""
    q = torch.full((1, 20_000), 40, dtype=torch.uint8)
    q[0, 0] = 255
    found = Codes(q, 4, 256, 0.25).probabilities(torch.tensor([0]), 1.0)
    powers = [1.0] + [(40 / 255) ** 4] * 19_999
    assert found[0, 0].item() == pytest.approx(powers[0] / math.fsum(powers), rel=2.5e-7)
    assert found[0, 1].item() == pytest.approx(powers[1] / math.fsum(powers), rel=2.5e-7)


def test_logits_and_targets_are_left_as_they_were_and_a_second_backward_pass_gives_the_same() -> None:
    logits, targets, labels = batch()
    before = logits.detach().clone(), targets.clone()
    value = losses.ban_l(logits, targets, labels)
    first = torch.autograd.grad(value, logits, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(value, logits)[0], first)
    assert torch.equal(logits, before[0])
    assert torch.equal(targets, before[1])


def test_what_the_gradient_cannot_do_is_refused() -> None:
    logits, targets, labels = batch()
    with pytest.raises(UsageError) as caught:
        losses.ban(logits, targets.requires_grad_())
    assert "targets.detach()" in caught.value.hint
    loss = losses.ban_l(logits, targets.detach(), labels)
    with pytest.raises(UsageError) as caught:
        torch.autograd.grad(loss, logits, create_graph=True)
    assert "log_softmax" in caught.value.hint


# Labels of mixed views.


def mixed(rows: int, classes: int) -> MixedLabels:
    """Labels with every kind of share: 0, 1 and between; some of the pairs are one class."""
    generator = torch.Generator().manual_seed(2)
    own, partner = torch.randint(0, classes, (2, rows), generator=generator)
    partner[2] = own[2]
    lam = torch.rand(rows, generator=generator)
    lam[:2] = torch.tensor([0.0, 1.0])
    return MixedLabels(own, partner, lam)


def defined(name: str, z: torch.Tensor, t: torch.Tensor, y: MixedLabels) -> torch.Tensor:
    """Each loss on mixed labels, written with log_softmax alone: λ · CE(own) + (1 − λ) · CE(partner)."""
    log_q, each = torch.log_softmax(z, 1), torch.arange(len(z))
    lam = y.lam.to(z.dtype)
    label = -lam * log_q[each, y.own] - (1 - lam) * log_q[each, y.partner]
    if name == "labels":
        return label.mean()
    if name == "cwtm":
        return (label * t.amax(1) / t.amax(1).sum()).sum()
    if name == "ban-l":
        return (label - (t * log_q).sum(1)).mean()
    return 0.4 * label.mean() + 0.6 * 9 * (t * (t.log() - torch.log_softmax(z / 3, 1))).sum(1).mean()


@pytest.mark.parametrize("name", ["ban-l", "cwtm", "kd", "labels"])
@pytest.mark.parametrize(("rows", "classes"), [(7, 5), (130, 1000)])
def test_mixed_labels_weigh_both_classes(name: str, rows: int, classes: int) -> None:
    """Loss and gradient are autograd's of the definition in double precision."""
    generator, y = torch.Generator().manual_seed(1), mixed(rows, classes)
    z = torch.randn((rows, classes), generator=generator).mul_(3).requires_grad_()
    t = torch.softmax(torch.randn((rows, classes), generator=generator) * 3, 1)
    value = losses.cross_entropy(z, y) if name == "labels" else ours(name, z, t, y)
    (2 * value).backward()  # type: ignore[no-untyped-call]
    exact = z.detach().double().requires_grad_()
    expected = defined(name, exact, t.double(), y)
    (2 * expected).backward()  # type: ignore[no-untyped-call]
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    assert z.grad is not None
    assert exact.grad is not None
    assert float((z.grad - exact.grad).abs().max()) <= 1e-6 * float(exact.grad.abs().max())


@pytest.mark.parametrize("name", ["ban-l", "cwtm", "kd"])
def test_the_gradient_of_mixed_labels_is_the_numerical_one(name: str) -> None:
    logits, targets, _ = batch()
    z, t = logits.detach().double().requires_grad_(), targets.double()
    assert torch.autograd.gradcheck(lambda one: ours(name, one, t, mixed(B, C)), (z,))


@pytest.mark.parametrize("name", ["ban-l", "cwtm", "kd"])
def test_a_share_of_one_or_none_is_the_loss_with_that_label_alone(name: str) -> None:
    logits, targets, labels = batch()
    other = labels.flip(0)
    for lam, alone in ((1.0, labels), (0.0, other)):
        both = MixedLabels(labels, other, torch.full((B,), lam))
        value = ours(name, logits, targets, alone).item()
        assert ours(name, logits, targets, both).item() == pytest.approx(value, rel=1e-6)
        expected = losses.cross_entropy(logits, alone).item()
        assert losses.cross_entropy(logits, both).item() == pytest.approx(expected, rel=1e-6)


def test_the_larger_of_two_labels_is_that_with_the_larger_share() -> None:
    y = MixedLabels(torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5]), torch.tensor([0.4, 0.5, 1.0]))
    assert y.larger.tolist() == [3, 1, 2]


@pytest.mark.parametrize("name", ["ban", "ban-l", "cwtm", "dkpp", "kd", "labels"])
@pytest.mark.parametrize("both", [False, True])
def test_no_loss_makes_the_host_wait_for_a_gpu(
    monkeypatch: pytest.MonkeyPatch, name: str, both: bool
) -> None:
    """Nothing is copied from the host or back."""
    with as_if_on_a_gpu(monkeypatch) as operations, torch.device("cuda"):
        logits, targets = torch.empty((B, C), requires_grad=True), torch.empty((B, C))
        own = torch.empty(B, dtype=torch.int64)
        labels = MixedLabels(own, own, torch.empty(B)) if both else own
        if name == "labels":
            losses.cross_entropy(logits, labels)
        elif name == "dkpp":
            losses.dkpp(logits, targets, torch.empty((B, C), dtype=torch.int64))
        else:
            ours(name, logits, targets, labels)
    assert operations.count > 9
    assert operations.crossing == []
