"""V-JEPA 2-AC: a robot's next frame from its frames, poses and actions (https://arxiv.org/abs/2506.09985, section 3).

A moment is the tokens of one frame, with a token of the action and one of the pose before them (and one of the camera's
place, where the model was trained with it). A token sees its own moment and all earlier ones. Patches are turned by
their place; the tokens before them by their moment alone, which is the turn of their frame's first patch.
"""

import torch
from torch import Tensor, nn

from jepa_pretrain.contracts import Grid, UserError
from jepa_pretrain.models.rotary import RotaryBlock, TiledRotation
from jepa_pretrain.models.vit import blocks, init_weights


class ActionPredictor(nn.Module):
    """Predicts the tokens of the frame after each moment; parameter names are those of Meta's file.

    Args:
        encoder_width: width D of the tokens that come in and go out.
        grid: the most moments, and rows and columns of a frame's tokens.
        width: inner width.
        depth: number of blocks.
        heads: attention heads, a divisor of the inner width.
        actions: numbers A of an action, and of a pose.
        extrinsics: there is a token of the camera's place too, of A - 1 numbers; the released model has none.
    """

    def __init__(
        self,
        encoder_width: int,
        grid: Grid,
        width: int = 1024,
        depth: int = 24,
        heads: int = 16,
        actions: int = 7,
        extrinsics: bool = False,
    ) -> None:
        super().__init__()
        self.grid, self.actions, self.extrinsics = Grid(*grid), actions, extrinsics
        self.config = dict(
            encoder_width=encoder_width, grid=list(grid), width=width, depth=depth, heads=heads, actions=actions,
            extrinsics=extrinsics,
        )  # fmt: skip
        self.predictor_embed = nn.Linear(encoder_width, width)
        self.action_encoder, self.state_encoder = nn.Linear(actions, width), nn.Linear(actions, width)
        self.extrinsics_encoder = nn.Linear(actions - 1, width)  # lies in the file even where it is not used
        self.rotate = TiledRotation(width // heads, self.grid)
        self.predictor_blocks = blocks(depth, width, heads, block=RotaryBlock)
        self.predictor_norm = nn.LayerNorm(width, eps=1e-6)
        self.predictor_proj = nn.Linear(width, encoder_width)
        init_weights(self, self.predictor_blocks)

    def forward(self, tokens: Tensor, actions: Tensor, poses: Tensor, extrinsics: Tensor | None = None) -> Tensor:
        """Teacher-forced: the frame after each moment, from the true ones up to it.

        Args:
            tokens: `(B, T, N, D)`, layer-normed as in training, T at most `grid.t`.
            actions: `(B, T, A)`, what is done from each moment to the next.
            poses: `(B, T, A)`, where the robot is at each moment.
            extrinsics: `(B, T, A - 1)`, where the camera is; None without.

        Returns:
            `(B, T, N, D)`; entry t is the frame at t + 1, before the layer norm that its use as an input needs.
        """
        self._check(tokens, actions, poses, extrinsics)
        moments, patches = tokens.shape[1], tokens.shape[2]
        given = [self.action_encoder(actions), self.state_encoder(poses)]
        if extrinsics is not None:
            given.append(self.extrinsics_encoder(extrinsics))
        x = torch.cat([torch.stack(given, dim=2), self.predictor_embed(tokens)], dim=2)  # (B, T, C + N, P)
        places = self.rotate(self._index(moments, len(given), x.device))
        mask = self._mask(moments, x.shape[2], x.device)
        x = x.flatten(1, 2)
        for block in self.predictor_blocks:
            x = block(x, *places, mask)
        x = x.unflatten(1, (moments, -1))[:, :, -patches:]
        return self.predictor_proj(self.predictor_norm(x))

    def _check(self, tokens: Tensor, actions: Tensor, poses: Tensor, extrinsics: Tensor | None) -> None:
        _, moments, patches, _ = tokens.shape
        if moments > self.grid.t or patches != self.grid.h * self.grid.w:
            raise UserError(
                f"this predictor takes up to {self.grid.t} moments of {self.grid.h * self.grid.w} tokens, "
                f"found {moments} of {patches}"
            )
        expected = {"actions": self.actions, "poses": self.actions, "extrinsics": self.actions - 1}
        for (name, width), found in zip(expected.items(), (actions, poses, extrinsics), strict=True):
            wanted = None if name == "extrinsics" and not self.extrinsics else (moments, width)
            shape = None if found is None else tuple(found.shape[1:])
            if shape != wanted:
                raise UserError(f"this predictor takes {name} of (moments, numbers) {wanted}, found {shape}")

    def _index(self, moments: int, conditions: int, device: torch.device) -> Tensor:
        """Where each token is turned to, on the grid: `(T (C + N),)`."""
        patches = self.grid.h * self.grid.w
        first = torch.arange(moments, device=device)[:, None] * patches  # (T, 1)
        return torch.cat([first.expand(-1, conditions), first + torch.arange(patches, device=device)], dim=1).flatten()

    @staticmethod
    def _mask(moments: int, tokens: int, device: torch.device) -> Tensor:
        """Who sees whom, `(T tokens, T tokens)`: the own moment and earlier ones."""
        moment = torch.arange(moments, device=device).repeat_interleave(tokens)
        return moment[:, None] >= moment[None, :]
