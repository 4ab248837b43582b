"""One optimiser as learners use it: Adam at the step's rate, mixed precision, kept as tensors."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor
from torch.nn import Parameter

from ccrl_wsi.devices import compute_float32_whole
from ccrl_wsi.errors import ModelError
from ccrl_wsi.training.distributed import average_gradients
from ccrl_wsi.training.learner import Moment
from ccrl_wsi.training.schedules import learning_rate
from ccrl_wsi.training.settings import ScheduleSettings

Precision = Literal["auto", "float32", "bfloat16"]
_KEPT = ("step", "exp_avg", "exp_avg_sq")


class Optimisation:
    """Adam with L2 weight decay (paper, section 3; not AdamW) for some named parameters.

    Where several processes train together, gradients are averaged over them before each step:
    the loss of each shall be a mean over its share of the batch.

    Parameters
    ----------
    parameters
        As ``named_parameters`` gives them: all on one device, names different. Those that do not
        ask for a gradient are left out.
    schedule
        Rate over time, weight decay and betas.
    precision
        See :func:`autocast_type`.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, Parameter]],
        schedule: ScheduleSettings,
        precision: Precision = "auto",
    ) -> None:
        self._parameters = {name: p for name, p in parameters if p.requires_grad}
        self._schedule = schedule
        self._device = next(iter(self._parameters.values())).device
        self._type = autocast_type(precision, self._device)
        if self._device.type == "cuda":
            # Asking a finished network does so too: two trainings of a process shall be alike.
            compute_float32_whole()
        self._adam = torch.optim.Adam(
            list(self._parameters.values()),
            lr=0.0,
            betas=schedule.betas,
            weight_decay=schedule.weight_decay,
            fused=self._device.type == "cuda",
        )

    def autocast(self) -> AbstractContextManager[None]:
        """The context to compute forward passes and losses in."""
        return torch.autocast(self._device.type, self._type, enabled=self._type is not None)

    def step(self, loss: Tensor, moment: Moment) -> None:
        """Change the parameters along the gradient of the scalar ``loss`` at the moment's rate."""
        for group in self._adam.param_groups:
            group["lr"] = learning_rate(moment, self._schedule)
        self._adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(self._parameters.values())
        self._adam.step()

    def state(self) -> dict[str, Tensor]:
        """Copies of Adam's tensors, named ``parameter/step``, ``/exp_avg`` and ``/exp_avg_sq``.

        Parameters that have had no gradient yet have none.
        """
        return {
            f"{name}/{key}": self._adam.state[p][key].detach().clone()
            for name, p in self._parameters.items()
            if p in self._adam.state
            for key in _KEPT
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave, bit for bit.

        Raises
        ------
        ModelError
            If the tensors belong to other parameters.
        """
        left = dict(state)
        found = {
            name: {key: left.pop(f"{name}/{key}", None) for key in _KEPT}
            for name in self._parameters
        }
        if left:
            raise ModelError(_foreign(next(iter(left))))
        self._adam.state.clear()
        for name, kept in found.items():
            if any(tensor is not None for tensor in kept.values()):
                self._adam.state[self._parameters[name]] = self._taken_in(name, kept)

    def _taken_in(self, name: str, kept: dict[str, Tensor | None]) -> dict[str, Tensor]:
        parameter = self._parameters[name]
        # Fused Adam counts on the device, the plain one on the CPU.
        counter = self._device if self._device.type == "cuda" else torch.device("cpu")
        taken = {"step": torch.zeros((), dtype=torch.float32, device=counter)}
        # Like the parameter in memory too: fused Adam walks through both side by side.
        taken |= {key: torch.zeros_like(parameter).detach() for key in _KEPT[1:]}
        for key, place in taken.items():
            tensor = kept[key]
            if tensor is None or tensor.shape != place.shape:
                raise ModelError(_foreign(f"{name}/{key}"))
            place.copy_(tensor)
        return taken


def autocast_type(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The type mixed precision computes in; ``None`` for plain float32.

    ``auto`` is bfloat16 on GPUs that compute it (from compute capability 8.0), else float32:
    bfloat16 has float32's range, so that losses need no scaling.
    """
    if precision != "auto":
        return None if precision == "float32" else torch.bfloat16
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] < 8:
        return None
    return torch.bfloat16


def _foreign(name: str) -> str:
    return (
        f"The optimiser's {name!r} in the saved state does not fit this network. "
        "Go on with the settings it was saved with, or train into a new folder."
    )
