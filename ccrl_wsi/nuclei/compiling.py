"""Networks compiled by PyTorch for the machine they run on."""

from __future__ import annotations

from typing import Any

import torch
import torch._dynamo
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from ccrl_wsi.errors import ModelError


class Compiled(nn.Module):
    """A network that is compiled as a whole when it is first called, which takes a minute or more.

    Parts that cannot be compiled would run as before, unnoticed; here they are an error. Tiles at
    the edge of a slide have windows of other sizes: the code is made for all sizes, and only for
    special ones (a single window, a square one) once more.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # TIAToolbox turns this on for the whole process.
        torch._dynamo.config.suppress_errors = False
        self.network = torch.compile(network, fullgraph=True, dynamic=True)

    def forward(self, images: torch.Tensor) -> Any:
        """What the network says of ``images`` (n, 3, h, w).

        Raises
        ------
        ModelError
            If it cannot be compiled here.
        """
        try:
            return self.network(images)
        except TorchDynamoException as error:
            problem = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(
                f"The network cannot be compiled here ({problem}). Set compute.compile=false."
            ) from error
