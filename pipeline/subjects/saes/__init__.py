"""Sparse autoencoders and transcoders: their files, their encoders, and the sites of their latents.

Shapes: N tokens, D dimensions of what is encoded, U latents.
"""
