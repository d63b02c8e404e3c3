"""Holdfast's server: long-lived multimodal sessions on llama.cpp, over gRPC."""
