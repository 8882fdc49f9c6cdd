"""The local-blindness theory: claims with proofs (README.md) and their numerical verification.

An implementation of its own, in float64, that imports nothing of `attnprobe`: two codes that agree are evidence.
"""
