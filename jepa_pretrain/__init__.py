"""Self-supervised pretraining of joint-embedding predictive architectures."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jepa_pretrain.agent.folder import load_agent
    from jepa_pretrain.interop.frozen import FrozenEncoder

__all__ = ["FrozenEncoder", "__version__", "load_agent"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that `import jepa_pretrain` stays quick (PEP 562)."""
    if name == "FrozenEncoder":
        from jepa_pretrain.interop.frozen import FrozenEncoder

        return FrozenEncoder
    if name == "load_agent":
        from jepa_pretrain.agent.folder import load_agent

        return load_agent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
