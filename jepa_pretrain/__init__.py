"""Self-supervised pretraining of joint-embedding predictive architectures."""

__version__ = "0.1.0"
