"""Limpet: a very small vision-language model that Holdfast ships, and everything it was made with."""
