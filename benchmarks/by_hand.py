"""The strongest loop that a skilled user writes in an hour, in plain torch: what bancache is compared with.

Everything stays on the device: images padded and normalized once, crops and flips of a batch by one gather, and either
the teacher itself or its float16 logits. Nothing here is of bancache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

PAD = 4
# Images of a batch and their numbers → logits of the teacher; None trains on labels alone.
Answers = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Compiler = Callable[[Any], Any]


def plain(function: Any) -> Any:
    """Leave a function as it is."""
    return function


class Views:
    """Padded crops and flips of images on a device. A view index seeds the crops of all images, so that they can be repeated."""

    def __init__(
        self,
        images: torch.Tensor,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Pad and normalize images, uint8 (N, H, W, C)."""
        self.device, self.size = device, images.shape[1]
        shift, scale = (torch.tensor(values, device=device) for values in (mean, std))
        parts = []
        for part in images.split(5000):  # whole, float32 would take six times the memory of what stays
            pixels = (part.to(device).float() - shift) / scale
            padded = F.pad(pixels.permute(0, 3, 1, 2), [PAD] * 4, mode="reflect").permute(0, 2, 3, 1)
            parts.append(padded.to(dtype).contiguous())
        self._padded = torch.cat(parts)
        self._line = torch.arange(self.size, device=device)
        self.crop = _crop

    def __len__(self) -> int:
        return len(self._padded)

    def begin(self, view: int) -> None:
        """Draw the crops of a view of all images."""
        self.view = view
        generator = torch.Generator(self.device).manual_seed(view)
        draw = partial(torch.randint, size=(len(self),), generator=generator, device=self.device)
        self._down, self._right, self._flip = draw(2 * PAD + 1), draw(2 * PAD + 1), draw(2).bool()

    def of(self, index: torch.Tensor) -> torch.Tensor:
        """Return the current views of images ``index`` (B,): (B, C, H, W) in channels_last memory."""
        return self.crop(
            self._padded, self._line, index, self._down[index], self._right[index], self._flip[index]
        )


def _crop(
    padded: torch.Tensor,
    line: torch.Tensor,
    index: torch.Tensor,
    down: torch.Tensor,
    right: torch.Tensor,
    flip: torch.Tensor,
) -> torch.Tensor:
    rows = down[:, None] + line
    columns = right[:, None] + torch.where(flip[:, None], line.flip(0), line)
    return padded[index[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class Loop:
    """Trains one or several students, which share batches and the teacher's answers."""

    def __init__(
        self,
        views: Views,
        labels: torch.Tensor,
        students: list[nn.Module],
        answers: Answers | None,
        *,
        batch: int,
        amp: bool,
        compiler: Compiler = plain,
        lr: float = 1e-4,
        num_views: int | None = None,
    ) -> None:
        """``compiler`` is applied to the loss of each student, from its images on; after ``num_views`` epochs views repeat."""
        self._views, self._labels, self._answers = views, labels.to(views.device), answers
        self._batch, self._amp = batch, amp
        fused = views.device.type == "cuda"
        self._students = [
            (
                compiler(self._loss_of(net)),
                torch.optim.SGD(
                    net.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=fused
                ),
            )
            for net in students
        ]
        self._epoch, self._num_views = 0, num_views
        self._batches: Iterator[torch.Tensor] = iter(())

    def steps(self, count: int) -> None:
        """Take so many steps, from where the last call stopped on."""
        for _ in range(count):
            index = next(self._batches, None)
            if index is None:
                self.begin()
                index = next(self._batches)
            images, labels = self._views.of(index), self._labels[index]
            self.learn(images, labels, None if self._answers is None else self._answers(images, index))

    def learn(self, images: torch.Tensor, labels: torch.Tensor, answers: torch.Tensor | None) -> None:
        """Take one step of each student on a batch."""
        for loss_of, optimizer in self._students:
            loss_of(images, labels, answers).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def begin(self) -> None:
        """Begin the next epoch: its view of each image, in another order."""
        self._views.begin(self._epoch if self._num_views is None else self._epoch % self._num_views)
        self._epoch += 1
        whole = len(self._views) // self._batch * self._batch
        order = torch.randperm(len(self._views), device=self._views.device)[:whole]
        self._batches = iter(order.split(self._batch))

    def _loss_of(self, net: nn.Module) -> Callable[..., torch.Tensor]:
        kind, amp = self._views.device.type, self._amp

        def loss_of(images: torch.Tensor, labels: torch.Tensor, answers: torch.Tensor | None) -> torch.Tensor:
            with torch.autocast(kind, torch.bfloat16, enabled=amp):
                logits = net(images)
            logits = logits.float()
            loss = F.cross_entropy(logits, labels)
            if answers is not None:
                loss = loss + F.cross_entropy(logits, torch.softmax(answers.float(), dim=1))
            return loss

        return loss_of


def online(teacher: nn.Module, *, kind: str, amp: bool, compiler: Compiler = plain) -> Answers:
    """Ask the teacher at every step."""
    asked = compiler(teacher)

    def answers(images: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=amp):
            return asked(images)  # type: ignore[no-any-return]

    return answers


def stored(logits: torch.Tensor, views: Views) -> Answers:
    """Look the teacher's logits up, float16 (V, N, C), of which the current view is read."""
    return lambda images, index: logits[views.view][index]


@torch.no_grad()
def dump(views: Views, ask: Answers, view: int, *, batch: int) -> torch.Tensor:
    """Return the teacher's logits of one view of all images, float16 (N, C), on the device."""
    views.begin(view)
    every = torch.arange(len(views), device=views.device)
    return torch.cat([ask(views.of(index), index).half() for index in every.split(batch)])
