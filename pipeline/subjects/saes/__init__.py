"""Sparse autoencoders and transcoders: their files, their encoders, and the sites of their latents.

Shapes: N tokens, D dimensions of what is encoded, U latents.
"""

from pipeline.subjects.saes.files import coder_files
from pipeline.subjects.saes.site import sae_site

__all__ = ["coder_files", "sae_site"]
