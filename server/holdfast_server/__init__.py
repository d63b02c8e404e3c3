"""Holdfast's server: long-lived multimodal sessions on llama.cpp, over gRPC."""

__version__ = "0.1.0"
