"""Sparse autoencoders and transcoders: their files, their encoders, and the hook points of their latents.

Shapes: N tokens, D dimensions of what is encoded, U latents.
"""
