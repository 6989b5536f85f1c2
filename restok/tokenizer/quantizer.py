"""Vector quantiser on the unit sphere, and the care that keeps a small codebook in use."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class Quantized(NamedTuple):
    latents: Float[Tensor, "b n k"]        # the entries chosen, gradients passed straight through
    codes: Int[Tensor, "b n"]
    codebook_loss: Float[Tensor, ""]       # entries towards latents
    commitment_loss: Float[Tensor, ""]     # latents towards entries, unweighted


class Quantizer(nn.Module):
    def __init__(self, size: int, dim: int):
        super().__init__()
        self.codebook = nn.Parameter(F.normalize(torch.randn(size, dim), dim=-1))

    def nearest(self, z: Float[Tensor, "b n k"]) -> Int[Tensor, "b n"]:
        """The entry with the largest cosine; z of any length."""
        return (F.normalize(z.float(), dim=-1) @ F.normalize(self.codebook, dim=-1).T).argmax(-1)

    def lookup(self, codes: Int[Tensor, "b n"]) -> Float[Tensor, "b n k"]:
        return F.normalize(F.embedding(codes, self.codebook), dim=-1)

    def forward(self, z: Float[Tensor, "b n k"]) -> Quantized:
        """In float32 whatever the autocast."""
        with torch.autocast(z.device.type, enabled=False):
            z = F.normalize(z.float(), dim=-1)
            codes = self.nearest(z)
            q = self.lookup(codes)
            return Quantized(z + (q - z).detach(), codes, F.mse_loss(q, z.detach()), F.mse_loss(z, q.detach()))

    @torch.no_grad()
    def place(self, entries: Int[Tensor, " m"], z: Float[Tensor, "b n k"], generator: torch.Generator) -> None:
        """Move `entries` onto latents drawn from z, with a little noise where one latent is drawn twice."""
        z = F.normalize(z.float(), dim=-1).flatten(0, 1)
        drawn = z[torch.randint(len(z), (len(entries),), generator=generator).to(z.device)]
        noise = torch.randn(drawn.shape, generator=generator).to(z.device) * 0.01
        self.codebook[entries] = F.normalize(drawn + noise, dim=-1)


class Revival:
    """Entries that no latent has chosen for `after` steps are moved onto latents of the present batch; 0: never."""

    def __init__(self, quantizer: Quantizer, after: int):
        self.quantizer, self.after = quantizer, after
        self.idle = torch.zeros(len(quantizer.codebook), dtype=torch.int64, device=quantizer.codebook.device)

    def step(self, codes: Int[Tensor, "b n"], z: Float[Tensor, "b n k"], generator: torch.Generator) -> None:
        if not self.after:
            return
        self.idle += 1
        self.idle[codes.flatten()] = 0
        dead = (self.idle >= self.after).nonzero().flatten()
        if len(dead):
            self.quantizer.place(dead, z, generator)
            self.idle[dead] = 0

    def state_dict(self) -> dict[str, Tensor]:
        return {"idle": self.idle}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.idle.copy_(state["idle"])
