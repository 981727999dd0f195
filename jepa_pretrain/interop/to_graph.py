"""One file that runs without this package: ONNX, TorchScript, or a `torch.export` program.

Each takes `images`, float in 0..1, `(B, 3, H, W)`, or `(B, 3, T, H, W)` for clips, with any number B, and gives
`tokens` `(B, N, D)`; the normalisation is inside.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.comparing import agreement, sample
from jepa_pretrain.interop.extras import extra
from jepa_pretrain.interop.placing import placed_file


class Graph(nn.Module):
    """The encoder on pictures or clips, without the time axis where there is no time."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder.eval()
        self.clips = encoder.config.get("frames", 1) > 1

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images if self.clips else images.unsqueeze(2))


def write_onnx(encoder: nn.Module, path: Path) -> float:
    """Write an ONNX file, run it with onnxruntime and compare.

    Args:
        encoder: Any encoder.
        path: The file; weights beyond 2 GB lie beside it.

    Returns:
        The largest difference of token entries.
    """
    runtime, _ = extra("onnxruntime", "an ONNX file"), extra("onnxscript", "an ONNX file")

    def opened(part: Path) -> Callable[[Tensor], Tensor]:
        session = runtime.InferenceSession(str(part), providers=["CPUExecutionProvider"])
        return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    def save(graph: Graph, images: Tensor, part: Path) -> None:
        batch = torch.export.Dim("batch")
        torch.onnx.export(
            graph, (images,), str(part), input_names=["images"], output_names=["tokens"], dynamo=True, verbose=False,
            dynamic_shapes=({0: batch},), external_data=sum(p.nbytes for p in graph.parameters()) > 1 << 30,
        )  # fmt: skip

    return _write(encoder, path, save, opened)


def write_torchscript(encoder: nn.Module, path: Path) -> float:
    """Write a traced module, open it with `torch.jit.load` and compare; arguments as in `write_onnx`."""

    def save(graph: Graph, images: Tensor, part: Path) -> None:
        torch.jit.save(torch.jit.trace(graph, images), str(part))

    return _write(encoder, path, save, lambda part: torch.jit.load(str(part)))


def write_torch_export(encoder: nn.Module, path: Path) -> float:
    """Write a `torch.export` program, open it with `torch.export.load` and compare; arguments as in `write_onnx`."""
    if path.suffix != ".pt2":
        raise UserError(f"torch opens programs by the ending .pt2 alone: write {path.name}.pt2")

    def save(graph: Graph, images: Tensor, part: Path) -> None:
        program = torch.export.export(graph, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, str(part))

    return _write(encoder, path, save, lambda part: torch.export.load(str(part)).module())


def _write(
    encoder: nn.Module,
    path: Path,
    save: Callable[[Graph, Tensor, Path], None],
    opened: Callable[[Path], Callable[[Tensor], Tensor]],
) -> float:
    with placed_file(path) as part, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that tracing keeps sizes, which it may, but for the batch's; that is checked
        save(Graph(encoder), sample(encoder, 2), part)
        return agreement(encoder, opened(part), str(path))
